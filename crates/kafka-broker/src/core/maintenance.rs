//! Keeps start time, memory and disk use independent of what the broker has ever written.
//!
//! When the active segment is full, the state is written as a checkpoint, from which the next start continues. Segments
//! without batches that a consumer could still read are removed.

use anyhow::Result;
use kafka_protocol::ResponseError;

use super::Core;
use crate::checkpoint;
use crate::entry::Entry;
use crate::journal::Used;
use crate::partition::Partition;
use crate::partition_index::IndexWriter;
use crate::state::State;

/// `producer.id.expiration.ms`
const PRODUCER_EXPIRATION_MS: i64 = 24 * 60 * 60 * 1000;

impl Core {
    /// Begins the next segment and writes a checkpoint. After a failure the next attempt follows with the next segment.
    pub(super) fn roll(&mut self) {
        if let Err(error) = self.try_roll() {
            tracing::error!(error = format!("{error:#}"), "cannot write a checkpoint, will retry");
        }
    }

    fn try_roll(&mut self) -> Result<()> {
        self.journal.begin_segment()?;
        let mut writer = IndexWriter::new(self.journal.create_index()?)?;
        let partitions = self.state.topics.values().flat_map(|topic| &topic.partitions);
        let written: Vec<_> =
            partitions.map(|partition| partition.write_recent(&mut writer)).collect::<Result<_, _>>()?;
        writer.finish()?;
        let partitions = self.state.topics.values_mut().flat_map(|topic| &mut topic.partitions);
        partitions.zip(written).for_each(|(partition, written)| partition.seal(written));
        self.journal.write_checkpoint(checkpoint::payloads(&self.state, self.journal.active_start()))?;
        let used = used(&self.state);
        self.journal.remove_unused_segments(&used)?;
        self.journal.remove_unused_indexes(&used)?;
        Ok(())
    }

    /// Deletes the records that the retention of their topics no longer protects, and the segments that are then unused.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR when an entry cannot be written.
    pub fn delete_expired(&mut self, now_ms: i64) -> Result<(), ResponseError> {
        let mut expired = Vec::new();
        for (name, topic) in &self.state.topics {
            if !topic.configs.delete {
                continue;
            }
            for (index, partition) in (0..).zip(&topic.partitions) {
                let before = partition.retained_from(topic.configs.retention, now_ms);
                if before > partition.start_offset() {
                    expired.push(Entry::RecordsDeleted {
                        topic: name.clone().into(),
                        partition: index,
                        before,
                    });
                }
            }
        }
        // The entries cannot be written to a full device, unless earlier ones have left segments to remove.
        self.remove_unused_segments();
        let written = expired.iter().try_for_each(|entry| self.commit(entry));
        self.remove_unused_segments();
        written
    }

    fn remove_unused_segments(&mut self) {
        if let Err(error) = self.journal.remove_unused_segments(&used(&self.state)) {
            tracing::warn!(%error, "cannot remove a segment of the journal, will retry");
        }
    }

    /// Forgets producers that have not written for a day, or each producer that ever wrote would stay in memory.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR when the entry cannot be written.
    pub fn expire_producers(&mut self, now_ms: i64) -> Result<(), ResponseError> {
        let before_ms = now_ms.saturating_sub(PRODUCER_EXPIRATION_MS);
        let mut partitions = self.state.topics.values().flat_map(|topic| &topic.partitions);
        if partitions.any(|partition| partition.has_expired_producers(before_ms)) {
            self.commit(&Entry::ProducersExpired { before_ms })?;
        }
        Ok(())
    }
}

/// Lists what the state refers to in the journal.
pub fn used(state: &State) -> Used {
    let mut used = Used::default();
    let partitions = state.topics.values().flat_map(|topic| &topic.partitions);
    partitions.for_each(|partition: &Partition| partition.add_used(&mut used));
    used
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Change, filled};

    #[test]
    fn segments_without_records_are_removed_even_if_retention_cannot_be_written() {
        let mut run = filled();
        run.core().roll();
        for topic in [0, 1] {
            run.apply(&Change::DeleteRecords { topic, before: 40 });
        }
        run.apply(&Change::Append { topic: 1, timestamp: 0 });
        let core = run.core();
        core.journal.refuse_writes();
        let before = core.journal.segments();
        assert!(core.delete_expired(10_000).is_err());
        assert!(core.journal.segments() < before);
    }
}
