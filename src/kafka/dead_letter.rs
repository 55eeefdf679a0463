//! Dead letters: how they are written, read again, and settled.
//!
//! A dead-letter topic only grows. That a letter was put back on its topic, or given up, is told by a further record
//! without a value, its settlement, which goes out in the same transaction as the record that was put back. So a letter
//! is put back once, whatever dies in between.

use std::collections::HashSet;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use super::args::KafkaArgs;
use super::reader::TopicReader;
use super::record::{OutgoingRecord, Record};

/// Before all headers that tell of a dead letter.
const HEADERS: &str = "dlq.";
const REASON: &str = "dlq.reason";
const TOPIC: &str = "dlq.topic";
const PARTITION: &str = "dlq.partition";
const OFFSET: &str = "dlq.offset";
const TIMESTAMP: &str = "dlq.timestamp";
const GROUP: &str = "dlq.group";
const VALUE_BYTES: &str = "dlq.value.bytes";
const VALUE_SHA256: &str = "dlq.value.sha256";
const KEY_BYTES: &str = "dlq.key.bytes";
const KEY_SHA256: &str = "dlq.key.sha256";
const HEADERS_COUNT: &str = "dlq.headers.count";
const HEADERS_BYTES: &str = "dlq.headers.bytes";
const HEADERS_SHA256: &str = "dlq.headers.sha256";
/// Headers of the record whose names are not UTF-8, which the letter does not have.
const HEADERS_UNREADABLE: &str = "dlq.headers.unreadable";
const SETTLED: &str = "dlq.settled";
const SETTLED_PARTITION: &str = "dlq.settled.partition";
const SETTLED_OFFSET: &str = "dlq.settled.offset";

/// A key of more bytes is left out with the headers.
const KEPT_KEY_BYTES: usize = 1_024;

/// The dead-letter topic of `topic`.
pub(super) fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.dlq")
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The record is on its topic again.
    Replayed,
    /// It was given up.
    Discarded,
}

impl Settlement {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

/// Where a record lies on its topic: partition and offset.
pub type Position = (i32, i64);

/// A record in a dead-letter topic.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// As it lies in the dead-letter topic.
    record: Record,
}

impl DeadLetter {
    /// `record`, untouched, with headers that say why and whence it came, for its dead-letter topic.
    pub(super) fn of(record: &Record, group: &str, reason: &str) -> OutgoingRecord {
        let said = [
            (REASON, reason.to_owned()),
            (TOPIC, record.topic.to_string()),
            (PARTITION, record.partition.to_string()),
            (OFFSET, record.offset.to_string()),
            (TIMESTAMP, record.timestamp.map(|at| at.to_string()).unwrap_or_default()),
            (GROUP, group.to_owned()),
        ];
        let mut letter = record.to_outgoing(dead_letter_topic(&record.topic));
        letter.headers.extend(said.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))));
        if record.unreadable_headers > 0 {
            let count = record.unreadable_headers.to_string();
            letter.headers.push((HEADERS_UNREADABLE.to_owned(), Some(count.into_bytes())));
        }
        letter
    }

    /// Leaves the value out of a letter that the brokers refuse, and says how large it was and what hash it had.
    pub(super) fn without_value(mut letter: OutgoingRecord) -> OutgoingRecord {
        if let Some(value) = letter.value.take() {
            letter.headers.extend(described(&value, VALUE_BYTES, VALUE_SHA256));
        }
        letter
    }

    /// Leaves a large key and the record's own headers out, too, which bounds the size of the letter.
    pub(super) fn without_payload(letter: OutgoingRecord) -> OutgoingRecord {
        let mut letter = Self::without_value(letter);
        let mut own = letter.headers;
        let mut said = own.split_off(first_said(&own));
        if !own.is_empty() {
            let bytes: Vec<u8> = own
                .iter()
                .flat_map(|(name, value)| [name.as_bytes(), value.as_deref().unwrap_or_default()])
                .flatten()
                .copied()
                .collect();
            said.push((HEADERS_COUNT.to_owned(), Some(own.len().to_string().into_bytes())));
            said.extend(described(&bytes, HEADERS_BYTES, HEADERS_SHA256));
        }
        if let Some(key) = letter.key.take_if(|key| key.len() > KEPT_KEY_BYTES) {
            said.extend(described(&key, KEY_BYTES, KEY_SHA256));
        }
        letter.headers = said;
        letter
    }

    /// Returns what was left out because the brokers refused it; such a letter cannot be put back. `None` when the record
    /// is complete.
    pub fn left_out(&self) -> Option<String> {
        let first = self.record.headers().enumerate().filter(|(_, (name, _))| *name == REASON).last()?.0;
        let said = self.record.headers().skip(first);
        let said = |name| {
            let (_, value) = said.clone().find(|(known, _)| *known == name)?;
            value.map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let value = said(VALUE_BYTES).map(|bytes| {
            let hash = said(VALUE_SHA256).unwrap_or_default();
            format!("the value, of {bytes} bytes with the SHA-256 {hash}")
        });
        let headers = said(HEADERS_COUNT).zip(said(HEADERS_BYTES));
        let headers = headers.map(|(count, bytes)| format!("{count} headers, of {bytes} bytes"));
        let key = said(KEY_BYTES).map(|bytes| format!("the key, of {bytes} bytes"));
        let parts: Vec<_> = [value, headers, key].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// The record as it is in the dead-letter topic.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Where the letter lies in the dead-letter topic.
    pub fn position(&self) -> Position {
        (self.record.partition, self.record.offset)
    }

    pub fn reason(&self) -> String {
        self.text(REASON).unwrap_or_else(|| "unknown".to_owned())
    }

    /// The group whose member could not read the record.
    pub fn group(&self) -> Option<String> {
        self.text(GROUP)
    }

    /// Where the record lay on its own topic.
    pub fn origin(&self) -> Option<Position> {
        Some((self.text(PARTITION)?.parse().ok()?, self.text(OFFSET)?.parse().ok()?))
    }

    /// When the record was written to its own topic, in milliseconds since the Unix epoch.
    pub fn written(&self) -> Option<i64> {
        self.text(TIMESTAMP)?.parse().ok()
    }

    /// The headers that the record had on its own topic.
    pub fn own_headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.record.headers().filter(|(name, _)| !name.starts_with(HEADERS))
    }

    /// What settles the letter: all of it has to go out in one transaction.
    pub fn settle(&self, topic: &str, how: Settlement) -> Vec<OutgoingRecord> {
        let (partition, offset) = self.position();
        let said = [
            (SETTLED, how.as_str().to_owned()),
            (SETTLED_PARTITION, partition.to_string()),
            (SETTLED_OFFSET, offset.to_string()),
        ];
        let settlement = OutgoingRecord {
            topic: dead_letter_topic(topic),
            key: None,
            value: None,
            headers: said.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))).to_vec(),
        };
        match how {
            Settlement::Discarded => vec![settlement],
            Settlement::Replayed => vec![
                OutgoingRecord {
                    headers: self
                        .own_headers()
                        .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                        .collect(),
                    ..self.record.to_outgoing(topic.to_owned())
                },
                settlement,
            ],
        }
    }

    fn text(&self, header: &str) -> Option<String> {
        text(&self.record, header)
    }
}

