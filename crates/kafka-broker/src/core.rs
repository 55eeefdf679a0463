//! Holds all state of the broker, and writes each durable change to the journal before it applies it.

mod maintenance;
#[cfg(test)]
mod old_journals;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::checkpoint;
use crate::entry::Entry;
use crate::groups::Groups;
use crate::ids;
use crate::journal::{Journal, Reader};
use crate::start_error::StartError;
use crate::state::State;

/// Holds the durable state with its journal, and the groups with their timers. One lock guards it.
pub struct Core {
    /// Changes only in [`Core::commit`], so memory never holds what the journal does not.
    state: State,
    journal: Journal,
    log_dir: PathBuf,
    pub groups: Groups,
}

impl Core {
    /// Continues from the checkpoint and the journal in `dir`, which is created when missing. Blocks the thread.
    pub fn open(dir: &Path, segment_bytes: u64) -> Result<Self, StartError> {
        std::fs::create_dir_all(dir).map_err(|error| StartError::DataDir(dir.to_owned(), error))?;
        let mut journal = Journal::open(dir, segment_bytes)?;
        let (mut state, position) = match journal.read_checkpoint()? {
            Some(payloads) => checkpoint::restore(payloads, |position| journal.open_index(position))
                .map_err(|error| journal.damaged_checkpoint(&error))?,
            None => (State::default(), 0),
        };
        journal.replay(position, |payload, position| state.apply(&Entry::decode(payload)?, position))?;
        journal.check_used(&maintenance::used(&state))?;
        // A relative path does not name the directory to clients.
        let log_dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        Self::new(state, journal, log_dir)
    }

    /// Begins without data, on a journal that ends with the process. Blocks the thread.
    pub fn temporary(segment_bytes: u64) -> Result<Self, StartError> {
        let journal = Journal::temporary(segment_bytes).map_err(StartError::TemporaryFile)?;
        Self::new(State::default(), journal, std::env::temp_dir())
    }

    fn new(state: State, journal: Journal, log_dir: PathBuf) -> Result<Self, StartError> {
        let groups = Groups::restore(&state.groups, Instant::now());
        let mut core = Self { state, journal, log_dir, groups };
        if core.state.cluster_id.is_none() {
            let cluster_id = ids::cluster_id().into();
            core.commit(&Entry::ClusterCreated { cluster_id }).map_err(|_| StartError::Write)?;
        }
        if core.journal.is_full() {
            core.roll();
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
        self.state.apply(&Entry::decode(payload)?, position)?;
        if self.journal.is_full() {
            self.roll();
        }
        Ok(())
    }

    /// Changes groups, stores what a restart must find of them, and only then answers their members.
    pub fn coordinate<T>(&mut self, change: impl FnOnce(&mut Groups) -> T) -> T {
        let result = change(&mut self.groups);
        for id in self.groups.take_changed() {
            // If the group cannot be stored, its members continue, and join again after a restart.
            let _ = self.store_group(&id);
            if let Some(group) = self.groups.get_mut(&id) {
                group.send_answers();
            }
        }
        result
    }

    fn store_group(&mut self, id: &str) -> Result<(), ResponseError> {
        let group = id.to_owned().into();
        match self.groups.get_mut(id) {
            Some(changed) => match changed.take_unsaved() {
                Some(stored) => self.commit(&Entry::GroupStored { group, stored }),
                None => Ok(()),
            },
            None if self.state.groups.contains_key(id) => self.commit(&Entry::GroupRemoved { group }),
            None => Ok(()),
        }
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
