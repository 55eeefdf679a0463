//! What became of the records of a transaction: which of them the brokers refused, and whether for ever.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::client::LoggingContext;

/// A record that the brokers will never take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its position among the records of the transaction.
    pub index: usize,
    pub code: RDKafkaErrorCode,
}

/// Whether the error code of a record that was not written says that it, or another record of its batch, can never be
/// written.
///
/// [Apache Kafka's error codes](https://kafka.apache.org/protocol#protocol_error_codes), and librdkafka's own, which
/// are negative. Not of the record, although the same record would fail again now:
/// - an unknown topic, a missing authorization or a policy: an operator repairs them, and the record can be written;
/// - a timestamp out of range: a record is stamped as it is sent, so the clock of this machine is wrong for all records;
/// - a damaged message (2): its checksum did not match, so it changed on the way;
/// - an unsupported compression or message format: a setting of the producer or the topic.
pub(super) fn is_final(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        // max.message.bytes of the topic, or message.max.bytes of the producer.
        RDKafkaErrorCode::MessageSizeTooLarge
            // segment.bytes of the topic.
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            // No key, where the topic is compacted, or what else the brokers validate.
            | RDKafkaErrorCode::InvalidRecord
            // The brokers refused another record of the batch.
            | RDKafkaErrorCode::InvalidDifferentRecord
    )
}

/// Takes a note of each record of a transaction that was not written.
#[derive(Debug, Default)]
pub(super) struct DeliveryLog {
    failed: Mutex<BTreeMap<usize, RDKafkaErrorCode>>,
}

impl DeliveryLog {
    /// Returns the records that were not written so far, by their position.
    pub(super) fn failed(&self) -> BTreeMap<usize, RDKafkaErrorCode> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn has_failures(&self) -> bool {
        !self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn note(&self, index: usize, code: RDKafkaErrorCode) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(index, code);
    }
}

impl ClientContext for DeliveryLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        LoggingContext.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        LoggingContext.error(error, reason);
    }
}

impl ProducerContext for DeliveryLog {
    /// The position of the record in its transaction.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        if let Err((error, _)) = result {
            self.note(index, error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_too_large_or_invalid_is_refused_for_ever() {
        for code in [
            RDKafkaErrorCode::MessageSizeTooLarge,
            RDKafkaErrorCode::MessageBatchTooLarge,
            RDKafkaErrorCode::InvalidRecord,
        ] {
            assert!(is_final(code), "{code:?}");
        }
    }

    #[test]
    fn what_an_operator_or_time_repairs_is_not_of_the_record() {
        for code in [
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::UnknownTopicOrPartition,
            RDKafkaErrorCode::UnknownTopic,
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::NotEnoughReplicas,
            RDKafkaErrorCode::InvalidTimestamp,
            RDKafkaErrorCode::InvalidMessage,
            RDKafkaErrorCode::PolicyViolation,
            RDKafkaErrorCode::PurgeQueue,
            RDKafkaErrorCode::Unknown,
        ] {
            assert!(!is_final(code), "{code:?}");
        }
    }
}
