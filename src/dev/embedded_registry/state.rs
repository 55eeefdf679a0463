//! Stores the schemas with their subjects, ids and settings in one JSON file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use json_schema_compatibility::{Level, TooComplex, incompatibilities};

use super::api_error::ApiError;
use super::candidate::{Candidate, compact, parse};
use super::stored::{Mode, Stored, StoredSchema, Version};

/// The names that stand for all subjects and for none in Confluent's registry.
const RESERVED_NAMES: [&str; 2] = ["__GLOBAL", "__EMPTY"];

#[derive(Debug)]
pub(super) struct State {
    stored: Stored,
    file: PathBuf,
}

impl State {
    pub(super) fn open(file: &Path) -> anyhow::Result<Self> {
        let mut stored = if file.exists() {
            let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?
        } else {
            Stored::default()
        };
        // Files of older releases do not contain it.
        stored.last_id = stored.last_id.max(stored.schemas.keys().last().copied().unwrap_or_default());
        Ok(Self { stored, file: file.to_owned() })
    }

    pub(super) fn stored(&self) -> &Stored {
        &self.stored
    }

    pub(super) fn schema(&self, id: u32) -> Option<&StoredSchema> {
        self.stored.schemas.get(&id)
    }

    /// Returns the versions of a subject, in ascending order; none when it does not exist.
    pub(super) fn versions(&self, subject: &str, deleted: bool) -> Vec<Version> {
        let versions = self.stored.subjects.get(subject).into_iter().flat_map(|versions| &versions.0);
        versions.filter(|version| deleted || !version.deleted).copied().collect()
    }

    /// Registers a schema under `subject`, unless it is registered already, and returns its id. A schema has the same id
    /// under all subjects.
    pub(super) fn register(&mut self, subject: &str, candidate: &Candidate) -> Result<u32, ApiError> {
        if let Some(version) = self.find(subject, candidate, false) {
            return Ok(version.id);
        }
        self.check_writable(subject)?;
        let details = self.incompatible(subject, candidate, &self.versions(subject, false))?;
        if !details.is_empty() {
            let message = format!(
                "Schema being registered is incompatible with an earlier schema for subject \"{subject}\", details: [{}]",
                details.join(", ")
            );
            return Err(ApiError::new(409, message));
        }
        let known = self.ids(candidate).next();
        let number = self.versions(subject, true).last().map_or(1, |last| last.number + 1);
        self.change(|stored| {
            let id = known.unwrap_or(stored.last_id + 1);
            stored.last_id = stored.last_id.max(id);
            stored.schemas.entry(id).or_insert_with(|| candidate.stored.clone());
            let versions = stored.subjects.entry(subject.to_owned()).or_default();
            versions.0.push(Version { number, id, deleted: false });
            Ok(id)
        })
    }

    /// Returns the latest version of a subject that has the schema.
    pub(super) fn find(&self, subject: &str, candidate: &Candidate, deleted: bool) -> Option<Version> {
        let ids: Vec<_> = self.ids(candidate).collect();
        self.versions(subject, deleted).into_iter().rev().find(|version| ids.contains(&version.id))
    }

    /// Returns the ids of the schema. There may be several in a file of an older release.
    fn ids(&self, candidate: &Candidate) -> impl Iterator<Item = u32> {
        let is_same = |known: &StoredSchema| {
            known.references == candidate.stored.references
                && (known.schema == candidate.stored.schema
                    || compact(&known.schema) == candidate.stored.schema)
        };
        self.stored.schemas.iter().filter(move |(_, known)| is_same(known)).map(|(id, _)| *id)
    }

    /// Returns why the schema is incompatible with the first of the `earlier` versions, latest first, that the level of
    /// the subject forbids.
    pub(super) fn incompatible(
        &self,
        subject: &str,
        candidate: &Candidate,
        earlier: &[Version],
    ) -> Result<Vec<String>, ApiError> {
        let level = self.stored.levels.of(subject);
        if level == Level::None {
            return Ok(Vec::new());
        }
        let count = if level.is_transitive() { usize::MAX } else { 1 };
        for version in earlier.iter().rev().take(count) {
            let Some(old) = self.schema(version.id) else { continue };
            let found = incompatibilities(level, &candidate.parsed, &parse(old, self)?);
            let found = found.map_err(|error: TooComplex| ApiError::invalid_schema(error))?;
            if !found.is_empty() {
                let mut messages: Vec<_> = found.iter().map(|found| found.message()).collect();
                messages.push(format!("{{oldSchemaVersion: {}}}", version.number));
                messages.push(format!("{{oldSchema: '{}'}}", old.schema));
                messages.push(format!("{{validateFields: 'false', compatibility: '{level}'}}"));
                return Ok(messages);
            }
        }
        Ok(Vec::new())
    }

