//! What was read and is not yet committed: per partition, in the order of the offsets.

use std::collections::{HashMap, VecDeque};

use super::dead_letter::Position;
use super::output::Output;

/// A partition from one assignment to its loss. Work begun in an earlier assignment carries an earlier epoch, and
/// its completion is ignored.
#[derive(Debug)]
struct Lane<T> {
    epoch: u64,
    /// Dropped with the lane; cancels what still runs for it.
    guard: T,
    /// Everything below was admitted before.
    next: i64,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    /// `None` until the work is done.
    output: Option<Option<Box<Output>>>,
}

/// The records in flight of all assigned partitions of one topic. `T` is dropped when its partition is lost.
#[derive(Debug)]
pub(super) struct InFlight<T> {
    lanes: HashMap<i32, Lane<T>>,
    next_epoch: u64,
    len: usize,
}

impl<T> InFlight<T> {
    pub(super) fn new() -> Self {
        Self { lanes: HashMap::new(), next_epoch: 0, len: 0 }
    }

    /// Records admitted and not yet committed.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn assign(&mut self, partition: i32, guard: T) {
        self.revoke(partition);
        self.next_epoch += 1;
        self.lanes
            .insert(partition, Lane { epoch: self.next_epoch, guard, next: 0, entries: VecDeque::new() });
    }

    /// Drops all that is in flight from a partition; how much that was.
    pub(super) fn revoke(&mut self, partition: i32) -> usize {
        let dropped = self.lanes.remove(&partition).map_or(0, |lane| lane.entries.len());
        self.len -= dropped;
        dropped
    }

    pub(super) fn partitions(&self) -> Vec<i32> {
        self.lanes.keys().copied().collect()
    }

    /// Takes a record in: the epoch to complete it with, and the guard of its partition. `None` when the partition
    /// is not assigned, or the record was taken in before.
    pub(super) fn admit(&mut self, partition: i32, offset: i64) -> Option<(u64, &T)> {
        let lane = self.lanes.get_mut(&partition)?;
        if offset < lane.next {
            return None;
        }
        lane.next = offset + 1;
        lane.entries.push_back(Entry { offset, output: None });
        self.len += 1;
        Some((lane.epoch, &lane.guard))
    }

    /// Notes that the work on a record is done. Ignored when its partition was lost in the meantime.
    pub(super) fn complete(&mut self, partition: i32, epoch: u64, offset: i64, output: Option<Output>) {
        let Some(lane) = self.lanes.get_mut(&partition).filter(|lane| lane.epoch == epoch) else {
            return;
        };
        // Offsets grow, but not by one: control records and compaction leave gaps.
        if let Ok(index) = lane.entries.binary_search_by_key(&offset, |entry| entry.offset)
            && let Some(entry) = lane.entries.get_mut(index)
        {
            entry.output = Some(output.map(Box::new));
        }
    }

    /// The finished heads of all partitions, `limit` records at most in all: what may be committed.
    pub(super) fn finished(&self, limit: usize) -> Finished<'_> {
        let mut finished = Finished::default();
        let mut left = limit;
        for (&partition, lane) in &self.lanes {
            let mut next = None;
            for entry in lane.entries.iter().take(left) {
                let Some(output) = &entry.output else { break };
                finished.outputs.extend(output.as_deref().map(|output| ((partition, entry.offset), output)));
                finished.records += 1;
                next = Some(entry.offset + 1);
                left -= 1;
            }
            finished.next.extend(next.map(|next| (partition, next)));
        }
        finished
    }

    /// Replaces the output of a record by what `instead` makes of it, unless that is nothing; whether it did.
    pub(super) fn replace(
        &mut self,
        (partition, offset): Position,
        instead: impl FnOnce(&Output) -> Option<Output>,
    ) -> bool {
        let Some(lane) = self.lanes.get_mut(&partition) else { return false };
        let Ok(index) = lane.entries.binary_search_by_key(&offset, |entry| entry.offset) else {
            return false;
        };
        let Some(Entry { output: Some(Some(output)), .. }) = lane.entries.get_mut(index) else {
            return false;
        };
        let Some(replacement) = instead(output) else { return false };
        **output = replacement;
        true
    }

    /// Forgets what was committed.
    pub(super) fn advance(&mut self, next: &[(i32, i64)]) {
        for (partition, next) in next {
            let Some(lane) = self.lanes.get_mut(partition) else { continue };
            let committed = lane.entries.partition_point(|entry| entry.offset < *next);
            lane.entries.drain(..committed);
            self.len -= committed;
        }
    }
}

