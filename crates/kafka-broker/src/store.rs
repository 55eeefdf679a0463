//! The durable state with its journal: nothing is in memory that is not in the file.

use std::ops::Deref;
use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::entry::Entry;
use super::ids;
use super::journal::{Journal, Reader};
use super::partition::Partition;
use super::state::State;

/// Reads like a [`State`]; changes only by [`Store::commit`].
pub struct Store {
    state: State,
    journal: Journal,
}

impl Deref for Store {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl Store {
    /// Replays the journal in `dir`, which is created when missing. Blocks.
    pub fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let mut state = State::default();
        let journal = Journal::open(&dir.join("journal"), |payload, position| {
            state.apply(&Entry::decode(payload)?, position)
        })?;
        let mut store = Self { state, journal };
        if store.cluster_id.is_none() {
            let cluster_id = ids::cluster_id().into();
            store.commit(&Entry::ClusterCreated { cluster_id }).context("cannot write the journal")?;
        }
        Ok(store)
    }

    /// Writes the entry, then applies it as the replay would: as read back from its bytes.
    pub fn commit(&mut self, entry: &Entry) -> Result<(), ResponseError> {
        let payload = entry.encode();
        self.write(payload).map_err(|error| {
            tracing::error!(error = format!("{error:#}"), "cannot write the journal");
            ResponseError::KafkaStorageError
        })
    }

    fn write(&mut self, payload: Bytes) -> Result<()> {
        let position = self.journal.append(&payload)?;
        self.state.apply(&Entry::decode(payload)?, position)
    }

    /// For what is not durable in a partition: who waits for it.
    pub fn partition_mut(&mut self, topic: &str, index: i32) -> Option<&mut Partition> {
        self.state.partition_mut(topic, index)
    }

    pub fn reader(&self) -> Reader {
        self.journal.reader()
    }

    pub fn sync(&self) -> std::io::Result<()> {
        self.journal.sync()
    }
}
