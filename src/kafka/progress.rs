//! Describes how a transaction moves the progress of a group.

use std::collections::HashMap;

use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use crate::expected_panic::catch_expected;

/// A committed offset and its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub offset: i64,
    /// `None` when it is not UTF-8, and was thus written by another program.
    pub metadata: Option<String>,
}

impl Mark {
    /// Returns a committed offset, or `None` when nothing is committed.
    pub(super) fn of(element: &TopicPartitionListElem<'_>) -> Option<Self> {
        let Offset::Offset(offset) = element.offset() else { return None };
        // The accessor panics when another program committed metadata that is not UTF-8.
        let metadata = catch_expected(|| element.metadata().to_owned());
        Some(Self { offset, metadata })
    }
}

/// The next offset to read in each partition of a topic that a transaction moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub topic: String,
    /// The partitions with the offset and metadata to commit.
    pub next: Vec<(i32, Mark)>,
}

impl Progress {
    pub(super) fn as_list(&self) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(self.next.len());
        for (partition, Mark { offset, metadata }) in &self.next {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
            if let Some(metadata) = metadata.as_deref()
                && let Some(mut element) = list.find_partition(&self.topic, *partition)
            {
                element.set_metadata(metadata);
            }
        }
        Ok(list)
    }

    /// Determines from the offsets that the group has committed by now whether the transaction that moves this progress
    /// was committed.
    pub(super) fn outcome(&self, committed: &HashMap<i32, Mark>) -> TransactionOutcome {
        let is_at = |(partition, next): &(i32, Mark)| committed.get(partition) == Some(next);
        let is_before = |(partition, next): &(i32, Mark)| {
            committed.get(partition).is_none_or(|mark| mark.offset < next.offset)
        };
        if self.next.iter().all(is_at) {
            TransactionOutcome::Committed
        } else if self.next.iter().all(is_before) {
            TransactionOutcome::Aborted
        } else {
            TransactionOutcome::Unclear
        }
    }
}

/// The outcome of a transaction that moves progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransactionOutcome {
    Committed,
    Aborted,
    /// Another member took over a partition and moved its offset, or the log is not the one that the group read before.
    Unclear,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(log: &str, offsets: &[(i32, i64)]) -> Vec<(i32, Mark)> {
        let mark = |offset| Mark { offset, metadata: Some(format!("{log} {offset}")) };
        offsets.iter().map(|(partition, offset)| (*partition, mark(*offset))).collect()
    }

    fn outcome_in(log: &str, committed: &[(i32, i64)]) -> TransactionOutcome {
        let progress = Progress { topic: "t".to_owned(), next: marks("same", &[(0, 10), (2, 30)]) };
        progress.outcome(&marks(log, committed).into_iter().collect())
    }

    fn outcome(committed: &[(i32, i64)]) -> TransactionOutcome {
        outcome_in("same", committed)
    }

    #[test]
    fn a_transaction_whose_offsets_are_committed_was_committed() {
        assert_eq!(outcome(&[(0, 10), (1, 5), (2, 30)]), TransactionOutcome::Committed);
    }

    #[test]
    fn a_transaction_none_of_whose_offsets_was_reached_was_aborted() {
        assert_eq!(outcome(&[(0, 9), (2, 29)]), TransactionOutcome::Aborted);
        assert_eq!(outcome(&[]), TransactionOutcome::Aborted);
    }

    #[test]
    fn other_offsets_leave_the_outcome_unclear() {
        assert_eq!(outcome(&[(0, 10), (2, 29)]), TransactionOutcome::Unclear);
        assert_eq!(outcome(&[(2, 30)]), TransactionOutcome::Unclear);
        assert_eq!(outcome(&[(0, 10), (2, 31)]), TransactionOutcome::Unclear);
    }

    #[test]
    fn the_same_offsets_of_another_log_leave_the_outcome_unclear() {
        assert_eq!(outcome_in("other", &[(0, 10), (2, 30)]), TransactionOutcome::Unclear);
    }
}