/// What may be committed.
#[derive(Debug, Default)]
pub(super) struct Finished<'a> {
    pub(super) records: usize,
    /// Each with the record that it is the output of.
    pub(super) outputs: Vec<(Position, &'a Output)>,
    /// Partition and next offset.
    pub(super) next: Vec<(i32, i64)>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kafka::record::{OutgoingRecord, Record};

    fn output(offset: i64) -> Option<Output> {
        let value = Some(offset.to_be_bytes().to_vec());
        let event = OutgoingRecord { topic: "t".to_owned(), key: None, value, headers: Vec::new() };
        Output::of(Record::default(), Ok(Some(event)), "group")
    }

    #[test]
    fn a_completion_of_an_earlier_assignment_is_ignored() {
        let mut in_flight = InFlight::new();
        in_flight.assign(0, ());
        let (old_epoch, ()) = in_flight.admit(0, 5).unwrap();
        assert_eq!(in_flight.revoke(0), 1);
        in_flight.assign(0, ());
        in_flight.admit(0, 5).unwrap();
        in_flight.complete(0, old_epoch, 5, output(5));
        assert_eq!(in_flight.finished(usize::MAX).records, 0);
        assert_eq!(in_flight.len(), 1);
    }

    #[test]
    fn a_lost_partition_takes_nothing_from_the_others() {
        let mut in_flight = InFlight::new();
        in_flight.assign(0, ());
        in_flight.assign(1, ());
        let (epoch, ()) = in_flight.admit(0, 0).unwrap();
        in_flight.admit(1, 0).unwrap();
        in_flight.complete(0, epoch, 0, None);
        in_flight.revoke(1);
        assert_eq!(in_flight.finished(usize::MAX).next, [(0, 1)]);
        assert!(in_flight.admit(1, 1).is_none());
    }

    #[test]
    fn a_record_that_is_read_twice_is_admitted_once() {
        let mut in_flight = InFlight::new();
        in_flight.assign(0, ());
        let (epoch, ()) = in_flight.admit(0, 3).unwrap();
        assert!(in_flight.admit(0, 3).is_none());
        in_flight.complete(0, epoch, 3, None);
        in_flight.advance(&[(0, 4)]);
        assert!(in_flight.admit(0, 3).is_none(), "not even after it was committed");
        assert!(in_flight.admit(0, 4).is_some());
    }

    #[test]
    fn a_refused_output_is_replaced_and_the_others_stay() {
        let mut in_flight = InFlight::new();
        in_flight.assign(0, ());
        for offset in [3, 5] {
            let (epoch, ()) = in_flight.admit(0, offset).unwrap();
            in_flight.complete(0, epoch, offset, output(offset));
        }
        assert!(in_flight.replace((0, 5), |_| output(50)));
        assert!(!in_flight.replace((0, 3), |_| None));
        assert!(!in_flight.replace((0, 4), |_| output(4)));
        assert!(!in_flight.replace((1, 3), |_| output(3)));
        let finished = in_flight.finished(usize::MAX);
        let outputs: Vec<_> =
            finished.outputs.iter().map(|(at, output)| (*at, Some((*output).clone()))).collect();
        assert_eq!(outputs, [((0, 3), output(3)), ((0, 5), output(50))]);
    }

    proptest! {
        #[test]
        fn only_the_contiguous_finished_head_is_committed_and_each_output_once(
            gaps in prop::collection::vec(1i64..4, 1..50),
            order in prop::collection::vec(any::<prop::sample::Index>(), 1..200),
            limit in 1usize..10,
        ) {
            let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut in_flight = InFlight::new();
            in_flight.assign(0, ());
            let mut epoch = 0;
            for &offset in &offsets {
                epoch = in_flight.admit(0, offset).unwrap().0;
            }
            let mut done = std::collections::HashSet::new();
            let mut committed: Vec<i64> = Vec::new();
            for index in order {
                let offset = *index.get(&offsets);
                in_flight.complete(0, epoch, offset, output(offset));
                done.insert(offset);
                let finished = in_flight.finished(limit);
                prop_assert!(finished.records <= limit);
                let outputs = finished.outputs.iter();
                let values = outputs.map(|(_, output)| output.record().value.clone().unwrap());
                committed.extend(values.map(|value| i64::from_be_bytes(value.try_into().unwrap())));
                let next = finished.next.clone();
                in_flight.advance(&next);
                prop_assert_eq!(&committed[..], &offsets[..committed.len()]);
                prop_assert!(committed.iter().all(|offset| done.contains(offset)));
                prop_assert_eq!(in_flight.len(), offsets.len() - committed.len());
            }
        }
    }
}
