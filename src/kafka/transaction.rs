//! The one way to write to Kafka: records, and progress if there is any, in a single transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::{LoggingContext, client_config, default_to};
use super::marker::Mark;
use super::record::OutgoingRecord;
use crate::backoff::Backoff;

/// A transaction here takes milliseconds. One that a killed process left open holds its readers back until the
/// process returns under its name, or for this long.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(20);

/// More than the brokers take.
const MESSAGE_MAX_BYTES: &str = "100000000";

/// What a call may take beyond its timeout before it counts as stuck.
const OVERTIME: Duration = Duration::from_secs(5);

/// Longer than the brokers let a transaction stay open.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);
const DELIVERY_PAUSE: Duration = Duration::from_millis(1);
/// How long a tool waits for the brokers to begin: somebody sits before it.
const TOOL_PATIENCE: Duration = Duration::from_secs(60);
/// For each call on the way out.
const LAST_CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// The next offset to read, for each partition of one topic that moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub topic: String,
    /// Partition, and what is committed for it.
    pub next: Vec<(i32, Mark)>,
}

impl Progress {
    fn as_list(&self) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(self.next.len());
        for (partition, Mark { offset, metadata }) in &self.next {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
            if let Some(metadata) = metadata.as_deref()
                && let Some(mut element) = list.find_partition(&self.topic, *partition)
            {
                element.set_metadata(metadata);
            }
        }
        Ok(list)
    }
}

/// Why a call to librdkafka did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("{0} did not return within {1:?}")]
    Stuck(&'static str, Duration),
}

/// Why a transaction did not commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It was aborted, so nothing of it will ever be seen: it can be tried again as it was.
    #[error("the transaction was aborted: {0}")]
    Aborted(CallError),
    /// Another producer took over the transactional id. Its outcome is unknown.
    #[error("another producer uses the transactional id: {0}")]
    Fenced(CallError),
    /// Its outcome is unknown: make a new producer and ask the cluster what was committed.
    #[error("the producer is lost: {0}")]
    Lost(CallError),
}

type Inner = ThreadedProducer<LoggingContext>;

/// A producer with a transactional id.
pub struct TransactionalProducer {
    config: ClientConfig,
    /// `None` only while it is dropped.
    producer: Option<Arc<Inner>>,
    /// How long to wait for the brokers to begin.
    patience: Duration,
    shutdown: CancellationToken,
}

impl TransactionalProducer {
    /// Fences any earlier producer of the same id, and ends the transaction that it left open. Waits for the
    /// brokers as long as it takes, or until `shutdown`.
    ///
    /// # Errors
    /// When a setting is wrong, the brokers refuse, or on `shutdown`.
    pub async fn new(
        kafka: &KafkaArgs,
        transactional_id: &str,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::within(kafka, transactional_id, Duration::MAX, shutdown).await
    }

    /// As [`Self::new`], but gives up after a minute, and runs until it is dropped.
    ///
    /// # Errors
    /// As [`Self::new`], and when the brokers do not answer.
    pub async fn of_tool(kafka: &KafkaArgs, transactional_id: &str) -> anyhow::Result<Self> {
        Self::within(kafka, transactional_id, TOOL_PATIENCE, CancellationToken::new()).await
    }

    /// As [`Self::new`], but makes no further attempt to begin after `patience`.
    ///
    /// # Errors
    /// As [`Self::new`], and when the brokers do not answer.
    pub async fn within(
        kafka: &KafkaArgs,
        transactional_id: &str,
        patience: Duration,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let config = producer_config(kafka, transactional_id);
        let producer = create(&config).context("cannot set up a Kafka producer; see --kafka-property")?;
        let mut producer = Self { config, producer: Some(producer), patience, shutdown };
        producer.begin().await.context("cannot begin transactions")?;
        Ok(producer)
    }

