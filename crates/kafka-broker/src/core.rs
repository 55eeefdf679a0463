//! All state of the broker, which one lock guards.

use std::path::Path;
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

/// Holds the durable state with its journal, and the groups, which live in memory only.
pub struct Core {
    /// Changes only by [`Core::commit`], so nothing is in memory that is not in the journal.
    state: State,
    journal: Journal,
    pub groups: Groups,
}

impl Core {
    /// Replays the journal in `dir`, which is created when missing. Blocks.
    pub fn open(dir: &Path) -> Result<Self, StartError> {
        std::fs::create_dir_all(dir).map_err(|error| StartError::DataDir(dir.to_owned(), error))?;
        let mut state = State::default();
        let journal = Journal::open(&dir.join("journal"), |payload, position| {
            state.apply(&Entry::decode(payload)?, position)
        })?;
        Self::new(state, journal)
    }

    /// Begins without data, on a journal that ends with the process. Blocks.
    pub fn temporary() -> Result<Self, StartError> {
        let journal = Journal::temporary().map_err(StartError::TemporaryFile)?;
        Self::new(State::default(), journal)
    }

    fn new(state: State, journal: Journal) -> Result<Self, StartError> {
        let mut core = Self { state, journal, groups: Groups::default() };
        if core.state.cluster_id.is_none() {
            let cluster_id = ids::cluster_id().into();
            core.commit(&Entry::ClusterCreated { cluster_id }).map_err(|_| StartError::Write)?;
        }
        Ok(core)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Writes the entry, then applies it as the replay would: as read back from its bytes.
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

    /// Notifies `waiter` once something is appended to the partition, or the partition is deleted.
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
