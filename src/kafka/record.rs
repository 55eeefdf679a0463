//! A record on its way in, and on its way out.

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use super::client::dead_letter_topic;
use crate::event::TraceContext;

type RecordHeaders = Vec<(String, Option<Vec<u8>>)>;

/// A record as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the Unix epoch, when the broker or producer stated it.
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: RecordHeaders,
}

impl Record {
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rfind(|(key, _)| key == name)?.1.as_deref()
    }

    /// The next step of the trace that the record belongs to.
    pub fn trace(&self) -> TraceContext {
        TraceContext::follow(self.header(TraceContext::HEADER))
    }
}

impl From<&BorrowedMessage<'_>> for Record {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingRecord {
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: RecordHeaders,
}

impl OutgoingRecord {
    /// A keyed value that belongs to a trace.
    pub fn new(topic: String, key: Vec<u8>, value: Vec<u8>, trace: TraceContext) -> Self {
        let header = (TraceContext::HEADER.to_owned(), Some(trace.to_string().into_bytes()));
        Self { topic, key: Some(key), value: Some(value), headers: vec![header] }
    }

    /// `record`, untouched, with headers that say why and whence it came, for its dead-letter topic.
    pub fn dead_letter(record: Record, group: &str, reason: &str) -> Self {
        let mut headers = record.headers;
        let said = [
            ("dlq.reason", reason.to_owned()),
            ("dlq.topic", record.topic.clone()),
            ("dlq.partition", record.partition.to_string()),
            ("dlq.offset", record.offset.to_string()),
            ("dlq.timestamp", record.timestamp.map(|at| at.to_string()).unwrap_or_default()),
            ("dlq.group", group.to_owned()),
        ];
        headers.extend(said.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))));
        Self { topic: dead_letter_topic(&record.topic), key: record.key, value: record.value, headers }
    }

    pub(super) fn as_base_record(&self) -> BaseRecord<'_, [u8], [u8]> {
        let headers = self
            .headers
            .iter()
            .fold(OwnedHeaders::new_with_capacity(self.headers.len()), |headers, (key, value)| {
                headers.insert(Header { key, value: value.as_deref() })
            });
        let mut record = BaseRecord::to(&self.topic).headers(headers);
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_keeps_the_bytes_and_says_why_and_whence() {
        let record = Record {
            topic: "t".to_owned(),
            partition: 2,
            offset: 41,
            timestamp: Some(1_000),
            key: None,
            value: Some(vec![0, 255]),
            headers: vec![("own".to_owned(), Some(b"kept".to_vec()))],
        };
        let letter = OutgoingRecord::dead_letter(record, "group", "not framed");
        assert_eq!((letter.topic.as_str(), letter.key, letter.value), ("t.dlq", None, Some(vec![0, 255])));
        let said: Vec<_> = letter
            .headers
            .iter()
            .map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(value.as_deref().unwrap())))
            .collect();
        assert_eq!(
            said,
            [
                "own=kept",
                "dlq.reason=not framed",
                "dlq.topic=t",
                "dlq.partition=2",
                "dlq.offset=41",
                "dlq.timestamp=1000",
                "dlq.group=group"
            ]
        );
    }
}
