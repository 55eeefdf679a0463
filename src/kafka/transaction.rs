//! Writes records and the progress of a group to Kafka in a single transaction. The platform writes in no other way.

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
use super::reach::CUT_OFF;
use super::record::OutgoingRecord;
use super::repeats::Repeats;
use crate::backoff::Backoff;

/// The timeout of a transaction, which normally takes milliseconds. A transaction that a killed process left open
/// blocks readers until the process restarts under the same name, or until this timeout.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(20);

/// The size limit of a record in the producer, which exceeds the limits of brokers.
const MESSAGE_MAX_BYTES: &str = "100000000";

/// The time limit of a commit, which exceeds the transaction timeout.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest pause between two attempts to finish a commit.
const COMMIT_PAUSE: Duration = Duration::from_millis(500);
/// The time that a tool waits for the brokers. It is limited, because an operator waits for the tool.
const TOOL_PATIENCE: Duration = Duration::from_secs(60);

/// The reason why a transaction did not commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The transaction was aborted or never began, so none of its records will ever be visible. It can be retried
    /// unchanged.
    #[error("the transaction was aborted: {0}")]
    Aborted(CallError),
    /// The transaction was aborted, because the brokers refuse some of its records. It can be retried unchanged: the next
    /// transaction sends each record alone, which identifies them.
    #[error("the brokers refuse some of its records: {0}")]
    RefusedSome(CallError),
    /// The transaction was aborted, and the brokers will never accept exactly these records. It can commit without
    /// them.
    #[error("the brokers refuse {} of its records: {}", .0.len(), describe(.0))]
    Refused(Vec<Refusal>),
    /// Another producer took over the transactional id. The outcome of the transaction is unknown.
    #[error("another producer uses the transactional id: {0}")]
    Fenced(CallError),
    /// The outcome of the transaction is unknown. A new producer must query the cluster for the committed offsets.
    #[error("the outcome of the transaction is unknown: {0}")]
    Unknown(CallError),
}

fn describe(refusals: &[Refusal]) -> String {
    refusals.first().map(|refusal| refusal.code.to_string()).unwrap_or_default()
}

/// A producer with a transactional id.
///
/// After a transaction that was aborted, after no broker answered it, and after one that sent each record alone, it takes the id over again, even from
/// an instance that took it over in the meantime. [`TransactionalProducer::takeovers`] reveals this. Unless the
/// generation of a group protects a transaction, its caller must therefore find out after a takeover whether the
/// transaction is still due.
pub struct TransactionalProducer {
    config: ClientConfig,
    /// Sends records alone from a refusal until a transaction commits.
    producer: Producer,
    takeovers: u64,
    /// The time to wait for the brokers before the first transaction.
    patience: Duration,
    shutdown: CancellationToken,
}

impl TransactionalProducer {
    /// Creates a producer, fences any earlier producer with the same id, and ends the transaction that it left open.
    /// Waits for the brokers without a time limit until `shutdown`.
    ///
    /// # Errors
    /// Fails when a setting is invalid, the brokers refuse, or on `shutdown`.
    pub async fn new(
        kafka: &KafkaArgs,
        transactional_id: &str,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::within(kafka, transactional_id, Duration::MAX, shutdown).await
    }

    /// Creates a producer as [`Self::new`] does, but gives up after a minute. The producer has no shutdown token.
    ///
    /// # Errors
    /// Fails as [`Self::new`] does, and when the brokers do not respond.
    pub async fn of_tool(kafka: &KafkaArgs, transactional_id: &str) -> anyhow::Result<Self> {
        Self::within(kafka, transactional_id, TOOL_PATIENCE, CancellationToken::new()).await
    }

    /// Creates a producer as [`Self::new`] does, but makes no further attempt to connect after `patience`.
    ///
    /// # Errors
    /// Fails as [`Self::new`] does, and when the brokers do not respond.
    pub async fn within(
        kafka: &KafkaArgs,
        transactional_id: &str,
        patience: Duration,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let config = producer_config(kafka, transactional_id);
        let producer = Producer::new(&config, Batching::Together, shutdown.clone())
            .context("cannot set up a Kafka producer; see --kafka-property (KAFKA_PROPERTIES)")?;
        let mut producer = Self { config, producer, takeovers: 0, patience, shutdown };
        producer.begin().await.context("cannot initialize transactions")?;
        Ok(producer)
    }

    /// Returns how often the producer took over its id.
    pub fn takeovers(&self) -> u64 {
        self.takeovers
    }

