//! One partition: what is in flight from it, and whether its log is still the one that was read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::kafka::consumed::Consumed;
use crate::kafka::work_output::WorkOutput;

/// A log may have been replaced while nothing came from it for this long, and nothing else either: librdkafka pauses for
/// 500 ms (`fetch.error.backoff.ms`) after the error with which a broker answers for a topic that is gone.
pub(super) const SILENCE: Duration = Duration::from_millis(300);

/// A partition from one assignment to its loss. Work begun in an earlier assignment carries an earlier epoch, and
/// its completion is ignored.
#[derive(Debug)]
pub(super) struct Lane<T> {
    pub(super) epoch: u64,
    /// Dropped with the lane; cancels what still runs for it.
    guard: T,
    /// The record that has to come next if the log is still the same.
    expected: Option<Consumed>,
    /// Whether the log is known to be the one that the committed offset belongs to.
    pub(super) proven: bool,
    /// The newest record that came, and when.
    pub(super) last: Option<Consumed>,
    seen: Instant,
    pub(super) entries: VecDeque<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Consumed,
    /// Seconds from the beginning of the session: small, as there may be many entries.
    pub(super) admitted: u32,
    /// Of the record, or of the output and what it has to keep of the record; at most 4 GiB.
    pub(super) bytes: u32,
    /// `None` until the work is done.
    pub(super) output: Option<Option<Box<WorkOutput>>>,
}

/// What to do with a record that came.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Admission<'a, T> {
    /// It is new: work on it, under this epoch and guard.
    New(u64, &'a T),
    /// It was taken in before, or its partition is not assigned.
    Known,
    /// Nothing came for a while, so read again from this offset on: the record there shows whether the log is the same.
    Doubtful(i64),
    /// There is another record where a consumed one was.
    WentBack,
    /// The record that was expected is not there: it was compacted away, or the log went back.
    Missing,
}

impl<T> Lane<T> {
    pub(super) fn new(epoch: u64, guard: T, expected: Option<Consumed>, now: Instant) -> Self {
        let proven = expected.is_none();
        Self { epoch, guard, expected, proven, last: None, seen: now, entries: VecDeque::new() }
    }

    /// Takes a record in, if it is new. `idle`: when there was nothing to read from any partition, the last time.
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
        // Offsets grow, but not by one: control records and compaction leave gaps.
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