/// Where the headers begin that a letter was given, after those of its record, which may have had such headers itself.
fn first_said(headers: &[(String, Option<Vec<u8>>)]) -> usize {
    headers.iter().rposition(|(name, _)| name == REASON).unwrap_or(headers.len())
}

/// Headers that give the size and the hash of what is left out.
fn described(bytes: &[u8], size: &str, hash: &str) -> [(String, Option<Vec<u8>>); 2] {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    [(size.to_owned(), Some(bytes.len().to_string().into_bytes())), (hash.to_owned(), Some(hex.into_bytes()))]
}

fn text(record: &Record, header: &str) -> Option<String> {
    record.header(header).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// The letter that `record` settles, when it is a settlement.
fn settled(record: &Record) -> Option<Position> {
    // A letter may carry such headers of its own.
    if record.value().is_some() || record.header(REASON).is_some() {
        return None;
    }
    text(record, SETTLED)?;
    Some((text(record, SETTLED_PARTITION)?.parse().ok()?, text(record, SETTLED_OFFSET)?.parse().ok()?))
}

/// Reads the dead letters of `topic`, settled ones too, in the order of each partition; tells with each whether it
/// still waits. Holds the positions of what was settled in memory, and nothing else. Blocks.
///
/// # Errors
/// When the brokers do not tell, or those of `each`.
pub fn for_each_dead_letter(
    kafka: &KafkaArgs,
    topic: &str,
    mut each: impl FnMut(DeadLetter, bool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let topic = dead_letter_topic(topic);
    let mut settlements = HashSet::new();
    TopicReader::open(kafka, &topic)?.for_each(|record| {
        settlements.extend(settled(&record));
        Ok(())
    })?;
    let read = TopicReader::open(kafka, &topic)?.for_each(|record| {
        if settled(&record).is_some() {
            return Ok(());
        }
        let letter = DeadLetter { record };
        let waits = !settlements.contains(&letter.position());
        each(letter, waits)
    });
    read.with_context(|| format!("cannot read {topic}"))
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
    fn a_dead_letter_keeps_the_bytes_and_states_the_reason_and_the_origin() {
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
    fn a_replay_puts_back_the_record_as_it_was_and_settles_the_letter() {
        let records = letter().settle("t", Settlement::Replayed);
        let [put_back, settlement] = &records[..] else { panic!("{records:?}") };
        assert_eq!(put_back, &record().to_outgoing("t".to_owned()));
        assert_eq!(settlement.topic, "t.dlq");
        assert_eq!(settled(&read(settlement).record), Some((0, 7)));
    }

    #[test]
    fn a_letter_without_its_value_states_its_size_and_is_not_complete() {
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
    fn a_letter_without_its_payload_keeps_the_reason_and_the_origin_of_this_death() {
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
    fn a_letter_that_failed_again_after_its_replay_states_the_latest_reason() {
        let again = DeadLetter::of(&letter().record, "group", "still not framed");
        assert_eq!(read(&again).reason(), "still not framed");
    }
}
