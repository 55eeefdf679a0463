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
    /// The expected record does not exist: it was compacted, or the log went back.
    Missing,
}

impl<T> Lane<T> {
    pub(super) fn new(epoch: u64, guard: T, expected: Option<Consumed>, now: Instant) -> Self {
        let proven = expected.is_none();
        Self { epoch, guard, expected, proven, last: None, seen: now, entries: VecDeque::new() }
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
            return if record.offset > expected.offset { Admission::Missing } else { Admission::WentBack };
        }
        if let Some(last) = self.last {
            if silent {
                self.expected = Some(last);
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
