//! A record on its way in, and on its way out.

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use crate::event::TraceContext;

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
