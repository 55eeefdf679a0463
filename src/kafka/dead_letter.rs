//! Writes, reads and resolves dead letters.
//!
//! A dead-letter topic is append-only. Resolving a dead letter, by putting its record back or by discarding it, appends
//! a record without a value, its resolution. The resolution is written in the same transaction as the record that is
//! put back, so a dead letter is put back only once, no matter what crashes.

pub(super) mod header;
pub(super) mod reading;

use sha2::{Digest as _, Sha256};

use super::record::{OutgoingRecord, Record};
use header::{
    GROUP, HEADERS, HEADERS_BYTES, HEADERS_COUNT, HEADERS_SHA256, HEADERS_UNREADABLE, KEY_BYTES, KEY_SHA256,
    OFFSET, PARTITION, REASON, REPLAYS, SETTLED, SETTLED_OFFSET, SETTLED_PARTITION, SPRING, SPRING_OFFSET,
    SPRING_PARTITION, SPRING_TOPIC, TIMESTAMP, TOPIC, VALUE_BYTES, VALUE_SHA256,
};

/// The maximum size of a key that is retained when the headers are omitted.
const RETAINED_KEY_BYTES: usize = 1_024;

/// Returns the name of the dead-letter topic of `topic`.
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.dlq")
}

/// The way in which a dead letter was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The record was put back on its topic.
    Replayed,
    /// The record was not put back.
    Discarded,
}

impl Resolution {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

/// The position of a record in its topic: partition and offset.
pub type Position = (i32, i64);

/// A record in a dead-letter topic.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The record in the dead-letter topic.
    record: Record,
}

impl DeadLetter {
    /// Reads a record of a dead-letter topic.
    ///
    /// # Errors
    /// Returns the position of the dead letter that the record resolves when it is a resolution.
    pub fn read(record: Record) -> Result<Self, Position> {
        resolved(&record).map_or(Ok(Self { record }), Err)
    }

