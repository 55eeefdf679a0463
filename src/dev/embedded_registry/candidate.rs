//! A schema in a request, which is valid but not registered.

use std::collections::BTreeMap;

use json_schema_compatibility::Schema;
use serde_json::Value;

use super::api_error::ApiError;
use super::state::State;
use super::stored::StoredSchema;
use crate::registry::{Reference, SchemaText};

/// The maximum number of documents that a schema refers to, directly or indirectly.
const MAX_REFERENCES: usize = 100;

pub(super) struct Candidate {
    pub(super) stored: StoredSchema,
    pub(super) parsed: Schema,
}

impl Candidate {
    /// Checks the schema in a request. Schemas are equal when their texts are, apart from white space, and with
    /// `normalize` also apart from the order of names and references.
    pub(super) fn new(body: SchemaText, normalize: bool, state: &State) -> Result<Self, ApiError> {
        if body.schema_type != "JSON" {
            let reason = format!("this registry supports JSON schemas only, not {}", body.schema_type);
            return Err(ApiError::invalid_schema(reason));
        }
        let document: Value = serde_json::from_str(&body.schema).map_err(ApiError::invalid_schema)?;
        let mut references = body.references;
        for reference in &mut references {
            // The latest version may be another one later.
            reference.version = referred(reference, state, false)?.0;
        }
        let schema = if normalize { document.to_string() } else { compact(&body.schema) };
        if normalize {
            references.sort_by(|one, other| one.name.cmp(&other.name));
            references.dedup();
        }
        let stored = StoredSchema { schema, references };
        let parsed = parse(&stored, state)?;
        Ok(Self { stored, parsed })
    }
}

/// Parses a schema together with what it refers to, deleted or not.
pub(super) fn parse(stored: &StoredSchema, state: &State) -> Result<Schema, ApiError> {
    let document = serde_json::from_str(&stored.schema).map_err(ApiError::invalid_schema)?;
    let mut documents = BTreeMap::new();
    let mut pending = stored.references.clone();
    while let Some(reference) = pending.pop() {
        if documents.contains_key(&reference.name) {
            continue;
        }
        if documents.len() >= MAX_REFERENCES {
            return Err(ApiError::invalid_schema(format!("it has more than {MAX_REFERENCES} references")));
        }
        let (_, target) = referred(&reference, state, true)?;
        let document: Value = serde_json::from_str(&target.schema).map_err(ApiError::invalid_schema)?;
        documents.insert(reference.name, document);
        pending.extend(target.references.iter().cloned());
    }
    Schema::parse(&document, &documents).map_err(ApiError::invalid_schema)
}

/// Returns the version that a reference names, and its schema. -1 is the latest version.
fn referred<'a>(
    reference: &Reference,
    state: &'a State,
    deleted: bool,
) -> Result<(i32, &'a StoredSchema), ApiError> {
    let Reference { name, subject, version } = reference;
    let missing = || {
        ApiError::invalid_schema(format!(
            "the reference {name:?} names version {version} of the subject {subject:?}, which does not exist"
        ))
    };
    let versions = state.versions(subject, deleted);
    let found = if *version == -1 {
        versions.last()
    } else {
        versions.iter().find(|found| i32::try_from(found.number) == Ok(*version))
    };
    let found = found.ok_or_else(missing)?;
    let schema = state.schema(found.id).ok_or_else(missing)?;
    Ok((i32::try_from(found.number).map_err(|_| missing())?, schema))
}

/// Removes the white space between the tokens of a JSON document.
pub(super) fn compact(json: &str) -> String {
    let (mut in_string, mut is_escaped) = (false, false);
    let is_kept = |character: &char| {
        if in_string {
            in_string = is_escaped || *character != '"';
            is_escaped = !is_escaped && *character == '\\';
            return true;
        }
        in_string = *character == '"';
        !matches!(character, ' ' | '\t' | '\n' | '\r')
    };
    json.chars().filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn white_space_is_removed_between_tokens_only() {
        let text = "{ \"a b\" :\n [ 1 , \" \\\" x \\\\\" , \"\\\\\" ] }";
        assert_eq!(compact(text), r#"{"a b":[1," \" x \\","\\"]}"#);
    }

    proptest! {
        #[test]
        fn a_compact_document_has_the_same_value(name in any::<String>(), value in any::<String>()) {
            let document = json!({ name: [value, { "nested": [1, null] }] });
            let compacted = compact(&serde_json::to_string_pretty(&document).unwrap());
            prop_assert_eq!(&compacted, &document.to_string());
        }
    }
}