    async fn begin(&mut self) -> Result<(), CallError> {
        let mut backoff = Backoff::new();
        let started = Instant::now();
        loop {
            let timeout = self.call_timeout();
            let begun = self
                .call("init_transactions", timeout, move |producer| producer.init_transactions(timeout))
                .await;
            match begun {
                Err(error)
                    if is_retriable(&error)
                        && !self.shutdown.is_cancelled()
                        && started.elapsed() < self.patience =>
                {
                    tracing::warn!(%error, "waiting for the brokers to begin transactions");
                    if matches!(error, CallError::Stuck(..)) {
                        self.replace()?;
                    }
                    tokio::select! {
                        () = self.shutdown.cancelled() => {}
                        () = sleep(backoff.next_pause()) => {}
                    }
                }
                result => return result,
            }
        }
    }

    /// Aborts the transaction, by a new producer that takes over the id.
    ///
    /// `abort_transaction` would lose records of the next transaction: librdkafka gives them the sequence numbers of
    /// records that it had sent and, with no answer yet, queued to send again. A broker that has those takes the new
    /// ones for duplicates, and says that they are written (`rd_kafka_toppar_purge_queues` in librdkafka 2.12). A new
    /// producer has a new epoch, in which the numbers begin anew.
    async fn abort(&mut self) -> Result<(), CallError> {
        self.replace()?;
        self.begin().await
    }

    fn replace(&mut self) -> Result<(), KafkaError> {
        let abandoned = self.producer.replace(create(&self.config)?);
        // With the brokers away librdkafka takes its time to close.
        std::thread::spawn(move || drop(abandoned));
        Ok(())
    }

    /// Makes a call that has a `limit` of its own, on a thread of its own: `rd_kafka_send_offsets_to_transaction` of
    /// librdkafka 2.12 may never return after a coordinator was lost. The thread and its producer are left behind
    /// then.
    async fn call(
        &self,
        name: &'static str,
        limit: Duration,
        call: impl FnOnce(&Inner) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<(), CallError> {
        let (done, returned) = oneshot::channel();
        let producer = Arc::clone(self.producer()?);
        std::thread::spawn(move || {
            let result = call(&producer);
            // Before the answer, so that whoever hears of it holds the only reference.
            drop(producer);
            // Nobody may be waiting any more.
            let _ = done.send(result);
        });
        let limit = limit + OVERTIME;
        match timeout(limit, returned).await {
            Ok(Ok(result)) => Ok(result?),
            // Late, or it panicked.
            Ok(Err(_)) | Err(_) => Err(CallError::Stuck(name, limit)),
        }
    }

    /// Writes `records` and moves `progress` of the group, both or neither.
    ///
    /// A group that is no longer the one `group` describes (KIP-447) aborts it.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a OutgoingRecord>,
        progress: &Progress,
        group: &Arc<ConsumerGroupMetadata>,
    ) -> Result<(), CommitError> {
        self.transact(records, Some((progress, group))).await
    }

