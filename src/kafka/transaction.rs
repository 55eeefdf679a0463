//! The one way to write to Kafka: records, and progress if there is any, in a single transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::{client_config, default_to};
use super::delivery::Refusal;
use super::producer::{Batching, CallError, LAST_CALL_TIMEOUT, Producer};
use super::progress::Progress;
use super::record::OutgoingRecord;
use crate::backoff::Backoff;

/// A transaction here takes milliseconds. One that a killed process left open holds its readers back until the
/// process returns under its name, or for this long.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(20);

/// More than the brokers take.
const MESSAGE_MAX_BYTES: &str = "100000000";

/// Longer than the brokers let a transaction stay open.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest pause between two attempts to finish a commit.
const COMMIT_PAUSE: Duration = Duration::from_millis(500);
/// How long a tool waits for the brokers to begin: somebody sits before it.
const TOOL_PATIENCE: Duration = Duration::from_secs(60);

/// Why a transaction did not commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It was aborted, so nothing of it will ever be seen: it can be tried again as it was.
    #[error("the transaction was aborted: {0}")]
    Aborted(CallError),
    /// It was aborted, and the brokers will never take these records: exactly these, so that it can commit without them.
    #[error("the brokers refuse {} of its records: {}", .0.len(), describe(.0))]
    Refused(Vec<Refusal>),
    /// Another producer took over the transactional id. Its outcome is unknown.
    #[error("another producer uses the transactional id: {0}")]
    Fenced(CallError),
    /// Its outcome is unknown: make a new producer and ask the cluster what was committed.
    #[error("the outcome of the transaction is unknown: {0}")]
    Unknown(CallError),
}

fn describe(refusals: &[Refusal]) -> String {
    refusals.first().map(|refusal| refusal.code.to_string()).unwrap_or_default()
}

