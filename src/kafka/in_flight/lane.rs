//! Tracks the records in flight of one partition, and whether its log is still the same one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::kafka::consumed::Consumed;
use crate::kafka::work_output::WorkOutput;

/// The time without any record after which the log may have been replaced. librdkafka pauses for 500 ms
/// (`fetch.error.backoff.ms`) after the error that a broker returns for a deleted topic.
pub(super) const SILENCE: Duration = Duration::from_millis(300);

/// A partition from its assignment to its loss. Work that began in an earlier assignment has an earlier epoch, and its
/// completion is ignored.
#[derive(Debug)]
pub(super) struct Lane<T> {
    pub(super) epoch: u64,
    /// Dropped with the lane, which cancels the work that still runs for it.
    guard: T,
    /// The record that must come next if the log is still the same.
    expected: Option<Consumed>,
    /// Whether the log is known to be the one that the committed offset belongs to.
    pub(super) proven: bool,
    /// The newest record that was admitted.
    pub(super) last: Option<Consumed>,
    /// The record that was doubted last.
    doubted: Option<Consumed>,
    /// When the latest record was read.
    seen: Instant,
    pub(super) entries: VecDeque<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Consumed,
    /// The admission time in seconds since the beginning of the session. A small type, as there may be many entries.
    pub(super) admitted: u32,
    /// The size of the record, or of its output and the retained parts of the record; at most 4 GiB.
    pub(super) bytes: u32,
    /// `None` until the work is done.
    pub(super) output: Option<Option<Box<WorkOutput>>>,
}

/// The verdict on a record that was read.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Admission<'a, T> {
    /// The record is new. Work on it runs under this epoch and guard.
    New(u64, &'a T),
    /// The record was admitted before, or its partition is not assigned.
    Known,
    /// No record came for a while. Reading again from this offset shows whether the log is the same.
    Doubtful(i64),
    /// The log has a different record at the position of a consumed one.
    WentBack,
    /// This expected record does not exist: it was compacted, or the log went back.
    Missing(Consumed),
}

impl<T> Lane<T> {
    pub(super) fn new(epoch: u64, guard: T, expected: Option<Consumed>, now: Instant) -> Self {
        let proven = expected.is_none();
        Self {
            epoch,
            guard,
            expected,
            proven,
            last: None,
            doubted: None,
            seen: now,
            entries: VecDeque::new(),
        }
    }

    /// Admits a record if it is new. `idle` is the last time at which no partition had a record to read.
    pub(super) fn admit(
        &mut self,
        record: Consumed,
        bytes: u32,
        idle: Instant,
        began: Instant,
        now: Instant,
    ) -> Admission<'_, T> {
        let silent = idle > self.seen && now.duration_since(self.seen) >= SILENCE;
        self.seen = now;
        if let Some(expected) = self.expected.take() {
            if record == expected {
                self.proven = true;
                self.last = Some(expected);
                return Admission::Known;
            }
            let is_later = record.offset > expected.offset;
            return if is_later { Admission::Missing(expected) } else { Admission::WentBack };
        }
        if let Some(last) = self.last {
            // A record that comes again after the one before it was recognized belongs to the same log, however long it
            // took: a fetch over a slow line may always take longer than `SILENCE`.
            if silent && self.doubted != Some(record) {
                self.expected = Some(last);
                self.doubted = Some(record);
                return Admission::Doubtful(last.offset);
            }
            if record.offset <= last.offset {
                let is_known = record == last || self.holds(record);
                return if is_known { Admission::Known } else { Admission::WentBack };
            }
        }
        self.last = Some(record);
        let admitted = u32::try_from(now.duration_since(began).as_secs()).unwrap_or(u32::MAX);
        self.entries.push_back(Entry { record, admitted, bytes, output: None });
        Admission::New(self.epoch, &self.guard)
    }

    fn position(&self, offset: i64) -> Option<usize> {
        // Offsets increase, but not always by one: control records and compaction leave gaps.
        self.entries.binary_search_by_key(&offset, |entry| entry.record.offset).ok()
    }

    fn holds(&self, record: Consumed) -> bool {
        let found = self.position(record.offset).and_then(|index| self.entries.get(index));
        found.is_some_and(|entry| entry.record == record)
    }

    pub(super) fn entry(&mut self, offset: i64) -> Option<&mut Entry> {
        let index = self.position(offset)?;
        self.entries.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64) -> Consumed {
        Consumed { offset, fingerprint: 0 }
    }

    #[test]
    fn a_record_that_comes_late_again_is_admitted_once_the_one_before_it_was_recognized() {
        let began = Instant::now();
        let mut lane = Lane::new(0, (), None, began);
        assert_eq!(lane.admit(record(3), 1, began, began, began), Admission::New(0, &()));
        let mut now = began;
        // A line over which each fetch takes longer than the silence.
        let mut fetched = |offset| {
            now += 2 * SILENCE;
            match lane.admit(record(offset), 1, now, began, now) {
                Admission::New(..) => "new",
                Admission::Known => "known",
                Admission::Doubtful(again) if again == offset - 1 => "doubtful",
                _ => "other",
            }
        };
        for offset in 4..7 {
            assert_eq!([offset, offset - 1, offset].map(&mut fetched), ["doubtful", "known", "new"]);
        }
    }

    #[test]
    fn another_record_than_the_doubted_one_is_doubted_as_well() {
        let began = Instant::now();
        let mut lane = Lane::new(0, (), None, began);
        assert_eq!(lane.admit(record(3), 1, began, began, began), Admission::New(0, &()));
        let (first, second, third) = (began + 2 * SILENCE, began + 4 * SILENCE, began + 6 * SILENCE);
        assert_eq!(lane.admit(record(4), 1, first, began, first), Admission::Doubtful(3));
        assert_eq!(lane.admit(record(3), 1, second, began, second), Admission::Known);
        let other = Consumed { offset: 4, fingerprint: 1 };
        assert_eq!(lane.admit(other, 1, third, began, third), Admission::Doubtful(3));
    }
}
