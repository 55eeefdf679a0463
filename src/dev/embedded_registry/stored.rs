//! The content of the registry's file.

use std::collections::BTreeMap;

use json_schema_compatibility::Level;
use serde::{Deserialize, Serialize};

use crate::registry::Reference;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stored {
    /// The highest id that was ever assigned.
    #[serde(default)]
    pub(super) last_id: u32,
    pub(super) schemas: BTreeMap<u32, StoredSchema>,
    pub(super) subjects: BTreeMap<String, Versions>,
    #[serde(default)]
    pub(super) levels: Scoped<Level>,
    #[serde(default)]
    pub(super) modes: Scoped<Mode>,
}

/// A setting that a subject may override.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Scoped<T> {
    pub(super) global: Option<T>,
    pub(super) subjects: BTreeMap<String, T>,
}

impl<T> Default for Scoped<T> {
    fn default() -> Self {
        Self { global: None, subjects: BTreeMap::new() }
    }
}

impl<T: Copy + Default> Scoped<T> {
    pub(super) fn global(&self) -> T {
        self.global.unwrap_or_default()
    }

    /// Returns the setting of a subject, or of all.
    pub(super) fn of(&self, subject: &str) -> T {
        self.subjects.get(subject).copied().unwrap_or_else(|| self.global())
    }
}

/// Whether schemas can be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Mode {
    #[default]
    ReadWrite,
    ReadOnly,
}

/// A schema with what it refers to. Releases without references stored only the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AnyStoredSchema")]
pub(super) struct StoredSchema {
    pub(super) schema: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) references: Vec<Reference>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AnyStoredSchema {
    Text(String),
    Schema {
        schema: String,
        #[serde(default)]
        references: Vec<Reference>,
    },
}

impl From<AnyStoredSchema> for StoredSchema {
    fn from(any: AnyStoredSchema) -> Self {
        match any {
            AnyStoredSchema::Text(schema) => Self { schema, references: Vec::new() },
            AnyStoredSchema::Schema { schema, references } => Self { schema, references },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) number: u32,
    pub(super) id: u32,
    /// Whether the version was deleted, but not permanently.
    #[serde(default)]
    pub(super) deleted: bool,
}

/// The versions of a subject in ascending order. Releases without deletion stored only the ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AnyVersions", into = "Vec<Version>")]
pub(super) struct Versions(pub(super) Vec<Version>);

#[derive(Deserialize)]
#[serde(untagged)]
enum AnyVersions {
    Ids(Vec<u32>),
    Versions(Vec<Version>),
}

impl From<AnyVersions> for Versions {
    fn from(any: AnyVersions) -> Self {
        match any {
            AnyVersions::Ids(ids) => {
                Self((1..).zip(ids).map(|(number, id)| Version { number, id, deleted: false }).collect())
            }
            AnyVersions::Versions(versions) => Self(versions),
        }
    }
}

impl From<Versions> for Vec<Version> {
    fn from(versions: Versions) -> Self {
        versions.0
    }
}
