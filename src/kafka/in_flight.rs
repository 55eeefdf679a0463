//! Tracks the records that were read and are not yet committed, per partition and in the order of their offsets.

mod lane;

use std::collections::HashMap;
use std::time::{Duration, Instant};

pub(super) use self::lane::Admission;
use self::lane::{Entry, Lane};
use super::consumed::Consumed;
use super::dead_letter::Position;
use super::progress::Mark;
use super::work_output::WorkOutput;

/// The records in flight of all assigned partitions of one topic. `T` is dropped when its partition is lost.
#[derive(Debug)]
pub(super) struct InFlight<T> {
    lanes: HashMap<i32, Lane<T>>,
    next_epoch: u64,
    len: usize,
    bytes: usize,
    began: Instant,
    /// The last time at which no partition had a record to read.
    idle: Instant,
}

impl<T> InFlight<T> {
    pub(super) fn new(began: Instant) -> Self {
        Self { lanes: HashMap::new(), next_epoch: 0, len: 0, bytes: 0, began, idle: began }
    }

    /// Returns the number of records that were admitted and are not yet committed.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the size in bytes of the records in flight and of their outputs.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns when the oldest record in flight was admitted, to the second.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let oldest = self.lanes.values().filter_map(|lane| Some(lane.entries.front()?.admitted)).min()?;
        Some(self.began + Duration::from_secs(oldest.into()))
    }

    /// Adds a partition. `expected` is the record that must come first, if any.
    pub(super) fn assign(&mut self, partition: i32, guard: T, expected: Option<Consumed>, now: Instant) {
        self.revoke(partition);
        self.next_epoch += 1;
        let lane = Lane::new(self.next_epoch, guard, expected, now);
        self.lanes.insert(partition, lane);
    }

    /// Drops the records in flight from a partition and returns their number.
    pub(super) fn revoke(&mut self, partition: i32) -> usize {
        let Some(lane) = self.lanes.remove(&partition) else { return 0 };
        let dropped = lane.entries.len();
        self.len -= dropped;
        self.bytes -= lane.entries.iter().map(|entry| entry.bytes as usize).sum::<usize>();
        dropped
    }

    pub(super) fn partitions(&self) -> Vec<i32> {
        self.lanes.keys().copied().collect()
    }

    /// Returns the partitions without records in flight.
    pub(super) fn idle_partitions(&self) -> Vec<i32> {
        let idle = self.lanes.iter().filter(|(_, lane)| lane.entries.is_empty());
        idle.map(|(partition, _)| *partition).collect()
    }

    /// Returns the partitions from which records came, with the offset of the newest record.
    pub(super) fn last_offsets(&self) -> impl Iterator<Item = (i32, i64)> {
        self.lanes.iter().filter_map(|(partition, lane)| Some((*partition, lane.last?.offset)))
    }

    /// Returns whether the log of a partition is known to be the one that its committed offset belongs to.
    pub(super) fn is_proven(&self, partition: i32) -> bool {
        self.lanes.get(&partition).is_some_and(|lane| lane.proven)
    }

    /// Records that no partition has a record to read.
    pub(super) fn idle(&mut self, now: Instant) {
        self.idle = now;
    }

    /// Admits a record of `bytes` if it is new.
    pub(super) fn admit(
        &mut self,
        partition: i32,
        record: Consumed,
        bytes: usize,
        now: Instant,
    ) -> Admission<'_, T> {
        let Some(lane) = self.lanes.get_mut(&partition) else { return Admission::Known };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let admission = lane.admit(record, bytes, self.idle, self.began, now);
        if matches!(admission, Admission::New(..)) {
            self.len += 1;
            self.bytes += bytes as usize;
        }
        admission
    }

    /// Stores the output of a record whose work is done. Ignores it when its partition was lost in the meantime.
    pub(super) fn complete(&mut self, partition: i32, epoch: u64, offset: i64, output: Option<WorkOutput>) {
        let Some(lane) = self.lanes.get_mut(&partition).filter(|lane| lane.epoch == epoch) else {
            return;
        };
        let Some(entry) = lane.entry(offset) else { return };
        let bytes = u32::try_from(output.as_ref().map_or(0, WorkOutput::bytes)).unwrap_or(u32::MAX);
        self.bytes = self.bytes - entry.bytes as usize + bytes as usize;
        entry.bytes = bytes;
        entry.output = Some(output.map(Box::new));
    }

    /// Returns what may be committed: the finished heads of all partitions up to `limit`, but at least one record.
    pub(super) fn finished(&self, limit: Limit) -> Finished<'_> {
        let mut finished = Finished::default();
        let mut bytes = 0;
        for (&partition, lane) in &self.lanes {
            let mut last = None;
            for entry in &lane.entries {
                let Some(output) = &entry.output else { break };
                bytes += entry.bytes as usize;
                if finished.records > 0 && (finished.records >= limit.records || bytes > limit.bytes) {
                    finished.is_limited = true;
                    break;
                }
                finished
                    .outputs
                    .extend(output.as_deref().map(|output| ((partition, entry.record.offset), output)));
                finished.records += 1;
                last = Some(entry.record);
            }
            finished.next.extend(last.map(|last| {
                (partition, Mark { offset: last.offset + 1, metadata: Some(last.as_metadata()) })
            }));
        }
        finished
    }

    /// Replaces the output of a record by the one that `instead` returns for it, if any. Returns whether it did.
    pub(super) fn replace(
        &mut self,
        (partition, offset): Position,
        instead: impl FnOnce(&WorkOutput) -> Option<WorkOutput>,
    ) -> bool {
        let entry = self.lanes.get_mut(&partition).and_then(|lane| lane.entry(offset));
        let Some(Entry { output: Some(Some(output)), .. }) = entry else { return false };
        let Some(replacement) = instead(output) else { return false };
        **output = replacement;
        true
    }

    /// Removes the records that were committed.
    pub(super) fn advance(&mut self, next: &[(i32, Mark)]) {
        for (partition, next) in next {
            let Some(lane) = self.lanes.get_mut(partition) else { continue };
            let committed = lane.entries.partition_point(|entry| entry.record.offset < next.offset);
            for entry in lane.entries.drain(..committed) {
                self.len -= 1;
                self.bytes -= entry.bytes as usize;
            }
        }
    }
}

