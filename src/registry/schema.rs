//! A schema that values are checked against.

use std::collections::HashMap;
use std::sync::OnceLock;

use futures::future::BoxFuture;
use jsonschema::{Draft, Registry, Resource, Validator};
use reqwest::Url;
use serde_json::Value;

use super::client::{RegistryClient, SchemaText, parse};
use super::error::CodecError;
use super::reason;

/// What a schema without `$schema` is.
const DEFAULT_DRAFT: Draft = Draft::Draft7;
/// Schemas that a schema may refer to, together with those that they refer to.
const MAX_REFERENCES: usize = 100;

/// A compiled schema.
pub(super) struct Schema {
    pub(super) text: SchemaText,
    /// The topic whose subject has it, once that is known.
    pub(super) belongs_to: OnceLock<String>,
    validator: Validator,
}

impl Schema {
    /// Compiles `text`, together with the schemas that it refers to.
    ///
    /// # Errors
    /// [`CodecError::UnknownSchema`] when it is no JSON Schema, or one that it refers to is not there.
    pub(super) async fn compile(
        text: SchemaText,
        id: u32,
        registry: &RegistryClient,
    ) -> Result<Self, CodecError> {
        let unusable =
            |reason: String| CodecError::UnknownSchema(format!("schema {id} cannot be used: {reason}"));
        let schema = parse(&text).map_err(unusable)?;
        // Each has an address of its own: versions may share an `$id`.
        let address = format!("vehicle-platform://schemas/ids/{id}");
        let base = Url::parse(&address).map_err(|error| unusable(error.to_string()))?;
        let mut resources = HashMap::new();
        collect(&text, &schema, &base, registry, &mut resources).await?;
        let resources = Registry::new().extend(resources).and_then(|registry| registry.prepare());
        let resources = resources.map_err(|error| unusable(error.to_string()))?;
        let validator = jsonschema::options()
            .with_draft(DEFAULT_DRAFT.detect(&schema))
            .with_base_uri(address)
            .with_registry(&resources)
            .build(&schema)
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { text, belongs_to: OnceLock::new(), validator })
    }

    /// Checks `value`.
    ///
    /// # Errors
    /// Where and what is wrong with it, of bounded length whatever the value.
    pub(super) fn validate(&self, value: &Value) -> Result<(), String> {
        validate(&self.validator, value)
    }
}

pub(super) fn validate(validator: &Validator, value: &Value) -> Result<(), String> {
    if validator.is_valid(value) { Ok(()) } else { Err(reason::of_errors(validator.iter_errors(value))) }
}

/// Fetches what `schema` refers to, by the addresses that it does so.
fn collect<'a>(
    text: &'a SchemaText,
    schema: &'a Value,
    address: &'a Url,
    registry: &'a RegistryClient,
    resources: &'a mut HashMap<String, Resource>,
) -> BoxFuture<'a, Result<(), CodecError>> {
    Box::pin(async move {
        let own = schema.get("$id").and_then(Value::as_str).and_then(|id| Url::parse(id).ok());
        let base = own.unwrap_or_else(|| address.clone());
        for reference in &text.references {
            let unusable = |reason: &str| {
                CodecError::UnknownSchema(format!("the referenced schema {:?} {reason}", reference.name))
            };
            let address = base.join(&reference.name).map_err(|error| unusable(&error.to_string()))?;
            if resources.contains_key(address.as_str()) {
                continue;
            }
            if resources.len() >= MAX_REFERENCES {
                return Err(unusable("is one too many"));
            }
            let text = registry.by_reference(reference).await?.ok_or_else(|| unusable("is not there"))?;
            let schema = parse(&text).map_err(|error| unusable(&error))?;
            let draft = DEFAULT_DRAFT.detect(&schema);
            resources.insert(address.to_string(), draft.create_resource(schema.clone()));
            collect(&text, &schema, &address, registry, resources).await?;
        }
        Ok(())
    })
}