/// A producer with a transactional id.
pub struct TransactionalProducer {
    config: ClientConfig,
    producer: Producer,
    /// How the next transaction is sent: [`Batching::Alone`] from a refusal until a transaction commits.
    batching: Batching,
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
        let batching = Batching::Together;
        let producer = Producer::new(&config, batching, shutdown.clone())
            .context("cannot set up a Kafka producer; see --kafka-property")?;
        let mut producer = Self { config, producer, batching, patience, shutdown };
        producer.begin().await.context("cannot begin transactions")?;
        Ok(producer)
    }

    async fn begin(&mut self) -> Result<(), CallError> {
        let mut backoff = Backoff::new();
        let started = Instant::now();
        loop {
            let timeout = self.call_timeout();
            let begun = self
                .producer
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

    /// Begins again with a new producer that takes over the id. A transaction that the old one left open is aborted; one
    /// whose outcome is unknown has ended, one way or the other, when this returns.
    ///
    /// `abort_transaction` would lose records of the next transaction: librdkafka gives them the sequence numbers of
    /// records that it had sent and, with no answer yet, queued to send again. A broker that has those takes the new
    /// ones for duplicates, and says that they are written (`rd_kafka_toppar_purge_queues` in librdkafka 2.12). A new
    /// producer has a new epoch, in which the numbers begin again.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) async fn restart(&mut self) -> Result<(), CallError> {
        self.replace()?;
        self.begin().await
    }

    fn replace(&mut self) -> Result<(), KafkaError> {
        self.producer = Producer::new(&self.config, self.batching, self.shutdown.clone())?;
        Ok(())
    }

    /// Writes `records` and moves `progress` of the group, both or neither.
    ///
    /// A group that is no longer the one `group` describes (KIP-447) aborts it.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a OutgoingRecord> + Clone,
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
        records: impl IntoIterator<Item = &'a OutgoingRecord> + Clone,
    ) -> Result<(), CommitError> {
        self.transact(records, None).await
    }

    async fn transact<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a OutgoingRecord> + Clone,
        consumed: Option<(&Progress, &Arc<ConsumerGroupMetadata>)>,
    ) -> Result<(), CommitError> {
        if self.producer.batching != self.batching {
            self.restart().await.map_err(|error| self.outcome_unknown(error))?;
        }
        while let Err(error) = self.prepare(records.clone(), consumed).await {
            // On the way out there is no time to abort: the successor does it when it takes over the id.
            if self.is_lost(&error) || self.shutdown.is_cancelled() {
                return Err(self.outcome_unknown(error));
            }
            let refused = self.producer.refused(&error).await;
            let are_exact = self.producer.batching == Batching::Alone;
            if !refused.is_empty() {
                self.batching = Batching::Alone;
            }
            self.restart().await.map_err(|error| self.outcome_unknown(error))?;
            if refused.is_empty() {
                return Err(CommitError::Aborted(error));
            }
            if are_exact {
                return Err(CommitError::Refused(refused));
            }
            tracing::debug!(%error, "some records are refused, sending each alone to find out which");
        }
        // From here on the brokers may have committed it, even when librdkafka says that it has to be aborted.
        self.end().await.map_err(|error| self.outcome_unknown(error))?;
        self.batching = Batching::Together;
        Ok(())
    }

    /// Commits the transaction that was prepared. librdkafka goes on with a commit that it was not able to finish when
    /// it is called again.
    async fn end(&self) -> Result<(), CallError> {
        let began = Instant::now();
        let mut backoff = Backoff::new();
        loop {
            let left = COMMIT_TIMEOUT.saturating_sub(began.elapsed());
            let committed = self
                .producer
                .call("commit_transaction", left, move |producer| producer.commit_transaction(left))
                .await;
            match committed {
                Err(CallError::Kafka(KafkaError::Transaction(error)))
                    if error.is_retriable()
                        && !self.shutdown.is_cancelled()
                        && began.elapsed() < COMMIT_TIMEOUT =>
                {
                    tracing::debug!(%error, "the commit is not finished, going on with it");
                    sleep(backoff.next_pause().min(COMMIT_PAUSE)).await;
                }
                result => return result,
            }
        }
    }

    /// Whether the producer failed for good, which is how a newer one of the same id shows.
    fn is_lost(&self, error: &CallError) -> bool {
        let is_fatal = match error {
            CallError::Kafka(KafkaError::Transaction(error)) => error.is_fatal(),
            CallError::Kafka(KafkaError::MessageProduction(code)) => *code == RDKafkaErrorCode::Fatal,
            CallError::Kafka(_) | CallError::Stuck(..) => false,
        };
        is_fatal || self.producer.fatal_error().is_some()
    }

    fn outcome_unknown(&self, error: CallError) -> CommitError {
        let code = match &error {
            CallError::Kafka(KafkaError::Transaction(error)) => Some(error.code()),
            _ => None,
        };
        if code.into_iter().chain(self.producer.fatal_error()).any(is_fencing) {
            CommitError::Fenced(error)
        } else {
            CommitError::Unknown(error)
        }
    }

    /// Everything but the commit: until that is asked for nothing can become visible.
    async fn prepare<'a>(
        &self,
        records: impl IntoIterator<Item = &'a OutgoingRecord>,
        consumed: Option<(&Progress, &Arc<ConsumerGroupMetadata>)>,
    ) -> Result<(), CallError> {
        self.producer.begin_transaction()?;
        for (index, record) in records.into_iter().enumerate() {
            self.producer.enqueue(index, record).await?;
        }
        if let Some((progress, group)) = consumed {
            let (offsets, group, timeout) = (progress.as_list()?, Arc::clone(group), self.call_timeout());
            self.producer
                .call("send_offsets_to_transaction", timeout, move |producer| {
                    producer.send_offsets_to_transaction(&offsets, &group, timeout)
                })
                .await?;
        }
        self.producer.await_deliveries().await
    }

    fn call_timeout(&self) -> Duration {
        if self.shutdown.is_cancelled() { LAST_CALL_TIMEOUT } else { CALL_TIMEOUT }
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

/// Whether librdkafka goes on with it when it is called again, or has to be given up for a new producer.
fn is_retriable(error: &CallError) -> bool {
    match error {
        CallError::Kafka(KafkaError::Transaction(error)) => error.is_retriable(),
        CallError::Kafka(_) => false,
        CallError::Stuck(..) => true,
    }
}
