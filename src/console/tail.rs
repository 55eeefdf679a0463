//! Counts the records that a group has not finished. The offsets of transaction markers are no records.

use std::collections::{BTreeMap, VecDeque};

use crate::kafka::GroupView;

/// The maximum number of offsets that are retained for each partition.
const MAX_OFFSETS: usize = 50_000;

/// The newest records of a topic.
#[derive(Debug, Default)]
pub struct Tail(BTreeMap<i32, Partition>);

#[derive(Debug)]
struct Partition {
    /// The first offset from which all records are known.
    from: i64,
    /// The offsets of the records in ascending order.
    offsets: VecDeque<i64>,
    /// The offset after the last record.
    end: i64,
}

impl Tail {
    pub fn add(&mut self, partition: i32, offset: i64) {
        let new = || Partition { from: offset, offsets: VecDeque::new(), end: offset };
        let partition = self.0.entry(partition).or_insert_with(new);
        partition.offsets.push_back(offset);
        partition.end = offset + 1;
        if partition.offsets.len() > MAX_OFFSETS
            && let Some(oldest) = partition.offsets.pop_front()
        {
            partition.from = oldest + 1;
        }
    }

    /// Drops the records before the committed offsets.
    pub fn committed(&mut self, committed: &BTreeMap<i32, i64>) {
        for (number, next) in committed {
            let Some(partition) = self.0.get_mut(number) else { continue };
            while let Some(oldest) = partition.offsets.front().copied().filter(|oldest| oldest < next) {
                partition.offsets.pop_front();
                partition.from = oldest + 1;
            }
        }
    }

    /// Returns the number of records that the group has not finished. Of records that are not known, the offsets count.
    pub fn lag(&self, group: &GroupView) -> i64 {
        let behind = group.bounds.iter().map(|(number, (first, _))| {
            let Some(partition) = self.0.get(number) else { return 0 };
            // A group without a committed offset begins with the first record.
            let next = group.committed.get(number).map_or(first, |next| next.max(first));
            let unknown = (partition.from.min(partition.end) - next).max(0);
            let known = partition.offsets.iter().filter(|offset| *offset >= next).count();
            unknown.saturating_add(i64::try_from(known).unwrap_or(i64::MAX))
        });
        behind.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(committed: &[(i32, i64)], bounds: &[(i32, (i64, i64))]) -> GroupView {
        let (committed, bounds) = (committed.iter().copied().collect(), bounds.iter().copied().collect());
        GroupView { committed, bounds, ..GroupView::default() }
    }

    #[test]
    fn the_lag_counts_records_and_no_markers() {
        let mut tail = Tail::default();
        for offset in [0, 2, 4] {
            tail.add(0, offset);
        }
        assert_eq!(tail.lag(&group(&[], &[(0, (0, 6))])), 3);
        assert_eq!(tail.lag(&group(&[(0, 3)], &[(0, (0, 6))])), 1);
        assert_eq!(tail.lag(&group(&[(0, 5)], &[(0, (0, 6)), (1, (0, 9))])), 0);
        tail.committed(&[(0, 3), (1, 7)].into());
        assert_eq!(tail.lag(&group(&[(0, 3)], &[(0, (0, 6))])), 1);
    }

    #[test]
    fn unknown_records_count_by_their_offsets() {
        let mut tail = Tail::default();
        tail.add(0, 100);
        tail.add(0, 105);
        assert_eq!(tail.lag(&group(&[(0, 40)], &[(0, (10, 106))])), 60 + 2);
        assert_eq!(tail.lag(&group(&[], &[(0, (90, 106))])), 10 + 2);
        for offset in 106..106 + 2 * i64::try_from(MAX_OFFSETS).unwrap() {
            tail.add(0, offset);
        }
        assert_eq!(tail.0[&0].offsets.len(), MAX_OFFSETS);
        let count = 2 * i64::try_from(MAX_OFFSETS).unwrap();
        assert_eq!(tail.lag(&group(&[(0, 106)], &[(0, (0, 106 + count))])), count);
    }
}
