//! Compiles a schema of the registry and validates values with it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use jsonschema::{Draft, Registry, Resource, Validator};
use reqwest::Url;
use serde_json::Value;

use super::client::{RegistryClient, SchemaText};
use super::error::CodecError;
use super::reason;
use super::schema_size::SchemaSize;

/// The draft of a schema without a known `$schema`.
const DEFAULT_DRAFT: Draft = Draft::Draft7;
/// The maximum length of an address that a reference resolves to.
const MAX_ADDRESS_BYTES: usize = 4096;

/// A compiled schema.
pub(super) struct Schema {
    pub(super) text: SchemaText,
    /// The topic whose subject contains this schema, once it is known.
    pub(super) belongs_to: OnceLock<String>,
    /// The size of the schema together with all those that it refers to.
    pub(super) bytes: usize,
    validator: Validator,
}

impl Schema {
    /// Compiles `text` together with the schemas that it refers to.
    ///
    /// # Errors
    /// Returns [`CodecError::UnknownSchema`] when `text` is not a JSON Schema, a referenced schema is missing, or all of
    /// them have more than 2 MiB.
    pub(super) async fn compile(
        text: SchemaText,
        id: u32,
        registry: &RegistryClient,
    ) -> Result<Self, CodecError> {
        let unusable =
            |reason: String| CodecError::UnknownSchema(format!("schema {id} cannot be used: {reason}"));
        let mut size = SchemaSize::default();
        size.add(&text).map_err(|reason| unusable(format!("it {reason}")))?;
        let schema = text.parse().map_err(unusable)?;
        // Each schema gets its own address, because versions may share an `$id`.
        let address = format!("vehicle-platform://schemas/ids/{id}");
        let base = Url::parse(&address).map_err(|error| unusable(error.to_string()))?;
        let resources = collect(&text, &schema, &base, registry, &mut size).await?;
        let resources = Registry::new().extend(resources).and_then(|registry| registry.prepare());
        let resources = resources.map_err(|error| unusable(error.to_string()))?;
        let validator = jsonschema::options()
            .with_draft(draft_of(&schema))
            .with_base_uri(address)
            .with_registry(&resources)
            .build(&schema)
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { text, belongs_to: OnceLock::new(), bytes: size.bytes(), validator })
    }

    pub(super) fn into_validator(self) -> Validator {
        self.validator
    }

    /// Checks that `value` conforms to the schema.
    ///
    /// # Errors
    /// Returns the locations and causes of the violations, in a text of bounded length.
    pub(super) fn validate(&self, value: &Value) -> Result<(), String> {
        validate(&self.validator, value)
    }
}

pub(super) fn validate(validator: &Validator, value: &Value) -> Result<(), String> {
    if validator.is_valid(value) { Ok(()) } else { Err(reason::of_errors(validator.iter_errors(value))) }
}

/// Fetches the schemas that `schema` refers to, by the addresses that the references resolve to.
async fn collect(
    text: &SchemaText,
    schema: &Value,
    address: &Url,
    registry: &RegistryClient,
    size: &mut SchemaSize,
) -> Result<HashMap<String, Resource>, CodecError> {
    let root = Arc::new(base_of(schema, address));
    let mut resources = HashMap::new();
    let mut pending: Vec<_> =
        text.references.iter().map(|reference| (Arc::clone(&root), reference.clone())).collect();
    while let Some((base, reference)) = pending.pop() {
        let unusable = |reason: &str| {
            CodecError::UnknownSchema(format!("the referenced schema {:?} {reason}", reference.name))
        };
        let address_in = |base: &Url| {
            let address = base.join(&reference.name).map_err(|error| unusable(&error.to_string()))?;
            if address.as_str().len() > MAX_ADDRESS_BYTES {
                return Err(unusable("resolves to an address that is too long"));
            }
            Ok(address)
        };
        let address = address_in(&base)?;
        if resources.contains_key(address.as_str()) {
            continue;
        }
        let text = registry.by_reference(&reference).await?.ok_or_else(|| unusable("does not exist"))?;
        size.add(&text).map_err(|reason| {
            let name = &reference.name;
            CodecError::UnknownSchema(format!("the schema that refers to {name:?} {reason}"))
        })?;
        let schema = text.parse().map_err(|error| unusable(&error))?;
        let resource = draft_of(&schema).create_resource(schema.clone());
        // Confluent's clients resolve all names against the first schema, others against the one that refers.
        resources.entry(address_in(&root)?.to_string()).or_insert_with(|| resource.clone());
        let base = Arc::new(base_of(&schema, &address));
        resources.insert(address.to_string(), resource);
        pending.extend(text.references.into_iter().map(|reference| (Arc::clone(&base), reference)));
    }
    Ok(resources)
}

/// Returns the address against which the references of a schema are resolved.
fn base_of(schema: &Value, address: &Url) -> Url {
    let id = schema.get("$id").and_then(Value::as_str).and_then(|id| address.join(id).ok());
    id.unwrap_or_else(|| address.clone())
}

fn draft_of(schema: &Value) -> Draft {
    match DEFAULT_DRAFT.detect(schema) {
        Draft::Unknown => DEFAULT_DRAFT,
        draft => draft,
    }
}
