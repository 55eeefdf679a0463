//! The one way to write to Kafka: records, and progress if there is any, in a single transaction.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::{LoggingContext, client_config};
use super::record::OutgoingRecord;
use crate::backoff::Backoff;

/// A transaction here takes milliseconds. One that a killed process left open holds its readers back until the
/// process returns under its name, or for this long.
const TRANSACTION_TIMEOUT_MS: &str = "20000";

/// More than the brokers take.
const MESSAGE_MAX_BYTES: &str = "100000000";

/// Longer than the brokers let a transaction stay open.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);
const DELIVERY_PAUSE: Duration = Duration::from_millis(1);
/// The thread sleeps through a shutdown for so long at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// For each call on the way out.
const LAST_CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// The next offset to read, for each partition of one topic that moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub topic: String,
    /// Partition and offset.
    pub next: Vec<(i32, i64)>,
}

impl Progress {
    fn as_list(&self) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(self.next.len());
        for &(partition, offset) in &self.next {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        Ok(list)
    }
}

/// Why a transaction did not commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It was aborted, so nothing of it will ever be seen: it can be tried again as it was.
    #[error("the transaction was aborted: {0}")]
    Aborted(KafkaError),
    /// Its outcome is unknown, or the producer was fenced: make a new producer and ask the cluster what was
    /// committed.
    #[error("the producer is lost: {0}")]
    Lost(KafkaError),
}

/// A producer with a transactional id. Every call blocks.
pub struct TransactionalProducer {
    config: ClientConfig,
    producer: ThreadedProducer<LoggingContext>,
    shutdown: CancellationToken,
}

impl TransactionalProducer {
    /// Fences any earlier producer of the same id, and ends the transaction that it left open. Waits for the
    /// brokers as long as it takes, or until `shutdown`.
    ///
    /// # Errors
    /// When a setting is wrong, the brokers refuse, or on `shutdown`.
    pub fn new(
        kafka: &KafkaArgs,
        transactional_id: &str,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let mut config = client_config(kafka);
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
            .set("linger.ms", "0")
            // The brokers judge how large a record may be: to refuse one here would only stop the line.
            .set("message.max.bytes", MESSAGE_MAX_BYTES);
        let producer = create(&config).context("cannot set up a Kafka producer; see --kafka-property")?;
        let producer = Self { config, producer, shutdown };
        producer.begin().context("cannot begin transactions")?;
        Ok(producer)
    }

    fn begin(&self) -> Result<(), KafkaError> {
        let mut backoff = Backoff::new();
        loop {
            match self.producer.init_transactions(self.call_timeout()) {
                // Called again, it goes on with what it waited for.
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && !self.shutdown.is_cancelled() =>
                {
                    tracing::warn!(%error, "waiting for the brokers to begin transactions");
                    pause(backoff.next_pause().min(LONGEST_PAUSE));
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
    fn abort(&mut self) -> Result<(), KafkaError> {
        let abandoned = std::mem::replace(&mut self.producer, create(&self.config)?);
        // With the brokers away librdkafka takes its time to close.
        std::thread::spawn(move || drop(abandoned));
        self.begin()
    }

    /// Writes `records` and moves `progress` of the group, both or neither.
    ///
    /// A group that is no longer the one `group` describes (KIP-447) aborts it.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a OutgoingRecord>,
        progress: &Progress,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), CommitError> {
        self.transact(records, Some((progress, group)))
    }

    /// Writes `records`, all or none.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn publish<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a OutgoingRecord>,
    ) -> Result<(), CommitError> {
        self.transact(records, None)
    }

    fn transact<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a OutgoingRecord>,
        consumed: Option<(&Progress, &ConsumerGroupMetadata)>,
    ) -> Result<(), CommitError> {
        if let Err(error) = self.prepare(records, consumed) {
            // On the way out there is no time to abort: the successor does it when it takes over the id.
            if is_lost(&error) || self.shutdown.is_cancelled() {
                return Err(CommitError::Lost(error));
            }
            return match self.abort() {
                Ok(()) => Err(CommitError::Aborted(error)),
                Err(abort_error) => Err(CommitError::Lost(abort_error)),
            };
        }
        // From here on the brokers may have committed it, even when librdkafka says that it has to be aborted.
        self.producer.commit_transaction(COMMIT_TIMEOUT).map_err(CommitError::Lost)
    }

    /// Everything but the commit: until that is asked for nothing can become visible.
    fn prepare<'a>(
        &self,
        records: impl IntoIterator<Item = &'a OutgoingRecord>,
        consumed: Option<(&Progress, &ConsumerGroupMetadata)>,
    ) -> Result<(), KafkaError> {
        self.producer.begin_transaction()?;
        for record in records {
            self.enqueue(record)?;
        }
        if let Some((progress, group)) = consumed {
            // Tried once: taken up again after a timeout, librdkafka's call may never return (seen with 2.12).
            self.producer.send_offsets_to_transaction(&progress.as_list()?, group, self.call_timeout())?;
        }
        self.await_deliveries();
        Ok(())
    }

    fn enqueue(&self, record: &OutgoingRecord) -> Result<(), KafkaError> {
        loop {
            match self.producer.send(record.as_base_record()) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                    if !self.shutdown.is_cancelled() =>
                {
                    pause(QUEUE_FULL_PAUSE);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits, for a while, until the brokers have all records. The commit would wait for them too, but looks only
    /// every 100 ms (`BaseProducer::flush`).
    fn await_deliveries(&self) {
        let until = Instant::now() + self.call_timeout();
        while self.producer.in_flight_count() > 0 && Instant::now() < until {
            pause(DELIVERY_PAUSE);
        }
    }

    fn call_timeout(&self) -> Duration {
        if self.shutdown.is_cancelled() { LAST_CALL_TIMEOUT } else { CALL_TIMEOUT }
    }
}

#[expect(clippy::disallowed_methods, reason = "librdkafka's queues and coordinators cannot be awaited")]
fn pause(pause: Duration) {
    std::thread::sleep(pause);
}

fn create(config: &ClientConfig) -> Result<ThreadedProducer<LoggingContext>, KafkaError> {
    config.create_with_context(LoggingContext)
}

/// Neither committed nor to be aborted by this producer: a fatal error, or a call given up half-way on shutdown.
fn is_lost(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_fatal() || !error.txn_requires_abort(),
        KafkaError::MessageProduction(code) => *code == RDKafkaErrorCode::Fatal,
        _ => false,
    }
}