    /// Returns `record`, unchanged but for additional headers with the reason and the origin, for its dead-letter
    /// topic.
    pub(super) fn of(record: &Record, group: &str, reason: &str) -> OutgoingRecord {
        let added = [
            (REASON, reason.to_owned()),
            (TOPIC, record.topic.to_string()),
            (PARTITION, record.partition.to_string()),
            (OFFSET, record.offset.to_string()),
            (TIMESTAMP, record.timestamp.map(|at| at.to_string()).unwrap_or_default()),
            (GROUP, group.to_owned()),
        ];
        let mut letter = record.to_outgoing(dead_letter_topic(&record.topic));
        letter.headers.extend(added.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))));
        let for_others = [
            (SPRING_TOPIC, record.topic.as_bytes().to_vec()),
            (SPRING_PARTITION, record.partition.to_be_bytes().to_vec()),
            (SPRING_OFFSET, record.offset.to_be_bytes().to_vec()),
        ];
        letter.headers.extend(for_others.map(|(name, value)| (name.to_owned(), Some(value))));
        if record.unreadable_headers > 0 {
            let count = record.unreadable_headers.to_string();
            letter.headers.push((HEADERS_UNREADABLE.to_owned(), Some(count.into_bytes())));
        }
        letter
    }

    /// Omits the value of a dead letter that the brokers refuse, and adds its size and hash as headers.
    pub(super) fn without_value(mut letter: OutgoingRecord) -> OutgoingRecord {
        if let Some(value) = letter.value.take() {
            letter.headers.extend(described(&value, VALUE_BYTES, VALUE_SHA256));
        }
        letter
    }

    /// Omits the value, the record's own headers and a large key, which bounds the size of the dead letter.
    pub(super) fn without_payload(letter: OutgoingRecord) -> OutgoingRecord {
        let mut letter = Self::without_value(letter);
        let mut own = letter.headers;
        let mut added = own.split_off(first_added(&own));
        if !own.is_empty() {
            let bytes: Vec<u8> = own
                .iter()
                .flat_map(|(name, value)| [name.as_bytes(), value.as_deref().unwrap_or_default()])
                .flatten()
                .copied()
                .collect();
            added.push((HEADERS_COUNT.to_owned(), Some(own.len().to_string().into_bytes())));
            added.extend(described(&bytes, HEADERS_BYTES, HEADERS_SHA256));
        }
        if let Some(key) = letter.key.take_if(|key| key.len() > RETAINED_KEY_BYTES) {
            added.extend(described(&key, KEY_BYTES, KEY_SHA256));
        }
        letter.headers = added;
        letter
    }

    /// Describes the parts that were omitted because the brokers refused them. Such a dead letter cannot be put back.
    /// Returns `None` when the record is complete.
    pub fn left_out(&self) -> Option<String> {
        let added = self.record.headers().skip(self.first_added()?);
        let added = |name| {
            let (_, value) = added.clone().find(|(known, _)| *known == name)?;
            value.map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let value = added(VALUE_BYTES).map(|bytes| {
            let hash = added(VALUE_SHA256).unwrap_or_default();
            format!("the value, of {bytes} bytes with the SHA-256 {hash}")
        });
        let headers = added(HEADERS_COUNT).zip(added(HEADERS_BYTES));
        let headers = headers.map(|(count, bytes)| format!("{count} headers, of {bytes} bytes"));
        let key = added(KEY_BYTES).map(|bytes| format!("the key, of {bytes} bytes"));
        let parts: Vec<_> = [value, headers, key].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Returns the record in the dead-letter topic.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Returns the position in the dead-letter topic.
    pub fn position(&self) -> Position {
        (self.record.partition, self.record.offset)
    }

    pub fn reason(&self) -> String {
        self.text(REASON).unwrap_or_else(|| "unknown".to_owned())
    }

    /// Returns the group whose member could not process the record.
    pub fn group(&self) -> Option<String> {
        self.text(GROUP)
    }

    /// Returns the position of the record in its own topic.
    pub fn origin(&self) -> Option<Position> {
        Some((self.text(PARTITION)?.parse().ok()?, self.text(OFFSET)?.parse().ok()?))
    }

    /// Returns when the record was written to its own topic, in milliseconds since the Unix epoch.
    pub fn written(&self) -> Option<i64> {
        self.text(TIMESTAMP)?.parse().ok()
    }

    /// Returns how often the record was put back on its topic and came back as a dead letter. A producer may write any
    /// number, so the largest limit exceeds it.
    pub fn replays(&self) -> u32 {
        self.text(REPLAYS).and_then(|count| count.parse().ok()).unwrap_or(0).min(u32::MAX - 1)
    }

    /// Returns the headers that the record had in its own topic.
    pub fn own_headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let first_added = self.first_added().unwrap_or(usize::MAX);
        // A record that was replayed has the number of its replays among its own.
        let is_own = move |index: usize, name: &str| {
            name != REPLAYS && (index < first_added || !(name.starts_with(HEADERS) || SPRING.contains(&name)))
        };
        let headers = self.record.headers().enumerate();
        headers.filter(move |(index, (name, _))| is_own(*index, name)).map(|(_, header)| header)
    }

    /// Returns the index of the first header that was added to the record. The record may have had headers with the
    /// same names.
    fn first_added(&self) -> Option<usize> {
        Some(self.record.headers().enumerate().filter(|(_, (name, _))| *name == REASON).last()?.0)
    }

    /// Returns the records that resolve the dead letter. They must be written in one transaction.
    pub fn resolve(&self, topic: &str, how: Resolution) -> Vec<OutgoingRecord> {
        let (partition, offset) = self.position();
        let added = [
            (SETTLED, how.as_str().to_owned()),
            (SETTLED_PARTITION, partition.to_string()),
            (SETTLED_OFFSET, offset.to_string()),
        ];
        let resolution = OutgoingRecord {
            topic: dead_letter_topic(topic),
            key: None,
            value: None,
            headers: added.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))).to_vec(),
        };
        match how {
            Resolution::Discarded => vec![resolution],
            Resolution::Replayed => {
                let own =
                    self.own_headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)));
                let replays = self.replays().saturating_add(1).to_string().into_bytes();
                let headers = own.chain([(REPLAYS.to_owned(), Some(replays))]).collect();
                vec![OutgoingRecord { headers, ..self.record.to_outgoing(topic.to_owned()) }, resolution]
            }
        }
    }

    fn text(&self, header: &str) -> Option<String> {
        text(&self.record, header)
    }
}

