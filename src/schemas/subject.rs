//! Reads subjects of a registry.

use std::collections::BTreeMap;

use anyhow::{Context as _, Error};
use json_schema_compatibility::{Level, Schema};
use serde_json::Value;

use crate::registry::{RegisteredSchema, RegistryClient, SchemaSize, SchemaText};

/// Returns the compatibility level that applies to a subject.
///
/// # Errors
/// Fails when no registry responds, or its level is unknown.
pub(super) async fn level(registry: &RegistryClient, subject: &str) -> anyhow::Result<Level> {
    let name = registry.level(subject).await?;
    name.parse().with_context(|| format!("the registry names the compatibility level {name:?}"))
}

/// Returns a version of a subject, the latest one by default.
///
/// # Errors
/// Fails when no registry responds, or there is no such version.
pub(super) async fn version(
    registry: &RegistryClient,
    subject: &str,
    number: Option<u32>,
) -> anyhow::Result<RegisteredSchema> {
    let found = registry.version(subject, number).await?;
    found.with_context(|| match number {
        Some(number) => format!("the registry has no version {number} of {subject}"),
        None => format!("the registry has no subject {subject}"),
    })
}

/// Parses a registered schema together with what it refers to.
///
/// # Errors
/// Fails when no registry responds, or the schema cannot be used.
pub(super) async fn parse(
    registry: &RegistryClient,
    registered: &RegisteredSchema,
) -> anyhow::Result<Schema> {
    let RegisteredSchema { id, text, .. } = registered;
    let documents = referred(registry, text).await.with_context(|| format!("schema {id} cannot be used"))?;
    let parsed = text.parse().map_err(Error::msg);
    let parsed = parsed.and_then(|document| Ok(Schema::parse(&document, &documents)?));
    parsed.with_context(|| format!("schema {id} cannot be used"))
}

async fn referred(registry: &RegistryClient, text: &SchemaText) -> anyhow::Result<BTreeMap<String, Value>> {
    let too_much = |reason| Error::msg(format!("it {reason}"));
    let (mut documents, mut size) = (BTreeMap::new(), SchemaSize::default());
    size.add(text).map_err(too_much)?;
    let mut pending = text.references.clone();
    while let Some(reference) = pending.pop() {
        if documents.contains_key(&reference.name) {
            continue;
        }
        let target = registry.by_reference(&reference).await?;
        let target =
            target.with_context(|| format!("the referenced schema {:?} does not exist", reference.name))?;
        size.add(&target).map_err(too_much)?;
        let document = target.parse().map_err(Error::msg);
        documents.insert(reference.name, document?);
        pending.extend(target.references);
    }
    Ok(documents)
}
