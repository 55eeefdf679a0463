//! Stores the schemas with their subjects and ids in one JSON file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The content of the file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Stored {
    /// The texts of the schemas by id, as they were registered.
    schemas: BTreeMap<u32, String>,
    /// The ids of the versions of each subject. The first version has the number 1.
    subjects: BTreeMap<String, Vec<u32>>,
}

#[derive(Debug)]
pub(super) struct State {
    stored: Stored,
    file: PathBuf,
}

/// A version of a subject.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version<'a> {
    pub(super) number: usize,
    pub(super) id: u32,
    pub(super) schema: &'a str,
}

impl State {
    pub(super) fn open(file: &Path) -> anyhow::Result<Self> {
        let stored = if file.exists() {
            let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?
        } else {
            Stored::default()
        };
        Ok(Self { stored, file: file.to_owned() })
    }

    /// Registers `schema` under `subject`, unless it is registered already, and returns its id. A schema has the same
    /// id under all subjects.
    pub(super) fn register(&mut self, subject: &str, schema: &str) -> anyhow::Result<u32> {
        let known = self.id_of(schema);
        let registered =
            self.stored.subjects.get(subject).is_some_and(|ids| known.is_some_and(|id| ids.contains(&id)));
        if let Some(id) = known.filter(|_| registered) {
            return Ok(id);
        }
        let mut stored = self.stored.clone();
        let id = known.unwrap_or_else(|| stored.schemas.keys().last().map_or(1, |last| last + 1));
        stored.schemas.entry(id).or_insert_with(|| schema.to_owned());
        stored.subjects.entry(subject.to_owned()).or_default().push(id);
        self.write(&stored)?;
        self.stored = stored;
        Ok(id)
    }

    pub(super) fn schema(&self, id: u32) -> Option<&str> {
        self.stored.schemas.get(&id).map(String::as_str)
    }

    pub(super) fn subjects(&self) -> Vec<&str> {
        self.stored.subjects.keys().map(String::as_str).collect()
    }

    /// Returns the versions of `subject`, or `None` when it does not exist.
    pub(super) fn versions(&self, subject: &str) -> Option<Vec<Version<'_>>> {
        let ids = self.stored.subjects.get(subject)?;
        let versions = ids
            .iter()
            .zip(1..)
            .filter_map(|(&id, number)| Some(Version { number, id, schema: self.schema(id)? }));
        Some(versions.collect())
    }

    /// Returns whether two texts are the same schema. Ignores whitespace and the order of keys.
    pub(super) fn same(one: &str, other: &str) -> bool {
        match (serde_json::from_str::<Value>(one), serde_json::from_str::<Value>(other)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
    }

    fn id_of(&self, schema: &str) -> Option<u32> {
        self.stored.schemas.iter().find(|(_, known)| Self::same(known, schema)).map(|(&id, _)| id)
    }

    /// Replaces the file atomically. After a crash, it has either the old or the new content.
    fn write(&self, stored: &Stored) -> anyhow::Result<()> {
        let temporary = self.file.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(stored)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.file)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_restart_and_one_schema_has_one_id() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("registry.json");
        let mut state = State::open(&file).unwrap();
        let one = state.register("a-value", r#"{"type":"object","title":"A"}"#).unwrap();
        let two = state.register("a-value", r#"{"type":"string"}"#).unwrap();
        assert_ne!(one, two);
        assert_eq!(state.register("b-value", r#"{ "title": "A", "type": "object" }"#).unwrap(), one);

        let mut reopened = State::open(&file).unwrap();
        assert_eq!(reopened.register("a-value", r#"{"type":"string"}"#).unwrap(), two);
        assert_eq!(reopened.subjects(), ["a-value", "b-value"]);
        let numbers: Vec<_> = reopened
            .versions("a-value")
            .unwrap()
            .iter()
            .map(|version| (version.number, version.id))
            .collect();
        assert_eq!(numbers, [(1, one), (2, two)]);
        assert_eq!(reopened.versions("c-value"), None);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("registry.json");
        fs::write(&file, "{").unwrap();
        assert!(State::open(&file).unwrap_err().to_string().contains("registry.json"));
    }
}