/// Returns the index of the first header that was added to the record. The record may have had headers with the same
/// names.
fn first_added(headers: &[(String, Option<Vec<u8>>)]) -> usize {
    headers.iter().rposition(|(name, _)| name == REASON).unwrap_or(headers.len())
}

/// Returns headers with the size and the hash of an omitted part.
fn described(bytes: &[u8], size: &str, hash: &str) -> [(String, Option<Vec<u8>>); 2] {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    [(size.to_owned(), Some(bytes.len().to_string().into_bytes())), (hash.to_owned(), Some(hex.into_bytes()))]
}

fn text(record: &Record, header: &str) -> Option<String> {
    record.header(header).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Returns the position of the dead letter that `record` resolves, or `None` when it is not a resolution.
fn resolved(record: &Record) -> Option<Position> {
    // The record of a dead letter may itself have such headers.
    if record.value().is_some() || record.header(REASON).is_some() {
        return None;
    }
    text(record, SETTLED)?;
    Some((text(record, SETTLED_PARTITION)?.parse().ok()?, text(record, SETTLED_OFFSET)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::record::RecordHeaders;

    fn outgoing(key: Option<&[u8]>, value: Option<&[u8]>, headers: RecordHeaders) -> OutgoingRecord {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        OutgoingRecord { topic: "t".to_owned(), key: owned(key), value: owned(value), headers }
    }

    fn record() -> Record {
        let headers = vec![("own".to_owned(), Some(b"kept".to_vec()))];
        Record::of(&outgoing(Some(b"key"), Some(&[0, 255]), headers), 2, 41, Some(1_000))
    }

    /// The dead letter that is read after `written` was written.
    fn read(written: &OutgoingRecord) -> DeadLetter {
        DeadLetter { record: Record::of(written, 0, 7, Some(2_000)) }
    }

    fn letter() -> DeadLetter {
        let written = DeadLetter::of(&record(), "group", "not framed");
        assert_eq!(written.topic, "t.dlq");
        read(&written)
    }

    #[test]
    fn a_dead_letter_has_the_bytes_of_the_record_and_states_the_reason_and_the_origin() {
        let letter = letter();
        assert_eq!(letter.record().value(), Some(&[0, 255][..]));
        assert_eq!(letter.reason(), "not framed");
        assert_eq!(letter.origin(), Some((2, 41)));
        assert_eq!(letter.written(), Some(1_000));
        assert_eq!(letter.group().as_deref(), Some("group"));
        let own: Vec<_> = letter.own_headers().collect();
        assert_eq!(own, [("own", Some(&b"kept"[..]))]);
    }

    #[test]
    fn a_replay_puts_back_the_original_record_and_resolves_the_dead_letter() {
        let records = letter().resolve("t", Resolution::Replayed);
        let [put_back, resolution] = &records[..] else { panic!("{records:?}") };
        let mut original = record().to_outgoing("t".to_owned());
        original.headers.push((REPLAYS.to_owned(), Some(b"1".to_vec())));
        assert_eq!(put_back, &original);
        assert_eq!(resolution.topic, "t.dlq");
        assert_eq!(resolved(&read(resolution).record), Some((0, 7)));
    }

    #[test]
    fn a_replay_keeps_headers_of_the_record_that_are_named_like_those_of_dead_letters() {
        let own: Vec<_> =
            ["dlq.note", REASON, PARTITION].map(|name| (name.to_owned(), Some(b"own".to_vec()))).into();
        let record = Record::of(&outgoing(None, Some(b"x"), own.clone()), 2, 41, None);
        let letter = read(&DeadLetter::of(&record, "group", "reason"));
        assert_eq!((letter.reason().as_str(), letter.origin()), ("reason", Some((2, 41))));
        let put_back = letter.resolve("t", Resolution::Replayed).remove(0);
        assert_eq!(put_back.headers, [own, vec![(REPLAYS.to_owned(), Some(b"1".to_vec()))]].concat());
    }

    #[test]
    fn a_dead_letter_without_its_value_states_its_size_and_is_incomplete() {
        let written =
            DeadLetter::of(&Record::of(&outgoing(None, Some(b"abc"), Vec::new()), 2, 41, None), "g", "r");
        assert_eq!(read(&written).left_out(), None);
        let written = DeadLetter::without_value(written);
        assert_eq!(written.value, None);
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let letter = read(&written);
        assert_eq!(letter.left_out(), Some(format!("the value, of 3 bytes with the SHA-256 {hash}")));
        assert_eq!(letter.reason(), "r");
    }

    #[test]
    fn a_dead_letter_without_its_payload_keeps_the_reason_and_the_origin_of_its_own_failure() {
        let forged = |name: &str| (name.to_owned(), Some(b"1".to_vec()));
        let headers = vec![forged(REASON), forged(VALUE_BYTES), forged(HEADERS_COUNT), forged(HEADERS_BYTES)];
        let small = Record::of(&outgoing(Some(b"key"), Some(&[0, 255]), headers.clone()), 2, 41, None);
        assert_eq!(read(&DeadLetter::of(&small, "group", "refused")).left_out(), None);
        let record = Record::of(&outgoing(Some(&[0; 5_000]), Some(&[0, 255]), headers), 2, 41, None);
        let letter = read(&DeadLetter::without_payload(DeadLetter::of(&record, "group", "refused")));
        assert_eq!(letter.reason(), "refused");
        assert_eq!(letter.group().as_deref(), Some("group"));
        assert_eq!(letter.record.headers().filter(|(name, _)| *name == REASON).count(), 1);
        let left_out = letter.left_out().unwrap();
        for part in ["the value, of 2 bytes", "4 headers, of 63 bytes", "the key, of 5000 bytes"] {
            assert!(left_out.contains(part), "{left_out}");
        }
    }

    #[test]
    fn a_dead_letter_that_failed_again_after_its_replay_states_the_latest_reason() {
        let again = DeadLetter::of(&letter().record, "group", "still not framed");
        assert_eq!(read(&again).reason(), "still not framed");
    }

    #[test]
    fn a_dead_letter_counts_how_often_its_record_was_put_back() {
        let mut letter = letter();
        for replays in 0..3 {
            assert_eq!(letter.replays(), replays);
            let put_back = letter.resolve("t", Resolution::Replayed).remove(0);
            assert_eq!(put_back.headers.len(), 2, "own and the count: {:?}", put_back.headers);
            letter = read(&DeadLetter::of(&Record::of(&put_back, 2, 42, None), "group", "not framed"));
        }
        let forged = outgoing(None, None, vec![(REPLAYS.to_owned(), Some(b"-1".to_vec()))]);
        assert_eq!(read(&forged).replays(), 0);
    }

    #[test]
    fn the_origin_is_also_in_the_headers_of_spring_kafka_which_a_replay_removes_unless_the_record_had_them() {
        let own = (SPRING_TOPIC.to_owned(), Some(b"of another application".to_vec()));
        let record = Record::of(&outgoing(None, Some(b"x"), vec![own.clone()]), 2, 41, None);
        let letter = read(&DeadLetter::of(&record, "group", "reason"));
        assert_eq!(letter.record().header(SPRING_TOPIC), Some(&b"t"[..]));
        assert_eq!(letter.record().header(SPRING_PARTITION), Some(&[0, 0, 0, 2][..]));
        assert_eq!(letter.record().header(SPRING_OFFSET), Some(&[0, 0, 0, 0, 0, 0, 0, 41][..]));
        let put_back = letter.resolve("t", Resolution::Replayed).remove(0);
        assert_eq!(put_back.headers, [own, (REPLAYS.to_owned(), Some(b"1".to_vec()))]);
    }
}
