//! Identifies a log by the last record that was consumed from it, and determines where reading a partition begins.
//!
//! An offset alone does not identify a record. A topic that was recreated, or that lost its end in an unclean election,
//! has different records at the same offsets. The metadata of each committed offset therefore contains the fingerprint
//! of the last record before it, and reading begins with that record.

use super::record::Record;

/// The prefix of the metadata that the platform commits.
const METADATA: &str = "last-consumed-v1";
/// The time in milliseconds by which a record may seem older than the one before it. The clocks of two brokers differ.
const CLOCK_DIFFERENCE: i64 = 3_600_000;

/// The offset and the fingerprint of a consumed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Consumed {
    pub(super) offset: i64,
    /// The lower 32 bits of the timestamp, followed by the CRC-32C of key and value.
    pub(super) fingerprint: u64,
}

impl Consumed {
    pub(super) fn of(record: &Record) -> Self {
        let mut crc = 0;
        for bytes in [record.key(), record.value()] {
            // The length separates the key from the value, and an empty field from a missing one.
            let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
            crc = crc32c::crc32c_append(crc, &length.to_be_bytes());
            crc = crc32c::crc32c_append(crc, bytes.unwrap_or_default());
        }
        let timestamp = record.timestamp.unwrap_or_default().cast_unsigned() << 32;
        Self { offset: record.offset, fingerprint: timestamp | u64::from(crc) }
    }

    /// Returns the time of the record in milliseconds since the Unix epoch, from the time of a record after it. Of a
    /// record that is 49 days older or more, this is a later time.
    pub(super) fn written(self, next: i64) -> i64 {
        let latest = next.saturating_add(CLOCK_DIFFERENCE);
        let age = latest.cast_unsigned().wrapping_sub(self.fingerprint >> 32) & u64::from(u32::MAX);
        latest.saturating_sub(age.cast_signed())
    }

    /// Returns the metadata that is committed with the next offset.
    pub(super) fn as_metadata(self) -> String {
        format!("{METADATA} {} {:016x}", self.offset, self.fingerprint)
    }

    /// Parses metadata. Returns `None` for that of other programs and of older releases.
    pub(super) fn from_metadata(text: &str) -> Option<Self> {
        let (offset, fingerprint) = text.strip_prefix(METADATA)?.trim_start().split_once(' ')?;
        Some(Self { offset: offset.parse().ok()?, fingerprint: u64::from_str_radix(fingerprint, 16).ok()? })
    }
}

/// The committed offset of a group in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) next: i64,
    /// `None` when it was committed without metadata of the platform.
    pub(super) last: Option<Consumed>,
}

/// The position at which reading a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) partition: i32,
    /// The offset that the group has committed.
    pub(super) committed: Option<i64>,
    pub(super) offset: i64,
    /// The record that must come first if the log is still the same one.
    pub(super) expected: Option<Consumed>,
    pub(super) found: Found,
}

/// The relation of a committed offset to the bounds of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The committed offset is the next one to read.
    Within,
    /// The log ends before the committed offset: it is another log, or has lost its end.
    WentBack { end: i64 },
    /// The log begins after the committed offset: this number of offsets was deleted before they were read.
    Expired { offsets: i64 },
}

impl Start {
    /// Determines the position from the committed offset, the first offset of the log and its end.
    pub(super) fn decide(partition: i32, committed: Option<Committed>, (first, end): (i64, i64)) -> Self {
        let next = committed.map(|committed| committed.next);
        let start = |offset, expected, found| Self { partition, committed: next, offset, expected, found };
        let Some(Committed { next, last }) = committed else {
            return start(first, None, Found::Within);
        };
        if next > end {
            return start(first, None, Found::WentBack { end });
        }
        if next < first {
            return start(first, None, Found::Expired { offsets: first - next });
        }
        match last.filter(|last| (first..next).contains(&last.offset)) {
            Some(last) => start(last.offset, Some(last), Found::Within),
            None => start(next, None, Found::Within),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::record::OutgoingRecord;

    fn record(key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) -> Record {
        let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        let written = OutgoingRecord { topic: "t".to_owned(), key, value, headers: Vec::new() };
        Record::of(&written, 0, 7, Some(timestamp))
    }

    #[test]
    fn a_fingerprint_distinguishes_records_by_time_key_and_value() {
        let records = [
            record(Some(b"ab"), Some(b"c"), 1),
            record(Some(b"a"), Some(b"bc"), 1),
            record(None, Some(b"abc"), 1),
            record(Some(b""), Some(b"abc"), 1),
            record(Some(b"ab"), None, 1),
            record(Some(b"ab"), Some(b"c"), 2),
        ];
        let fingerprints: std::collections::HashSet<_> =
            records.iter().map(|record| Consumed::of(record).fingerprint).collect();
        assert_eq!(fingerprints.len(), records.len());
    }

    #[test]
    fn the_time_of_a_record_follows_from_the_time_of_a_later_one() {
        const DAY: i64 = 86_400_000;
        let written = 1_700_000_000_000;
        let consumed = Consumed::of(&record(Some(b"k"), None, written));
        for later in [-1_000, 0, 1, DAY, 49 * DAY] {
            assert_eq!(consumed.written(written + later), written, "{later}");
        }
        let late = consumed.written(written + 60 * DAY);
        assert!((written + 49 * DAY..written + 50 * DAY).contains(&late), "{late}");
    }

    #[test]
    fn metadata_is_read_back_and_that_of_other_programs_is_ignored() {
        let consumed = Consumed::of(&record(Some(b"k"), Some(b"v"), 1_700_000_000_000));
        assert_eq!(Consumed::from_metadata(&consumed.as_metadata()), Some(consumed));
        for foreign in
            ["", "x", METADATA, "last-consumed-v1 1", "last-consumed-v1 x 0", "last-consumed-v1 1 z"]
        {
            assert_eq!(Consumed::from_metadata(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn reading_begins_with_the_last_consumed_record_while_the_log_may_contain_it() {
        let last = Consumed { offset: 8, fingerprint: 1 };
        let marked = Some(Committed { next: 10, last: Some(last) });
        let unmarked = Some(Committed { next: 10, last: None });
        let decide = |committed, bounds| {
            let start = Start::decide(0, committed, bounds);
            (start.offset, start.expected, start.found)
        };
        assert_eq!(decide(None, (3, 20)), (3, None, Found::Within));
        assert_eq!(decide(marked, (0, 20)), (8, Some(last), Found::Within));
        assert_eq!(decide(marked, (0, 10)), (8, Some(last), Found::Within));
        assert_eq!(decide(unmarked, (0, 10)), (10, None, Found::Within));
        // The last consumed record has expired, but no unread one has.
        assert_eq!(decide(marked, (9, 20)), (10, None, Found::Within));
        assert_eq!(decide(marked, (10, 20)), (10, None, Found::Within));
        for committed in [marked, unmarked] {
            assert_eq!(decide(committed, (12, 20)), (12, None, Found::Expired { offsets: 2 }));
            assert_eq!(decide(committed, (0, 9)), (0, None, Found::WentBack { end: 9 }));
        }
    }
}