    async fn begin(&mut self) -> Result<(), CallError> {
        self.takeovers += 1;
        let mut backoff = Backoff::new();
        let mut repeats = Repeats::default();
        let started = Instant::now();
        let mut connected = started;
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
                    if repeats.is_due(&error.to_string()) {
                        tracing::warn!(%error, "initializing transactions failed, will retry");
                    }
                    let may_be_cut_off =
                        connected.elapsed() >= CUT_OFF && self.producer.take_lost_all_brokers();
                    if may_be_cut_off || matches!(error, CallError::Stuck(..)) {
                        self.replace(self.producer.batching)?;
                        connected = Instant::now();
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

    /// Replaces the producer by a new one that takes over the id. A transaction that the old one left open is aborted.
    /// A transaction whose outcome is unknown has either committed or aborted when this returns.
    ///
    /// `abort_transaction` would lose records of the next transaction. librdkafka gives them the sequence numbers of
    /// records that it had sent and, before a response arrived, queued to send again. A broker that has these records
    /// takes the new ones for duplicates and acknowledges them (`rd_kafka_toppar_purge_queues` in librdkafka 2.12). A
    /// new producer has a new epoch, in which the sequence numbers start over.
    ///
    /// # Errors
    /// Fails as [`Self::new`] does.
    pub(super) async fn restart(&mut self) -> Result<(), CallError> {
        self.restart_with(self.producer.batching).await
    }

    async fn restart_with(&mut self, batching: Batching) -> Result<(), CallError> {
        self.replace(batching)?;
        self.begin().await
    }

    fn replace(&mut self, batching: Batching) -> Result<(), KafkaError> {
        self.producer = Producer::new(&self.config, batching, self.shutdown.clone())?;
        Ok(())
    }

    /// Writes `records` and moves the `progress` of the group, both or neither.
    ///
    /// The transaction is aborted when `group` no longer describes the current state of the group (KIP-447).
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
        let mut records = records.into_iter().peekable();
        let topic =
            records.peek().map(|record| &record.topic).or(consumed.map(|(progress, _)| &progress.topic));
        if let Some(topic) = topic
            && let Err(error) = self.producer.prove_reach(topic).await
        {
            tracing::debug!(%error, "no broker answers the producer, replacing it");
            self.restart().await.map_err(|error| self.outcome_unknown(error))?;
            return Err(CommitError::Aborted(error));
        }
        if let Err(error) = self.prepare(records, consumed).await {
            // There is no time to abort during the shutdown. The successor does it when it takes over the id.
            if self.is_lost(&error) || self.shutdown.is_cancelled() {
                return Err(self.outcome_unknown(error));
            }
            let refused = self.producer.refused(&error).await;
            let batching = self.producer.batching;
            let next = if refused.is_empty() { batching } else { Batching::Alone };
            self.restart_with(next).await.map_err(|error| self.outcome_unknown(error))?;
            return Err(match batching {
                _ if refused.is_empty() => CommitError::Aborted(error),
                Batching::Together => CommitError::RefusedSome(error),
                Batching::Alone => CommitError::Refused(refused),
            });
        }
        // From here on, the brokers may have committed it, even when librdkafka reports that it must be aborted.
        self.end().await.map_err(|error| self.outcome_unknown(error))?;
        if self.producer.batching == Batching::Alone && !self.shutdown.is_cancelled() {
            self.restart_with(Batching::Together).await.map_err(|error| self.outcome_unknown(error))?;
        }
        Ok(())
    }

    /// Commits the prepared transaction. Another call makes librdkafka continue a commit that it could not finish.
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
                    tracing::debug!(%error, "the commit did not finish, will retry");
                    sleep(backoff.next_pause().min(COMMIT_PAUSE)).await;
                }
                result => return result,
            }
        }
    }

    /// Returns whether the producer failed permanently, as it does when a newer producer has the same id.
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

    /// Prepares a transaction up to its commit. No record can become visible before the commit is requested.
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
        // The brokers limit the size of a record. A limit here would block the partition instead.
        .set("message.max.bytes", MESSAGE_MAX_BYTES);
    default_to(&mut config, "linger.ms", "0");
    // The brokers refuse some request of each transaction as too early (CONCURRENT_TRANSACTIONS), and librdkafka
    // retries it after this time. The default of 100 ms would dominate the duration of a transaction.
    default_to(&mut config, "retry.backoff.ms", "10");
    config
}

/// Returns whether an error means that another producer took over the transactional id.
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

/// Returns whether a retry can succeed, either with the same producer or, after a stuck call, with a new one.
fn is_retriable(error: &CallError) -> bool {
    match error {
        CallError::Kafka(KafkaError::Transaction(error)) => error.is_retriable(),
        CallError::Kafka(_) => false,
        CallError::Stuck(..) => true,
    }
}