    /// Writes `records`, all or none.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn publish<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a OutgoingRecord>,
    ) -> Result<(), CommitError> {
        self.transact(records, None).await
    }

    async fn transact<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a OutgoingRecord>,
        consumed: Option<(&Progress, &Arc<ConsumerGroupMetadata>)>,
    ) -> Result<(), CommitError> {
        if let Err(error) = self.prepare(records, consumed).await {
            // On the way out there is no time to abort: the successor does it when it takes over the id.
            if is_lost(&error) || self.shutdown.is_cancelled() {
                return Err(self.outcome_unknown(error));
            }
            return match self.abort().await {
                Ok(()) => Err(CommitError::Aborted(error)),
                Err(abort_error) => Err(self.outcome_unknown(abort_error)),
            };
        }
        // From here on the brokers may have committed it, even when librdkafka says that it has to be aborted.
        self.call("commit_transaction", COMMIT_TIMEOUT, |producer| {
            producer.commit_transaction(COMMIT_TIMEOUT)
        })
        .await
        .map_err(|error| self.outcome_unknown(error))
    }

    fn outcome_unknown(&self, error: CallError) -> CommitError {
        let code = match &error {
            CallError::Kafka(KafkaError::Transaction(error)) => Some(error.code()),
            _ => None,
        };
        let fatal = self.producer.as_ref().and_then(|producer| producer.client().fatal_error());
        if code.into_iter().chain(fatal.map(|(code, _)| code)).any(is_fencing) {
            CommitError::Fenced(error)
        } else {
            CommitError::Lost(error)
        }
    }

    /// Everything but the commit: until that is asked for nothing can become visible.
    async fn prepare<'a>(
        &self,
        records: impl IntoIterator<Item = &'a OutgoingRecord>,
        consumed: Option<(&Progress, &Arc<ConsumerGroupMetadata>)>,
    ) -> Result<(), CallError> {
        self.producer()?.begin_transaction()?;
        for record in records {
            self.enqueue(record).await?;
        }
        if let Some((progress, group)) = consumed {
            let (offsets, group, timeout) = (progress.as_list()?, Arc::clone(group), self.call_timeout());
            self.call("send_offsets_to_transaction", timeout, move |producer| {
                producer.send_offsets_to_transaction(&offsets, &group, timeout)
            })
            .await?;
        }
        self.await_deliveries().await?;
        Ok(())
    }

    async fn enqueue(&self, record: &OutgoingRecord) -> Result<(), KafkaError> {
        loop {
            match self.producer()?.send(record.as_base_record()) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                    if !self.shutdown.is_cancelled() =>
                {
                    sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits, for a while, until the brokers have all records. The commit would wait for them too, but looks only
    /// every 100 ms (`BaseProducer::flush`).
    async fn await_deliveries(&self) -> Result<(), KafkaError> {
        let until = Instant::now() + self.call_timeout();
        while self.producer()?.in_flight_count() > 0 && Instant::now() < until {
            sleep(DELIVERY_PAUSE).await;
        }
        Ok(())
    }

    fn producer(&self) -> Result<&Arc<Inner>, KafkaError> {
        self.producer.as_ref().ok_or(KafkaError::Canceled)
    }

    fn call_timeout(&self) -> Duration {
        if self.shutdown.is_cancelled() { LAST_CALL_TIMEOUT } else { CALL_TIMEOUT }
    }
}

impl Drop for TransactionalProducer {
    /// On a thread of its own: with the brokers unavailable librdkafka takes its time to close.
    fn drop(&mut self) {
        let producer = self.producer.take();
        std::thread::spawn(move || drop(producer));
    }
}

pub(super) fn producer_config(kafka: &KafkaArgs, transactional_id: &str) -> ClientConfig {
    let mut config = client_config(kafka);
    config
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
        // The brokers judge how large a record may be: to refuse one here would only stop the line.
        .set("message.max.bytes", MESSAGE_MAX_BYTES);
    default_to(&mut config, "linger.ms", "0");
    // Some request of each transaction is refused as too early (CONCURRENT_TRANSACTIONS) and made again after this.
    // librdkafka's 100 ms would be most of the time that a transaction takes.
    default_to(&mut config, "retry.backoff.ms", "10");
    config
}

/// Whether an error says that another producer took over the transactional id.
pub(super) fn is_fenced(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let fenced = |error: &KafkaError| match error {
            KafkaError::Transaction(error) => is_fencing(error.code()),
            _ => false,
        };
        match (cause.downcast_ref::<CommitError>(), cause.downcast_ref::<CallError>()) {
            (Some(error), _) => matches!(error, CommitError::Fenced(_)),
            (_, Some(CallError::Kafka(error))) => fenced(error),
            _ => cause.downcast_ref::<KafkaError>().is_some_and(fenced),
        }
    })
}

fn is_fencing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
    )
}

fn create(config: &ClientConfig) -> Result<Arc<Inner>, KafkaError> {
    config.create_with_context(LoggingContext).map(Arc::new)
}

/// Whether librdkafka goes on with it when it is called again, or has to be given up for a new producer.
fn is_retriable(error: &CallError) -> bool {
    match error {
        CallError::Kafka(KafkaError::Transaction(error)) => error.is_retriable(),
        CallError::Kafka(_) => false,
        CallError::Stuck(..) => true,
    }
}

/// Neither committed nor to be aborted by this producer: a fatal error.
fn is_lost(error: &CallError) -> bool {
    match error {
        CallError::Kafka(KafkaError::Transaction(error)) => error.is_fatal(),
        CallError::Kafka(KafkaError::MessageProduction(code)) => *code == RDKafkaErrorCode::Fatal,
        CallError::Kafka(_) | CallError::Stuck(..) => false,
    }
}
