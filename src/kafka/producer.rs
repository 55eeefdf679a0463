//! One producer of librdkafka, from its creation until it is given up for another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ThreadedProducer};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::CALL_TIMEOUT;
use super::client::default_to;
use super::delivery::{DeliveryLog, Refusal, is_final};
use super::record::OutgoingRecord;

/// What a call may take beyond its timeout before it counts as stuck.
const OVERTIME: Duration = Duration::from_secs(5);
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);
const DELIVERY_PAUSE: Duration = Duration::from_millis(1);
/// Longer than librdkafka keeps a record, which is as long as the transaction may take.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(25);
/// How long the answers take to requests that were under way when the first was refused.
const REFUSAL_PAUSE: Duration = Duration::from_millis(20);
/// For each call on the way out.
pub(super) const LAST_CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a call to librdkafka did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("{0} did not return within {1:?}")]
    Stuck(&'static str, Duration),
}

/// How records are sent to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batching {
    Together,
    /// Each in a batch of its own, and compressed. That is slow, but brokers refuse a whole batch for one of its records
    /// or for the size of them all, and a record that was small because it was compressed has to fit again.
    Alone,
}

/// Every client library reads it without a further one.
const COMPRESSION: &str = "gzip";

pub(super) type Inner = ThreadedProducer<DeliveryLog>;

/// A producer and how it sends.
pub(super) struct Producer {
    /// `None` only while it is dropped.
    inner: Option<Arc<Inner>>,
    pub(super) batching: Batching,
    shutdown: CancellationToken,
}

impl Producer {
    pub(super) fn new(
        config: &ClientConfig,
        batching: Batching,
        shutdown: CancellationToken,
    ) -> Result<Self, KafkaError> {
        let mut config = config.clone();
        if batching == Batching::Alone {
            // Whatever the user has set: until a transaction commits.
            config.set("batch.num.messages", "1");
            default_to(&mut config, "compression.type", COMPRESSION);
        }
        let inner = Arc::new(config.create_with_context(DeliveryLog::default())?);
        Ok(Self { inner: Some(inner), batching, shutdown })
    }

    fn inner(&self) -> Result<&Arc<Inner>, KafkaError> {
        self.inner.as_ref().ok_or(KafkaError::Canceled)
    }

    pub(super) fn begin_transaction(&self) -> Result<(), KafkaError> {
        self.inner()?.begin_transaction()
    }

    /// The error that ended the producer for good.
    pub(super) fn fatal_error(&self) -> Option<RDKafkaErrorCode> {
        self.inner().ok()?.client().fatal_error().map(|(code, _)| code)
    }

    /// Makes a call that has a `limit` of its own, on a thread of its own: `rd_kafka_send_offsets_to_transaction` of
    /// librdkafka 2.12 may never return after a coordinator was lost. The thread and its producer are left behind
    /// then.
    pub(super) async fn call(
        &self,
        name: &'static str,
        limit: Duration,
        call: impl FnOnce(&Inner) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<(), CallError> {
        let (done, returned) = oneshot::channel();
        let producer = Arc::clone(self.inner()?);
        std::thread::spawn(move || {
            let result = call(&producer);
            // Before the answer, so that its receiver holds the only reference.
            drop(producer);
            // The caller may have given up.
            let _ = done.send(result);
        });
        let limit = limit + OVERTIME;
        match timeout(limit, returned).await {
            Ok(Ok(result)) => Ok(result?),
            // Late, or it panicked.
            Ok(Err(_)) | Err(_) => Err(CallError::Stuck(name, limit)),
        }
    }

    /// Returns the records that `error` is about and that the brokers will never take; when they were not sent alone,
    /// the other records of their batches, too.
    pub(super) async fn refused(&self, error: &CallError) -> Vec<Refusal> {
        let Ok(producer) = self.inner() else { return Vec::new() };
        let log = producer.context();
        // The transaction may have failed before the report on the record arrived that made it fail.
        if let CallError::Kafka(error) = error
            && error
                .rdkafka_error_code()
                .is_some_and(|code| is_final(code) || code == RDKafkaErrorCode::State)
        {
            let until = Instant::now() + CALL_TIMEOUT;
            while !log.has_failures() && Instant::now() < until {
                sleep(DELIVERY_PAUSE).await;
            }
        }
        if log.has_failures() {
            sleep(REFUSAL_PAUSE).await;
        }
        let failed = log.failed().into_iter().filter(|(_, code)| is_final(*code));
        failed.map(|(index, code)| Refusal { index, code }).collect()
    }

    /// Hands a record over to librdkafka; waits while its queue is full. `index`: what the report on it names it by.
    pub(super) async fn enqueue(&self, index: usize, record: &OutgoingRecord) -> Result<(), KafkaError> {
        let producer = self.inner()?;
        loop {
            match producer.send(record.as_base_record(index)) {
                Ok(()) => return Ok(()),
                // Nothing leaves the queue any more.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                    if producer.context().has_failures() =>
                {
                    return Err(self.failure());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                    if !self.shutdown.is_cancelled() =>
                {
                    sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((error, _)) => {
                    if let Some(code) = error.rdkafka_error_code().filter(|code| is_final(*code)) {
                        producer.context().note(index, code);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Waits until the brokers have all records, or until one of them failed: from then on librdkafka sends no more of
    /// this transaction.
    pub(super) async fn await_deliveries(&self) -> Result<(), CallError> {
        let producer = self.inner()?;
        let began = Instant::now();
        while producer.in_flight_count() > 0 && !producer.context().has_failures() {
            let limit = if self.shutdown.is_cancelled() { LAST_CALL_TIMEOUT } else { DELIVERY_TIMEOUT };
            if began.elapsed() > limit {
                return Err(CallError::Stuck("the delivery of records", limit));
            }
            sleep(DELIVERY_PAUSE).await;
        }
        if producer.context().has_failures() { Err(self.failure().into()) } else { Ok(()) }
    }

    /// The error of a record that was not written.
    fn failure(&self) -> KafkaError {
        let failed = self.inner().map(|producer| producer.context().failed()).unwrap_or_default();
        let code = failed.into_values().next().unwrap_or(RDKafkaErrorCode::Unknown);
        KafkaError::MessageProduction(code)
    }
}

impl Drop for Producer {
    /// On a thread of its own: with the brokers unavailable librdkafka takes its time to close.
    fn drop(&mut self) {
        let inner = self.inner.take();
        std::thread::spawn(move || drop(inner));
    }
}
