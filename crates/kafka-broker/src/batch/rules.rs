//! Describes what the configs of a topic demand of a batch (`LogValidator` of Apache Kafka).

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;

use super::records::RecordHead;
use super::{BatchHeader, Codec};

/// Most records that the response to a request names as refused. Apache Kafka has no limit.
pub const MAX_NAMED: usize = 1000;

#[derive(Debug, Clone)]
pub struct Rules {
    /// Whether each record needs a key.
    pub needs_keys: bool,
    /// Whether the broker sets the timestamps.
    pub log_append_time: bool,
    /// Timestamps that a producer may set.
    pub timestamps: RangeInclusive<i64>,
    /// Codec to store the batch with, if not that of the producer.
    pub codec: Option<Codec>,
    /// Largest size of the batch in bytes.
    pub max_bytes: usize,
}

/// Reports why a batch is refused, and which records of it are wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidBatch {
    pub error: ResponseError,
    /// Numbers of records in the batch, with messages for the client.
    pub records: Vec<(i32, &'static str)>,
}

impl From<ResponseError> for InvalidBatch {
    fn from(error: ResponseError) -> Self {
        Self { error, records: Vec::new() }
    }
}

/// Collects the records that break the rules.
pub struct RecordCheck<'a> {
    rules: &'a Rules,
    /// Whether the producer claims that the broker has set the timestamps.
    has_log_append_time: bool,
    invalid: Option<InvalidBatch>,
}

impl<'a> RecordCheck<'a> {
    /// Begins with the header as the producer sent it.
    pub fn new(rules: &'a Rules, received: &BatchHeader) -> Self {
        Self { rules, has_log_append_time: received.has_log_append_time(), invalid: None }
    }

    pub fn check(&mut self, record: &RecordHead) {
        let (error, message) = if self.rules.needs_keys && !record.has_key {
            (ResponseError::InvalidRecord, "A compacted topic cannot accept a record without a key.")
        } else if self.rules.log_append_time && self.has_log_append_time {
            (ResponseError::InvalidTimestamp, "Only the broker sets timestamps of the type LogAppendTime.")
        } else if !self.rules.log_append_time
            && record.timestamp != -1
            && !self.rules.timestamps.contains(&record.timestamp)
        {
            (ResponseError::InvalidTimestamp, "The timestamp is too far from the clock of the broker.")
        } else {
            return;
        };
        let invalid = self.invalid.get_or_insert_with(|| error.into());
        if error == ResponseError::InvalidTimestamp {
            invalid.error = error;
        }
        if invalid.records.len() < MAX_NAMED {
            invalid.records.push((record.offset_delta, message));
        }
    }

    pub fn finish(self) -> Result<(), InvalidBatch> {
        self.invalid.map_or(Ok(()), Err)
    }
}
