//! Which schemas there are, under which subjects and ids; kept in one JSON file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// By id, as they were registered.
    schemas: BTreeMap<u32, String>,
    /// For each subject the ids of its versions, of which the first has the number 1.
    subjects: BTreeMap<String, Vec<u32>>,
}

#[derive(Debug)]
pub(super) struct State {
    kept: Kept,
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
        let kept = if file.exists() {
            let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?
        } else {
            Kept::default()
        };
        Ok(Self { kept, file: file.to_owned() })
    }

    /// The id of `schema`, which is registered under `subject` when it was not. One schema has one id, under
    /// whatever subjects.
    pub(super) fn register(&mut self, subject: &str, schema: &str) -> anyhow::Result<u32> {
        let known = self.id_of(schema);
        let registered =
            self.kept.subjects.get(subject).is_some_and(|ids| known.is_some_and(|id| ids.contains(&id)));
        if let Some(id) = known.filter(|_| registered) {
            return Ok(id);
        }
        let mut kept = self.kept.clone();
        let id = known.unwrap_or_else(|| kept.schemas.keys().last().map_or(1, |last| last + 1));
        kept.schemas.entry(id).or_insert_with(|| schema.to_owned());
        kept.subjects.entry(subject.to_owned()).or_default().push(id);
        self.write(&kept)?;
        self.kept = kept;
        Ok(id)
    }

    pub(super) fn schema(&self, id: u32) -> Option<&str> {
        self.kept.schemas.get(&id).map(String::as_str)
    }

    pub(super) fn subjects(&self) -> Vec<&str> {
        self.kept.subjects.keys().map(String::as_str).collect()
    }

    /// `None` when there is no such subject.
    pub(super) fn versions(&self, subject: &str) -> Option<Vec<Version<'_>>> {
        let ids = self.kept.subjects.get(subject)?;
        let versions = ids
            .iter()
            .zip(1..)
            .filter_map(|(&id, number)| Some(Version { number, id, schema: self.schema(id)? }));
        Some(versions.collect())
    }

    /// Whether two texts are the same schema: whitespace and the order of keys do not count.
    pub(super) fn same(one: &str, other: &str) -> bool {
        match (serde_json::from_str::<Value>(one), serde_json::from_str::<Value>(other)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
    }

    fn id_of(&self, schema: &str) -> Option<u32> {
        self.kept.schemas.iter().find(|(_, known)| Self::same(known, schema)).map(|(&id, _)| id)
    }

    /// Replaces the file whole: a crash leaves the old one or the new one.
    fn write(&self, kept: &Kept) -> anyhow::Result<()> {
        let temporary = self.file.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(kept)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.file)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_and_one_schema_has_one_id() {
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
