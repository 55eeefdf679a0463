//! A record on its way in, and on its way out.

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use crate::expected_panic::catch_expected;
use crate::trace::{Description, SpanKind, TraceContext};

pub(super) type RecordHeaders = Vec<(String, Option<Vec<u8>>)>;

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
    /// Headers whose names are not UTF-8: librdkafka's binding can give neither their names nor their values.
    pub unreadable_headers: usize,
}

impl Record {
    /// The bytes of the key, the value and the headers in memory.
    pub(super) fn bytes(&self) -> usize {
        bytes_of(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }

    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rfind(|(key, _)| key == name)?.1.as_deref()
    }
}

/// The step in which a group's member worked on a record.
pub(super) fn describe_processed(record: &Record, group: &str) -> Description {
    describe(SpanKind::Consumer, "process", &record.topic, record.key.as_deref())
        .with("messaging.consumer.group.name", group.to_owned())
        .with("messaging.destination.partition.id", record.partition.to_string())
        .with("messaging.kafka.offset", record.offset)
}

/// The step in which a record was written.
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

impl From<&BorrowedMessage<'_>> for Record {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let mut headers = Vec::new();
        let mut unreadable_headers = 0;
        if let Some(read) = message.headers() {
            headers.reserve_exact(read.count());
            for index in 0..read.count() {
                match catch_expected(|| read.get(index)) {
                    Some(header) => headers.push((header.key.to_owned(), header.value.map(<[u8]>::to_vec))),
                    None => unreadable_headers += 1,
                }
            }
        }
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            unreadable_headers,
        }
    }
}

fn bytes_of(key: Option<&Vec<u8>>, value: Option<&Vec<u8>>, headers: &RecordHeaders) -> usize {
    let length = |bytes: Option<&Vec<u8>>| bytes.map_or(0, Vec::len);
    // A header may be empty, and still takes its place.
    let headers =
        headers.iter().map(|header| size_of_val(header) + header.0.len() + length(header.1.as_ref()));
    length(key) + length(value) + headers.sum::<usize>()
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
    pub fn new(topic: String, key: Vec<u8>, value: Vec<u8>, trace: &TraceContext) -> Self {
        let header = (TraceContext::HEADER.to_owned(), Some(trace.to_string().into_bytes()));
        Self { topic, key: Some(key), value: Some(value), headers: vec![header] }
    }

    /// The bytes of the key, the value and the headers in memory.
    pub(super) fn bytes(&self) -> usize {
        bytes_of(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }

    /// `index`: what the report on its delivery names it by.
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
