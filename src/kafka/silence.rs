//! Detects partitions from which a consumer reads nothing although records wait there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The time after which a partition is suspected: longer than a fetch, a metadata refresh or a change of the leader.
const LIMIT: Duration = Duration::from_secs(20);

/// The offsets of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// `None` when nothing is committed.
    pub(super) committed: Option<i64>,
    pub(super) first: i64,
    /// The next offset to be written.
    pub(super) end: i64,
}

impl Extent {
    /// Returns the offset at which reading continues: the committed one, or the first one when the log does not contain
    /// it.
    pub(super) fn next(self) -> i64 {
        self.committed.filter(|next| (self.first..=self.end).contains(next)).unwrap_or(self.first)
    }
}

/// The partitions that seem to be silent, with the time since when.
///
/// A client may stop reading from a partition permanently. librdkafka ignores a leader whose epoch is lower than the
/// last one that it knew (`rd_kafka_toppar_leader_update`), and the epochs of a recreated topic begin with 0. Only a
/// new client reads the partition.
#[derive(Debug, Default)]
pub(super) struct SilentPartitions(BTreeMap<i32, (Option<i64>, Instant)>);

impl SilentPartitions {
    /// Evaluates the partitions that are assigned to this member and have no records in flight. Returns a partition
    /// that has been in this state for 20 s, seems to have records, and whose committed offset did not move.
    pub(super) fn suspect(&mut self, idle: &BTreeMap<i32, Extent>, now: Instant) -> Option<i32> {
        let behind = |extent: &Extent| extent.next() < extent.end;
        self.0.retain(|partition, (committed, _)| {
            idle.get(partition).is_some_and(|extent| behind(extent) && extent.committed == *committed)
        });
        for (&partition, extent) in idle.iter().filter(|(_, extent)| behind(extent)) {
            self.0.entry(partition).or_insert((extent.committed, now));
        }
        let (partition, _) =
            self.0.iter().find(|(_, (_, since))| now.saturating_duration_since(*since) >= LIMIT)?;
        Some(*partition)
    }

    /// Restarts the waiting time of a partition.
    pub(super) fn forget(&mut self, partition: i32) {
        self.0.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(committed: Option<i64>, end: i64) -> BTreeMap<i32, Extent> {
        BTreeMap::from([(2, Extent { committed, first: 0, end })])
    }

    #[test]
    fn a_partition_with_records_that_are_not_read_is_suspected_after_a_while() {
        for committed in [None, Some(3), Some(900)] {
            let (mut silent, began) = (SilentPartitions::default(), Instant::now());
            assert_eq!(silent.suspect(&idle(committed, 5), began), None);
            assert_eq!(silent.suspect(&idle(committed, 7), began + LIMIT), Some(2), "{committed:?}");
            silent.forget(2);
            assert_eq!(silent.suspect(&idle(committed, 7), began + LIMIT), None);
        }
    }

    #[test]
    fn a_partition_that_moves_is_empty_or_was_revoked_is_not_suspected() {
        let (mut silent, began) = (SilentPartitions::default(), Instant::now());
        for (seconds, idle) in
            [(0, idle(Some(1), 5)), (60, idle(Some(2), 5)), (120, BTreeMap::new()), (180, idle(Some(2), 5))]
        {
            assert_eq!(silent.suspect(&idle, began + Duration::from_secs(seconds)), None, "{seconds}");
        }
        assert_eq!(silent.suspect(&idle(Some(5), 5), began + Duration::from_secs(600)), None);
    }
}
