//! Holds all state of the broker, and writes each durable change to the journal before it applies it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::Notify;

use crate::entry::Entry;
use crate::groups::Groups;
use crate::ids;
use crate::journal::{Journal, Reader};
use crate::start_error::StartError;
use crate::state::State;

/// Holds the durable state with its journal, and the groups, which are in memory only. One lock guards it.
pub struct Core {
    /// Changes only in [`Core::commit`], so memory never holds what the journal does not.
    state: State,
    journal: Journal,
    log_dir: PathBuf,
    pub groups: Groups,
}

impl Core {
    /// Replays the journal in `dir`, which is created when missing. Blocks the thread.
    pub fn open(dir: &Path) -> Result<Self, StartError> {
        std::fs::create_dir_all(dir).map_err(|error| StartError::DataDir(dir.to_owned(), error))?;
        let mut state = State::default();
        let journal = Journal::open(&dir.join("journal"), |payload, position| {
            state.apply(&Entry::decode(payload)?, position)
        })?;
        // A relative path does not name the directory to clients.
        let log_dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        Self::new(state, journal, log_dir)
    }

    /// Begins without data, on a journal that ends with the process. Blocks the thread.
    pub fn temporary() -> Result<Self, StartError> {
        let journal = Journal::temporary().map_err(StartError::TemporaryFile)?;
        Self::new(State::default(), journal, std::env::temp_dir())
    }

    fn new(state: State, journal: Journal, log_dir: PathBuf) -> Result<Self, StartError> {
        let mut core = Self { state, journal, log_dir, groups: Groups::default() };
        if core.state.cluster_id.is_none() {
            let cluster_id = ids::cluster_id().into();
            core.commit(&Entry::ClusterCreated { cluster_id }).map_err(|_| StartError::Write)?;
        }
        Ok(core)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns the directory that holds the journal.
    pub fn log_dir(&self) -> &Path {
        &self.log_dir
    }

    /// Appends the entry to the journal, then applies it as a replay would: as decoded from its bytes.
    pub fn commit(&mut self, entry: &Entry) -> Result<(), ResponseError> {
        let payload = entry.encode();
        self.write(payload).map_err(|error| {
            tracing::error!(error = format!("{error:#}"), "cannot write the journal, refusing the request");
            ResponseError::KafkaStorageError
        })
    }

    fn write(&mut self, payload: Bytes) -> Result<()> {
        let position = self.journal.append(&payload)?;
        self.state.apply(&Entry::decode(payload)?, position)
    }

    /// Notifies `waiter` once, when a batch is appended to the partition or the partition is deleted.
    pub fn wake_on_append(&mut self, topic: &str, partition: i32, waiter: &Arc<Notify>) {
        if let Some(partition) = self.state.partition_mut(topic, partition) {
            partition.wake_on_append(waiter);
        }
    }

    pub fn reader(&self) -> Reader {
        self.journal.reader()
    }

    /// Forces the journal to the device.
    pub fn sync(&self) -> std::io::Result<()> {
        self.journal.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::protocol::StrBytes;
    use uuid::Uuid;

    /// Writes a journal of a version that did not write topic ids.
    fn write_old_journal(dir: &Path, entries: &[Entry]) {
        let mut journal = Journal::open(&dir.join("journal"), |_, _| Ok(())).unwrap();
        for entry in entries {
            journal.append(&entry.encode()).unwrap();
        }
    }

    fn created(topic: &'static str) -> Entry {
        let topic = StrBytes::from_static_str(topic);
        Entry::TopicCreated { topic, partitions: 1, configs: Vec::new(), topic_id: None }
    }

    fn id_in(dir: &Path, topic: &str) -> Uuid {
        let core = Core::open(dir).unwrap();
        let id = core.state().topics[topic].id;
        assert_eq!(core.state().topic_name(id), Some(topic));
        id
    }

    #[test]
    fn topics_of_an_old_journal_have_ids_that_stay_the_same() {
        let dir = tempfile::tempdir().unwrap();
        write_old_journal(dir.path(), &[created("one"), created("another")]);
        let ids = || [id_in(dir.path(), "one"), id_in(dir.path(), "another")];
        let first = ids();
        assert!(!first[0].is_nil() && !first[1].is_nil());
        assert_ne!(first[0], first[1]);
        assert_eq!(ids(), first);
    }

    #[test]
    fn a_topic_that_an_old_journal_creates_again_has_another_id() {
        let dir = tempfile::tempdir().unwrap();
        write_old_journal(dir.path(), &[created("topic")]);
        let first = id_in(dir.path(), "topic");
        let topic = StrBytes::from_static_str("topic");
        write_old_journal(dir.path(), &[Entry::TopicDeleted { topic }, created("topic")]);
        assert_ne!(id_in(dir.path(), "topic"), first);
        assert_eq!(Core::open(dir.path()).unwrap().state().topic_name(first), None);
    }
}
