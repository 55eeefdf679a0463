//! Tracks the delivery of the records of a transaction: which of them the brokers refused, and whether permanently.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::client::LoggingContext;

/// A record that the brokers will never accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The position of the record in the transaction.
    pub index: usize,
    pub code: RDKafkaErrorCode,
}

/// Returns whether an error code means that the record, or another record of its batch, can never be written.
///
/// The code is one of [Apache Kafka's](https://kafka.apache.org/protocol#protocol_error_codes) or one of librdkafka's
/// own, which are negative. The following errors are not final, although the same record would fail again now:
/// - an unknown topic, a missing authorization or a policy: an operator can fix it;
/// - a timestamp out of range: a record is stamped when it is sent, so the clock of this machine is wrong for all
///   records;
/// - a corrupt message (2): its checksum did not match, so it changed in transit;
/// - an unsupported compression or message format: a setting of the producer or the topic causes it.
pub(super) fn is_final(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        // max.message.bytes of the topic, or message.max.bytes of the producer.
        RDKafkaErrorCode::MessageSizeTooLarge
            // segment.bytes of the topic.
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            // A missing key on a compacted topic, or another validation of the brokers.
            | RDKafkaErrorCode::InvalidRecord
            // The brokers refused another record of the batch.
            | RDKafkaErrorCode::InvalidDifferentRecord
    )
}

/// A log of the records of a transaction that were not written, and of lost connections.
#[derive(Debug, Default)]
pub(super) struct DeliveryLog {
    failed: Mutex<BTreeMap<usize, RDKafkaErrorCode>>,
    lost_all_brokers: AtomicBool,
}

impl DeliveryLog {
    /// Returns the records that have failed so far, by their position in the transaction.
    pub(super) fn failed(&self) -> BTreeMap<usize, RDKafkaErrorCode> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn has_failures(&self) -> bool {
        !self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Returns whether librdkafka reported since the last call that all connections are down.
    pub(super) fn take_lost_all_brokers(&self) -> bool {
        self.lost_all_brokers.swap(false, Ordering::Relaxed)
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
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.lost_all_brokers.store(true, Ordering::Relaxed);
        }
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
    fn a_record_that_is_too_large_or_invalid_is_refused_permanently() {
        for code in [
            RDKafkaErrorCode::MessageSizeTooLarge,
            RDKafkaErrorCode::MessageBatchTooLarge,
            RDKafkaErrorCode::InvalidRecord,
        ] {
            assert!(is_final(code), "{code:?}");
        }
    }

    #[test]
    fn an_error_that_an_operator_can_fix_or_that_passes_is_not_final() {
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