/// The limits of one transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) records: usize,
    /// The size of the records and their outputs.
    pub(super) bytes: usize,
}

/// The finished records that may be committed.
#[derive(Debug, Default)]
pub(super) struct Finished<'a> {
    pub(super) records: usize,
    /// Whether more records are finished than the limit allows.
    pub(super) is_limited: bool,
    /// The outputs with the positions of their records.
    pub(super) outputs: Vec<(Position, &'a WorkOutput)>,
    /// The partitions with their next offsets and the record before each.
    pub(super) next: Vec<(i32, Mark)>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::lane::SILENCE;
    use super::*;
    use crate::kafka::record::{OutgoingRecord, Record};

    const BYTES: usize = 10;
    const ALL: Limit = Limit { records: usize::MAX, bytes: usize::MAX };
    fn output(offset: i64) -> Option<WorkOutput> {
        let value = Some(offset.to_be_bytes().to_vec());
        let event = OutgoingRecord { topic: "t".to_owned(), key: None, value, headers: Vec::new() };
        WorkOutput::of(Record::of(&event, 0, offset, None), Ok(Some(event)), "group")
    }

    fn record(offset: i64) -> Consumed {
        Consumed { offset, fingerprint: offset.cast_unsigned() * 31 }
    }

    /// Returns a tracker with partition 0 assigned, and the time of the assignment.
    fn assigned(expected: Option<Consumed>) -> (InFlight<()>, Instant) {
        let now = Instant::now();
        let mut in_flight = InFlight::new(now);
        in_flight.assign(0, (), expected, now);
        (in_flight, now)
    }

    fn take(in_flight: &mut InFlight<()>, partition: i32, offset: i64, now: Instant) -> u64 {
        match in_flight.admit(partition, record(offset), BYTES, now) {
            Admission::New(epoch, ()) => epoch,
            other => panic!("{offset} is {other:?}"),
        }
    }

    fn offsets(finished: &Finished<'_>) -> Vec<(i32, i64)> {
        finished.next.iter().map(|(partition, next)| (*partition, next.offset)).collect()
    }

    fn commit(in_flight: &mut InFlight<()>) {
        let next = in_flight.finished(ALL).next;
        in_flight.advance(&next);
    }

    #[test]
    fn a_completion_of_an_earlier_assignment_is_ignored() {
        let (mut in_flight, now) = assigned(None);
        let old_epoch = take(&mut in_flight, 0, 5, now);
        assert_eq!(in_flight.revoke(0), 1);
        in_flight.assign(0, (), None, now);
        take(&mut in_flight, 0, 5, now);
        in_flight.complete(0, old_epoch, 5, output(5));
        assert_eq!(in_flight.finished(ALL).records, 0);
        assert_eq!(in_flight.len(), 1);
    }

    #[test]
    fn a_lost_partition_does_not_affect_the_others() {
        let (mut in_flight, now) = assigned(None);
        in_flight.assign(1, (), None, now);
        let epoch = take(&mut in_flight, 0, 0, now);
        take(&mut in_flight, 1, 0, now);
        in_flight.complete(0, epoch, 0, None);
        in_flight.revoke(1);
        assert_eq!(offsets(&in_flight.finished(ALL)), [(0, 1)]);
        assert_eq!(in_flight.admit(1, record(1), BYTES, now), Admission::Known);
    }

    #[test]
    fn a_record_that_is_read_twice_is_admitted_once() {
        let (mut in_flight, now) = assigned(None);
        let epoch = take(&mut in_flight, 0, 3, now);
        take(&mut in_flight, 0, 5, now);
        assert_eq!(in_flight.admit(0, record(3), BYTES, now), Admission::Known);
        assert_eq!(in_flight.admit(0, record(5), BYTES, now), Admission::Known);
        in_flight.complete(0, epoch, 3, None);
        in_flight.complete(0, epoch, 5, None);
        commit(&mut in_flight);
        assert_eq!(
            in_flight.admit(0, record(5), BYTES, now),
            Admission::Known,
            "also after it was committed"
        );
        take(&mut in_flight, 0, 6, now);
    }

    #[test]
    fn other_content_or_an_offset_below_the_committed_one_shows_that_the_log_went_back() {
        let (mut in_flight, now) = assigned(None);
        let epoch = take(&mut in_flight, 0, 3, now);
        take(&mut in_flight, 0, 5, now);
        for wrong in
            [Consumed { offset: 3, fingerprint: 0 }, Consumed { offset: 5, fingerprint: 0 }, record(4)]
        {
            assert_eq!(in_flight.admit(0, wrong, BYTES, now), Admission::WentBack, "{wrong:?}");
        }
        in_flight.complete(0, epoch, 3, None);
        commit(&mut in_flight);
        assert_eq!(in_flight.admit(0, record(3), BYTES, now), Admission::WentBack);
    }

    #[test]
    fn the_expected_record_proves_the_log_and_any_other_does_not() {
        let (mut in_flight, now) = assigned(Some(record(7)));
        assert!(!in_flight.is_proven(0));
        assert_eq!(in_flight.admit(0, record(7), BYTES, now), Admission::Known);
        assert!(in_flight.is_proven(0));
        take(&mut in_flight, 0, 8, now);
        let (mut other, now) = assigned(Some(record(7)));
        assert_eq!(other.admit(0, Consumed { offset: 7, fingerprint: 0 }, BYTES, now), Admission::WentBack);
        let (mut compacted, now) = assigned(Some(record(7)));
        assert_eq!(compacted.admit(0, record(9), BYTES, now), Admission::Missing(record(7)));
        take(&mut compacted, 0, 9, now);
    }

    #[test]
    fn after_a_silence_the_last_record_must_be_read_again_first() {
        let (mut in_flight, now) = assigned(None);
        take(&mut in_flight, 0, 3, now);
        let later = now + SILENCE;
        in_flight.idle(later);
        assert_eq!(in_flight.admit(0, record(4), BYTES, later), Admission::Doubtful(3));
        assert_eq!(in_flight.admit(0, record(3), BYTES, later), Admission::Known);
        take(&mut in_flight, 0, 4, later);
        let later = later + SILENCE;
        in_flight.idle(later);
        assert_eq!(in_flight.admit(0, record(9), BYTES, later), Admission::Doubtful(4));
        assert_eq!(
            in_flight.admit(0, Consumed { offset: 4, fingerprint: 1 }, BYTES, later),
            Admission::WentBack
        );
    }

    #[test]
    fn a_partition_is_not_silent_while_others_are_read() {
        let (mut in_flight, now) = assigned(None);
        take(&mut in_flight, 0, 3, now);
        take(&mut in_flight, 0, 4, now + 2 * SILENCE);
    }

    #[test]
    fn the_oldest_record_is_the_first_one_that_is_not_committed() {
        let (mut in_flight, now) = assigned(None);
        assert_eq!(in_flight.oldest(), None);
        let epoch = take(&mut in_flight, 0, 1, now);
        in_flight.assign(1, (), None, now);
        take(&mut in_flight, 1, 1, now + Duration::from_secs(9));
        assert_eq!(in_flight.oldest(), Some(now));
        in_flight.complete(0, epoch, 1, None);
        commit(&mut in_flight);
        assert_eq!(in_flight.oldest(), Some(now + Duration::from_secs(9)));
    }

    #[test]
    fn a_refused_output_is_replaced_and_the_others_are_unchanged() {
        let (mut in_flight, now) = assigned(None);
        for offset in [3, 5] {
            let epoch = take(&mut in_flight, 0, offset, now);
            in_flight.complete(0, epoch, offset, output(offset));
        }
        assert!(in_flight.replace((0, 5), |_| output(50)));
        assert!(!in_flight.replace((0, 3), |_| None));
        assert!(!in_flight.replace((0, 4), |_| output(4)));
        assert!(!in_flight.replace((1, 3), |_| output(3)));
        let finished = in_flight.finished(ALL);
        let outputs: Vec<_> =
            finished.outputs.iter().map(|(at, output)| (*at, Some((*output).clone()))).collect();
        assert_eq!(outputs, [((0, 3), output(3)), ((0, 5), output(50))]);
    }

    proptest! {
        #[test]
        fn only_the_contiguous_finished_head_is_committed_and_each_output_once(
            gaps in prop::collection::vec(1i64..4, 1..50),
            order in prop::collection::vec(any::<prop::sample::Index>(), 1..200),
            records in 1usize..10,
            bytes in 0usize..2_000,
        ) {
            let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let (mut in_flight, now) = assigned(None);
            let mut epoch = 0;
            for &offset in &offsets {
                epoch = take(&mut in_flight, 0, offset, now);
            }
            let mut done = std::collections::HashSet::new();
            let mut committed: Vec<i64> = Vec::new();
            for index in order {
                let offset = *index.get(&offsets);
                in_flight.complete(0, epoch, offset, output(offset));
                done.insert(offset);
                let finished = in_flight.finished(Limit { records, bytes });
                prop_assert!(finished.records <= records);
                let size: usize = finished.outputs.iter().map(|(_, output)| output.bytes()).sum();
                prop_assert!(finished.records <= 1 || size <= bytes);
                let outputs = finished.outputs.iter();
                let values = outputs.map(|(_, output)| output.record().value.clone().unwrap());
                committed.extend(values.map(|value| i64::from_be_bytes(value.try_into().unwrap())));
                let next = finished.next.clone();
                in_flight.advance(&next);
                prop_assert_eq!(&committed[..], &offsets[..committed.len()]);
                prop_assert!(committed.iter().all(|offset| done.contains(offset)));
                prop_assert_eq!(in_flight.len(), offsets.len() - committed.len());
                prop_assert_eq!(in_flight.bytes() == 0, in_flight.len() == 0);
            }
            in_flight.revoke(0);
            prop_assert_eq!((in_flight.len(), in_flight.bytes()), (0, 0));
        }
    }
}
