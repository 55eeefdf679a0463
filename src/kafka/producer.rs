//! Wraps one producer of librdkafka, from its creation until another one replaces it.

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
use super::reach::{CUT_OFF, names_brokers};
use super::record::OutgoingRecord;

/// The time beyond its timeout after which a call counts as stuck.
const OVERTIME: Duration = Duration::from_secs(5);
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);
const DELIVERY_PAUSE: Duration = Duration::from_millis(1);
/// The limit for the delivery of all records. It is longer than librdkafka holds a record, which is at most the
/// transaction timeout.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(25);
/// The time to wait for the responses to the requests that were in flight when the first one was refused.
const REFUSAL_PAUSE: Duration = Duration::from_millis(20);
/// The timeout of each call during the shutdown.
pub(super) const LAST_CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// The reason why a call to librdkafka did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("{0} did not return within {1:?}")]
    Stuck(&'static str, Duration),
}

/// The way records are sent to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batching {
    Together,
    /// Sends each record in a separate, compressed batch. This is slow, but brokers refuse a whole batch for one of its
    /// records or for its total size. Compression is needed for a record that fits only when it is compressed.
    Alone,
}

/// The codec that every client library supports without additional dependencies.
const COMPRESSION: &str = "gzip";

pub(super) type Inner = ThreadedProducer<DeliveryLog>;

/// A producer with its way of sending records.
pub(super) struct Producer {
    /// `None` only during the drop.
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
            // Overrides the user's value until a transaction commits.
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

    /// Returns the error after which the producer cannot be used any more.
    pub(super) fn fatal_error(&self) -> Option<RDKafkaErrorCode> {
        self.inner().ok()?.client().fatal_error().map(|(code, _)| code)
    }

    /// Makes a call that has its own time `limit`, on a separate thread. `rd_kafka_send_offsets_to_transaction` of
    /// librdkafka 2.12 may never return after a coordinator was lost. In this case, the thread and its producer are
    /// abandoned.
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
            // Drop it before the result is sent, so that the receiver holds the only reference.
            drop(producer);
            // The caller may have stopped waiting.
            let _ = done.send(result);
        });
        let limit = limit + OVERTIME;
        match timeout(limit, returned).await {
            Ok(Ok(result)) => Ok(result?),
            // The call timed out or panicked.
            Ok(Err(_)) | Err(_) => Err(CallError::Stuck(name, limit)),
        }
    }

    /// Returns whether all connections were down since the last call: the producer may be cut off for ever (see
    /// [`Reach`](super::reach::Reach)).
    pub(super) fn take_lost_all_brokers(&self) -> bool {
        self.inner.as_ref().is_some_and(|producer| producer.context().take_lost_all_brokers())
    }

    /// Proves that a broker answers, if all connections were down. Proves nothing during the shutdown.
    ///
    /// # Errors
    /// Fails when no broker answers.
    pub(super) async fn prove_reach(&self, topic: &str) -> Result<(), CallError> {
        if self.shutdown.is_cancelled() || !self.take_lost_all_brokers() {
            return Ok(());
        }
        let topic = topic.to_owned();
        let proof = self.call("a query of the metadata", CUT_OFF, move |producer| {
            let metadata = producer.client().fetch_metadata(Some(&topic), CUT_OFF)?;
            let unknown = KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerNotAvailable);
            if names_brokers(&metadata) { Ok(()) } else { Err(unknown) }
        });
        tokio::select! {
            () = self.shutdown.cancelled() => Ok(()),
            proven = proof => proven,
        }
    }

    /// Returns the records that caused `error` and that the brokers will never accept. Unless records are sent alone,
    /// the result includes the other records of their batches.
    pub(super) async fn refused(&self, error: &CallError) -> Vec<Refusal> {
        let Ok(producer) = self.inner() else { return Vec::new() };
        let log = producer.context();
        // The transaction may have failed before the delivery report of the record that caused the failure arrived.
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

    /// Passes a record to librdkafka, and waits while its queue is full. The delivery report refers to it by `index`.
    pub(super) async fn enqueue(&self, index: usize, record: &OutgoingRecord) -> Result<(), KafkaError> {
        let producer = self.inner()?;
        loop {
            match producer.send(record.as_base_record(index)) {
                Ok(()) => return Ok(()),
                // After a failure, librdkafka sends no more records from the queue.
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

    /// Waits until the brokers have acknowledged all records or one has failed. After a failure, librdkafka sends no
    /// more records of this transaction.
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

    /// Returns the error of a record that was not written.
    fn failure(&self) -> KafkaError {
        let failed = self.inner().map(|producer| producer.context().failed()).unwrap_or_default();
        let code = failed.into_values().next().unwrap_or(RDKafkaErrorCode::Unknown);
        KafkaError::MessageProduction(code)
    }
}

impl Drop for Producer {
    /// Closes the producer on a separate thread, because closing takes long while the brokers are unavailable.
    fn drop(&mut self) {
        let inner = self.inner.take();
        std::thread::spawn(move || drop(inner));
    }
}