    /// Checks that a subject has a possible name and may be changed.
    pub(super) fn check_writable(&self, subject: &str) -> Result<(), ApiError> {
        if RESERVED_NAMES.contains(&subject) || subject.contains(char::is_control) {
            let message = format!("The specified subject '{subject}' is not a valid subject.");
            return Err(ApiError::new(42208, message));
        }
        match self.stored.modes.of(subject) {
            Mode::ReadWrite => Ok(()),
            Mode::ReadOnly => {
                Err(ApiError::not_permitted(format!("Subject {subject} in context . is in read-only mode")))
            }
        }
    }

    /// Sets the compatibility level of a subject, or of all. `None` removes the setting. Returns the previous one.
    pub(super) fn set_level(
        &mut self,
        subject: Option<&str>,
        level: Option<Level>,
    ) -> Result<Option<Level>, ApiError> {
        self.check_writable(subject.unwrap_or_default())?;
        self.change(|stored| Ok(set(&mut stored.levels.global, &mut stored.levels.subjects, subject, level)))
    }

    /// Sets the mode of a subject, or of all. `None` removes the setting. Returns the previous one.
    pub(super) fn set_mode(
        &mut self,
        subject: Option<&str>,
        mode: Option<Mode>,
    ) -> Result<Option<Mode>, ApiError> {
        self.change(|stored| Ok(set(&mut stored.modes.global, &mut stored.modes.subjects, subject, mode)))
    }

    /// Changes the content and writes the file, or changes nothing.
    pub(super) fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Stored) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut stored = self.stored.clone();
        let result = change(&mut stored)?;
        let written = self.write(&stored);
        written.map_err(|error| ApiError::new(50001, format!("cannot store the change: {error}")))?;
        self.stored = stored;
        Ok(result)
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

fn set<T>(
    global: &mut Option<T>,
    subjects: &mut BTreeMap<String, T>,
    subject: Option<&str>,
    value: Option<T>,
) -> Option<T> {
    match (subject, value) {
        (None, value) => std::mem::replace(global, value),
        (Some(subject), Some(value)) => subjects.insert(subject.to_owned(), value),
        (Some(subject), None) => subjects.remove(subject),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::SchemaText;

    fn candidate(state: &State, schema: &str, normalize: bool) -> Candidate {
        let body = serde_json::json!({ "schema": schema, "schemaType": "JSON" });
        let body: SchemaText = serde_json::from_value(body).unwrap();
        Candidate::new(body, normalize, state).unwrap()
    }

    fn register(state: &mut State, subject: &str, schema: &str) -> u32 {
        let candidate = candidate(state, schema, false);
        state.register(subject, &candidate).unwrap()
    }

    fn empty() -> (tempfile::TempDir, PathBuf, State) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("registry.json");
        let state = State::open(&file).unwrap();
        (directory, file, state)
    }

    #[test]
    fn ids_survive_a_restart_and_one_schema_has_one_id() {
        let (_directory, file, mut state) = empty();
        let one = register(&mut state, "a-value", r#"{"type":"string","title":"A"}"#);
        let two = register(&mut state, "a-value", r#"{"type":["string","null"]}"#);
        assert_ne!(one, two);
        assert_eq!(register(&mut state, "b-value", r#"{ "type": "string", "title": "A" }"#), one);

        let mut reopened = State::open(&file).unwrap();
        assert_eq!(register(&mut reopened, "a-value", r#"{"type":["string","null"]}"#), two);
        let numbers: Vec<_> =
            reopened.versions("a-value", false).iter().map(|version| (version.number, version.id)).collect();
        assert_eq!(numbers, [(1, one), (2, two)]);
        assert_eq!(reopened.versions("c-value", true), []);
    }

    #[test]
    fn the_order_of_names_matters_unless_the_schema_is_normalized() {
        let (_directory, _file, mut state) = empty();
        let one = register(&mut state, "a", r#"{"title":"A","type":"string"}"#);
        let two = register(&mut state, "a", r#"{"type":"string","title":"A"}"#);
        assert_ne!(one, two);
        let normalized = candidate(&state, r#"{"type": "string", "title": "A"}"#, true);
        assert_eq!(state.register("a", &normalized).unwrap(), one);
    }

    #[test]
    fn files_of_older_releases_are_read() {
        let (_directory, file, _state) = empty();
        let schema = "{\n  \"type\": \"string\"\n}";
        let old = serde_json::json!({ "schemas": { "1": "{}", "7": schema }, "subjects": { "a": [1, 7] } });
        fs::write(&file, old.to_string()).unwrap();
        let mut state = State::open(&file).unwrap();
        let numbers: Vec<_> =
            state.versions("a", false).iter().map(|version| (version.number, version.id)).collect();
        assert_eq!(numbers, [(1, 1), (2, 7)]);
        assert_eq!(state.schema(7).unwrap().schema, schema);
        assert_eq!(register(&mut state, "b", r#"{"type":"string"}"#), 7);
        assert_eq!(register(&mut state, "b", r#"{"type":["string","null"]}"#), 8);
        assert_eq!(State::open(&file).unwrap().versions("b", false).len(), 2);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let (_directory, file, _state) = empty();
        fs::write(&file, "{").unwrap();
        assert!(State::open(&file).unwrap_err().to_string().contains("registry.json"));
    }
}
