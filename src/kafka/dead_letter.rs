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
    pub(super) fn of(record: Record, group: &str, reason: &str) -> OutgoingRecord {
        let mut headers = record.headers;
        let said = [
            (REASON, reason.to_owned()),
            (TOPIC, record.topic.clone()),
            (PARTITION, record.partition.to_string()),
            (OFFSET, record.offset.to_string()),
            (TIMESTAMP, record.timestamp.map(|at| at.to_string()).unwrap_or_default()),
            (GROUP, group.to_owned()),
        ];
        headers.extend(said.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))));
        if record.unreadable_headers > 0 {
            let count = record.unreadable_headers.to_string();
            headers.push((HEADERS_UNREADABLE.to_owned(), Some(count.into_bytes())));
        }
        OutgoingRecord {
            topic: dead_letter_topic(&record.topic),
            key: record.key,
            value: record.value,
            headers,
        }
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
        let said = self.record.headers.get(first_said(&self.record.headers)..)?;
        let said = |name| {
            let (_, value) = said.iter().find(|(known, _)| known == name)?;
            value.as_deref().map(|value| String::from_utf8_lossy(value).into_owned())
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
    pub fn own_headers(&self) -> impl Iterator<Item = &(String, Option<Vec<u8>>)> {
        self.record.headers.iter().filter(|(name, _)| !name.starts_with(HEADERS))
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
                    topic: topic.to_owned(),
                    key: self.record.key.clone(),
                    value: self.record.value.clone(),
                    headers: self.own_headers().cloned().collect(),
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
    if record.value.is_some() || record.header(REASON).is_some() {
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

    fn letter() -> DeadLetter {
        let record = Record {
            topic: "t".to_owned(),
            partition: 2,
            offset: 41,
            timestamp: Some(1_000),
            key: Some(b"key".to_vec()),
            value: Some(vec![0, 255]),
            headers: vec![("own".to_owned(), Some(b"kept".to_vec()))],
            ..Record::default()
        };
        let written = DeadLetter::of(record, "group", "not framed");
        assert_eq!(written.topic, "t.dlq");
        let record = Record {
            topic: written.topic,
            partition: 0,
            offset: 7,
            timestamp: Some(2_000),
            key: written.key,
            value: written.value,
            headers: written.headers,
            ..Record::default()
        };
        DeadLetter { record }
    }

    #[test]
    fn a_dead_letter_keeps_the_bytes_and_says_why_and_whence() {
        let letter = letter();
        assert_eq!(letter.record().value, Some(vec![0, 255]));
        assert_eq!(letter.reason(), "not framed");
        assert_eq!(letter.origin(), Some((2, 41)));
        assert_eq!(letter.written(), Some(1_000));
        assert_eq!(letter.group().as_deref(), Some("group"));
        let own: Vec<_> = letter.own_headers().cloned().collect();
        assert_eq!(own, [("own".to_owned(), Some(b"kept".to_vec()))]);
    }

    #[test]
    fn a_replay_puts_back_the_record_as_it_was_and_settles_the_letter() {
        let records = letter().settle("t", Settlement::Replayed);
        let [put_back, settlement] = &records[..] else { panic!("{records:?}") };
        assert_eq!(put_back.topic, "t");
        assert_eq!(put_back.key.as_deref(), Some(&b"key"[..]));
        assert_eq!(put_back.value.as_deref(), Some(&[0, 255][..]));
        assert_eq!(put_back.headers, [("own".to_owned(), Some(b"kept".to_vec()))]);
        assert_eq!(settlement.topic, "t.dlq");
        let record = Record { headers: settlement.headers.clone(), ..Record::default() };
        assert_eq!(settled(&record), Some((0, 7)));
    }

    #[test]
    fn a_letter_whose_value_is_left_out_says_how_large_it_was_and_is_not_complete() {
        let letter = letter();
        assert_eq!(letter.left_out(), None);
        let OutgoingRecord { key, value, headers, .. } = DeadLetter::without_value(OutgoingRecord {
            topic: "t.dlq".to_owned(),
            key: letter.record.key.clone(),
            value: Some(b"abc".to_vec()),
            headers: letter.record.headers.clone(),
        });
        assert_eq!(value, None);
        let letter = DeadLetter { record: Record { key, value, headers, ..Record::default() } };
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(letter.left_out(), Some(format!("the value, of 3 bytes with the SHA-256 {hash}")));
        assert_eq!(letter.reason(), "not framed");
        assert_eq!(letter.own_headers().count(), 1);
    }

    #[test]
    fn a_letter_without_its_payload_keeps_the_reason_and_the_origin_of_this_death() {
        let forged = |name: &str| (name.to_owned(), Some(b"1".to_vec()));
        let headers = vec![forged(REASON), forged(VALUE_BYTES), forged(HEADERS_COUNT), forged(HEADERS_BYTES)];
        let record = Record { headers, ..letter().record };
        let written = DeadLetter::of(record.clone(), "group", "refused");
        let whole = Record { value: written.value, headers: written.headers, ..Record::default() };
        assert_eq!(DeadLetter { record: whole }.left_out(), None);
        let record = Record { key: Some(vec![0; 5_000]), ..record };
        let written = DeadLetter::without_payload(DeadLetter::of(record, "group", "refused"));
        let record = Record { key: written.key, headers: written.headers, ..Record::default() };
        let letter = DeadLetter { record };
        assert_eq!(letter.reason(), "refused");
        assert_eq!(letter.group().as_deref(), Some("group"));
        assert_eq!(letter.record.headers.iter().filter(|(name, _)| name == REASON).count(), 1);
        let left_out = letter.left_out().unwrap();
        for part in ["the value, of 2 bytes", "4 headers, of 63 bytes", "the key, of 5000 bytes"] {
            assert!(left_out.contains(part), "{left_out}");
        }
    }

    #[test]
    fn a_letter_that_failed_again_after_its_replay_tells_the_latest_reason() {
        let again = DeadLetter::of(letter().record, "group", "still not framed");
        let record = Record { headers: again.headers, ..Record::default() };
        assert_eq!(DeadLetter { record }.reason(), "still not framed");
    }
}
