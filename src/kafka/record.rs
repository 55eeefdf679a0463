//! Defines records as they are read and as they are written.

use std::borrow::Cow;
use std::sync::Arc;

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use super::content::Content;
use crate::expected_panic::catch_expected;
use crate::trace::{Description, SpanKind, TraceContext, TraceHeaders};

pub(super) type RecordHeaders = Vec<(String, Option<Vec<u8>>)>;

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The name of the topic, shared by its records.
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// The timestamp in milliseconds since the Unix epoch, if the record has one.
    pub timestamp: Option<i64>,
    content: Content,
    /// The number of headers whose names are not UTF-8. The Rust binding of librdkafka can return neither their names
    /// nor their values.
    pub unreadable_headers: u32,
}

impl Record {
    /// Copies a message of `topic`.
    pub(super) fn read(message: &BorrowedMessage<'_>, topic: &Arc<str>) -> Self {
        let mut headers = Vec::new();
        let mut unreadable_headers = 0;
        if let Some(read) = message.headers() {
            headers.reserve_exact(read.count());
            for index in 0..read.count() {
                match catch_expected(|| read.get(index)) {
                    Some(header) => headers.push((header.key, header.value)),
                    None => unreadable_headers += 1,
                }
            }
        }
        Self {
            topic: Arc::clone(topic),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            content: Content::new(message.key(), message.payload(), headers.iter().copied()),
            unreadable_headers,
        }
    }

    /// Returns the record that is read after `written` was written to this position.
    #[cfg(test)]
    pub fn of(written: &OutgoingRecord, partition: i32, offset: i64, timestamp: Option<i64>) -> Self {
        let headers = written.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        Self {
            topic: written.topic.as_str().into(),
            partition,
            offset,
            timestamp,
            content: Content::new(written.key.as_deref(), written.value.as_deref(), headers),
            unreadable_headers: 0,
        }
    }

    /// Returns the size of the key, the value and the headers in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.content.len()
    }

    pub fn key(&self) -> Option<&[u8]> {
        self.content.key()
    }

    pub fn value(&self) -> Option<&[u8]> {
        self.content.value()
    }

    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> + Clone {
        self.content.headers()
    }

    /// Returns the value of the last header with this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().filter(|(known, _)| *known == name).last()?.1
    }

    pub(super) fn trace(&self) -> TraceHeaders<'_> {
        TraceHeaders::read(self.header(TraceHeaders::PARENT), self.header(TraceHeaders::STATE))
    }

    /// Returns a record with the same content for another topic.
    pub fn to_outgoing(&self, topic: String) -> OutgoingRecord {
        OutgoingRecord {
            topic,
            key: self.key().map(<[u8]>::to_vec),
            value: self.value().map(<[u8]>::to_vec),
            headers: self
                .headers()
                .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }
}

/// Describes the trace step in which a member of `group` processed a record.
pub(super) fn describe_processed(record: &Record, group: &str) -> Description {
    describe(SpanKind::Consumer, "process", &record.topic, record.key())
        .with("messaging.consumer.group.name", group.to_owned())
        .with("messaging.destination.partition.id", record.partition.to_string())
        .with("messaging.kafka.offset", record.offset)
}

/// Describes the trace step in which a record was written.
pub fn describe_sent(record: &OutgoingRecord) -> Description {
    describe(SpanKind::Producer, "send", &record.topic, record.key.as_deref())
}

fn describe(kind: SpanKind, operation: &'static str, topic: &str, key: Option<&[u8]>) -> Description {
    let description = Description::new(kind, format!("{operation} {topic}"))
        .with("messaging.system", "kafka")
        .with("messaging.operation.name", operation)
        .with("messaging.operation.type", operation)
        .with("messaging.destination.name", topic.to_owned());
    match key {
        Some(key) => {
            description.with("messaging.kafka.message.key", String::from_utf8_lossy(key).into_owned())
        }
        None => description,
    }
}

/// A record to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingRecord {
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: RecordHeaders,
}

impl OutgoingRecord {
    /// Creates a record with a key, a value and a trace context.
    pub fn new(topic: String, key: Vec<u8>, value: Vec<u8>, trace: &TraceContext) -> Self {
        let TraceHeaders { parent, state } = trace.headers();
        let header =
            |name: &str, value: Cow<'_, str>| (name.to_owned(), Some(value.into_owned().into_bytes()));
        let mut headers = vec![header(TraceHeaders::PARENT, parent)];
        if !state.is_empty() {
            headers.push(header(TraceHeaders::STATE, state));
        }
        Self { topic, key: Some(key), value: Some(value), headers }
    }

    /// Returns the size of the key, the value and the headers in memory, in bytes.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        // An empty header also occupies memory.
        let headers =
            self.headers.iter().map(|header| size_of_val(header) + header.0.len() + length(&header.1));
        length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }

    /// Returns the record for librdkafka. The delivery report refers to it by `index`.
    pub(super) fn as_base_record(&self, index: usize) -> BaseRecord<'_, [u8], [u8], usize> {
        let headers = self
            .headers
            .iter()
            .fold(OwnedHeaders::new_with_capacity(self.headers.len()), |headers, (key, value)| {
                headers.insert(Header { key, value: value.as_deref() })
            });
        let mut record = BaseRecord::with_opaque_to(&self.topic, index).headers(headers);
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        record
    }
}
