//! How far a group has read, as a transaction moves it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

/// The next offset to read, for each partition of one topic that moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub topic: String,
    /// Partition and offset.
    pub next: Vec<(i32, i64)>,
    /// Kept with each offset.
    pub metadata: Option<String>,
}

impl Progress {
    pub(super) fn as_list(&self) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(self.next.len());
        for &(partition, offset) in &self.next {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
            if let Some(metadata) = self.metadata.as_deref()
                && let Some(mut element) = list.find_partition(&self.topic, partition)
            {
                element.set_metadata(metadata);
            }
        }
        Ok(list)
    }

    /// Decides from what the group has committed by now whether the one transaction that moves this progress was
    /// committed.
    pub(super) fn outcome(&self, committed: &BTreeMap<i32, i64>) -> TransactionOutcome {
        let all = |expected| {
            let mut next = self.next.iter();
            next.all(|(partition, next)| {
                committed.get(partition).map_or(Ordering::Less, |at| at.cmp(next)) == expected
            })
        };
        if all(Ordering::Equal) {
            TransactionOutcome::Committed
        } else if all(Ordering::Less) {
            TransactionOutcome::Aborted
        } else {
            TransactionOutcome::Unclear
        }
    }
}

/// How a transaction ended that moved progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransactionOutcome {
    Committed,
    Aborted,
    /// Another member took a partition over and moved it, or it is not the log that the group read before.
    Unclear,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(committed: &[(i32, i64)]) -> TransactionOutcome {
        let progress = Progress { topic: "t".to_owned(), next: vec![(0, 10), (2, 30)], metadata: None };
        progress.outcome(&committed.iter().copied().collect())
    }

    #[test]
    fn a_transaction_whose_offsets_are_committed_was_committed() {
        assert_eq!(outcome(&[(0, 10), (1, 5), (2, 30)]), TransactionOutcome::Committed);
    }

    #[test]
    fn a_transaction_of_whose_offsets_none_is_reached_was_aborted() {
        assert_eq!(outcome(&[(0, 9), (2, 29)]), TransactionOutcome::Aborted);
        assert_eq!(outcome(&[]), TransactionOutcome::Aborted);
    }

    #[test]
    fn other_offsets_say_nothing() {
        assert_eq!(outcome(&[(0, 10), (2, 29)]), TransactionOutcome::Unclear);
        assert_eq!(outcome(&[(2, 30)]), TransactionOutcome::Unclear);
        assert_eq!(outcome(&[(0, 10), (2, 31)]), TransactionOutcome::Unclear);
    }
}
