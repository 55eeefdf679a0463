//! Reads a topic as a member of a group, runs the handler on each record, and commits finished records.
//!
//! One loop on one thread owns the consumer, the producer and the records in flight. The handler runs in tasks of the
//! async runtime, which report back over a channel. The callbacks of librdkafka only record rebalances, which the loop
//! handles before anything else. No transaction is open while the loop polls, so a partition is never lost during one.

mod commit;
mod consumer_config;
mod reading;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::runtime::Handle;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;

use self::commit::COMMIT_LIMIT;
pub(super) use self::consumer_config::consumer_config;
use super::args::KafkaArgs;
use super::handler::{Handler, Work};
use super::in_flight::InFlight;
use super::log_changes::LogChanges;
use super::reach::Reach;
use super::rebalance::RebalanceLog;
use super::record::Record;
use super::repeats::Repeats;
use super::transaction::{TransactionalProducer, is_fenced};
use super::work_output::WorkOutput;
use super::worker_status::{Reading, WorkerStatus};
use crate::backoff::Backoff;

/// The time that the loop waits for a record before it does its other work.
const POLL: Duration = Duration::from_millis(20);
/// The interval between transactions. Records that finish in between are committed together.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// The maximum number of records that the loop reads before it does its other work.
const READ_LIMIT: usize = 1_000;
/// The time at the limit of records in flight after which the partitions are paused. Until then, the loop does not
/// poll: a pause makes librdkafka drop the fetched records, and after it the next record takes half a second.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
/// The time without a poll after which the topic may have been recreated unnoticed. It is shorter than the 500 ms for which
/// librdkafka pauses after an error of a fetch.
const UNSEEN: Duration = Duration::from_millis(400);
/// The time during which fetched records always wait, after which an idle partition is not judged: its records may be
/// among them.
const SATURATED_AFTER: Duration = Duration::from_secs(5);
/// The time limit for leaving the group.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// A member of a consumer group.
pub struct Worker<H> {
    pub kafka: KafkaArgs,
    pub topic: String,
    pub group: String,
    /// The transactional id of this instance. It must be unique among the running instances.
    pub transactional_id: String,
    /// The maximum number of records in flight. At the limit, the worker stops reading.
    pub max_in_flight: usize,
    /// The maximum size in bytes of the records in flight and their outputs. At the limit, the worker stops reading.
    pub max_in_flight_bytes: usize,
    pub handler: Arc<H>,
    pub status: WorkerStatus,
    pub shutdown: CancellationToken,
}

impl<H: Handler> Worker<H> {
    /// Runs the worker on a separate thread until the shutdown token is cancelled, then commits the finished records.
    ///
    /// # Errors
    /// Fails when the worker panics.
    pub async fn run(self) -> anyhow::Result<()> {
        let runtime = Handle::current();
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| self.run_sessions(&runtime)))
            .await
            .context("the worker panicked")?
    }

    /// Runs one session after the other. A session ends when the producer is lost, the log went back or no broker answers
    /// the consumer, and the next one begins at the committed offsets.
    fn run_sessions(self, runtime: &Handle) -> anyhow::Result<()> {
        let mut backoff = Backoff::new();
        let mut repeats = Repeats::default();
        let mut changes = LogChanges::default();
        let mut transactional_id = self.transactional_id.clone();
        while !self.shutdown.is_cancelled() {
            let started = Instant::now();
            self.status.session_begins();
            let result =
                Session::begin(&self, &transactional_id, runtime, &mut changes).and_then(Session::run);
            if self.shutdown.is_cancelled() {
                return Ok(());
            }
            let Err(error) = result else { continue };
            if started.elapsed() > self.status.patience() {
                backoff = Backoff::new();
            }
            let reason = format!("{error:#}");
            self.status.session_failed(reason.clone());
            if is_fenced(&error) {
                // Two processes with the same name would fence each other forever. A transaction that timed out while
                // this process was suspended also fences it. In this case, the new name is harmless.
                let taken = std::mem::replace(
                    &mut transactional_id,
                    format!("{}-{:08x}", self.transactional_id, rand::random::<u32>()),
                );
                tracing::warn!(
                    name = taken,
                    new_name = transactional_id,
                    reason,
                    "another process uses the name, continuing under a new one (--instance-id)"
                );
                continue;
            }
            let pause = backoff.next_pause();
            if repeats.is_due(&reason) {
                tracing::warn!(group = self.group, reason, ?pause, "consumer session failed, restarting");
            } else {
                tracing::debug!(group = self.group, reason, ?pause, "consumer session failed, restarting");
            }
            runtime.block_on(async {
                tokio::select! {
                    () = self.shutdown.cancelled() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            });
        }
        Ok(())
    }
}

/// The report of a task that its record is processed.
struct Completion {
    partition: i32,
    epoch: u64,
    offset: i64,
    output: Option<WorkOutput>,
}

/// The outcome of an attempt to commit after which the session continues.
enum Outcome {
    /// The finished records were committed or their outputs replaced, or there were none.
    Progressed,
    /// A full transaction was committed, and more records are finished.
    Limited,
    /// The finished records are still in flight and will be committed later.
    Aborted,
}

/// The state that the tasks of all records share, which keeps each task small.
struct Shared<H> {
    work: Work<H>,
    done: Sender<Completion>,
}

struct Session<'a, H> {
    worker: &'a Worker<H>,
    topic: Arc<str>,
    shared: Arc<Shared<H>>,
    runtime: &'a Handle,
    consumer: BaseConsumer<RebalanceLog>,
    producer: TransactionalProducer,
    in_flight: InFlight<DropGuard>,
    changes: &'a mut LogChanges,
    done: Receiver<Completion>,
    /// The maximum number of records in the next transaction.
    commit_limit: usize,
    paused: bool,
    /// Since when the limit of records in flight has been reached.
    full_since: Option<Instant>,
    polled: Instant,
    /// The last time at which no fetched record was waiting.
    drained: Instant,
    reach: Reach,
    /// Why this client cannot read all partitions any more. The session reads nothing, and ends when no record is in flight.
    ending: Option<String>,
    repeats: Repeats,
}

impl<'a, H: Handler> Session<'a, H> {
    fn begin(
        worker: &'a Worker<H>,
        transactional_id: &str,
        runtime: &'a Handle,
        changes: &'a mut LogChanges,
    ) -> anyhow::Result<Self> {
        // The producer comes first: it ends the transaction that a predecessor left open, which the committed offsets
        // depend on.
        let producer = runtime.block_on(TransactionalProducer::new(
            &worker.kafka,
            transactional_id,
            worker.shutdown.clone(),
        ))?;
        let consumer: BaseConsumer<RebalanceLog> = consumer_config(&worker.kafka, &worker.group)
            .create_with_context(RebalanceLog::default())
            .context("cannot set up a Kafka consumer; see --kafka-property (KAFKA_PROPERTIES)")?;
        consumer.subscribe(&[&worker.topic]).context("cannot subscribe")?;
        let work = Work {
            handler: Arc::clone(&worker.handler),
            group: worker.group.clone(),
            status: worker.status.clone(),
        };
        let (sender, done) = mpsc::channel();
        Ok(Self {
            worker,
            topic: worker.topic.as_str().into(),
            shared: Arc::new(Shared { work, done: sender }),
            runtime,
            consumer,
            producer,
            in_flight: InFlight::new(Instant::now()),
            changes,
            done,
            commit_limit: COMMIT_LIMIT,
            paused: false,
            full_since: None,
            polled: Instant::now(),
            drained: Instant::now(),
            reach: Reach::default(),
            ending: None,
            repeats: Repeats::default(),
        })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let result = self.work();
        self.leave();
        result
    }

    fn work(&mut self) -> anyhow::Result<()> {
        let mut commit_at = Instant::now();
        let mut backoff = Backoff::new();
        while !self.worker.shutdown.is_cancelled() {
            if self.is_full() && !self.paused {
                self.await_completion();
            } else {
                self.read()?;
            }
            self.collect();
            let began = Instant::now();
            if began >= commit_at {
                let pause = match self.commit()? {
                    Outcome::Progressed => {
                        backoff = Backoff::new();
                        COMMIT_INTERVAL
                    }
                    Outcome::Limited => {
                        backoff = Backoff::new();
                        Duration::ZERO
                    }
                    Outcome::Aborted => began.elapsed() + backoff.next_pause(),
                };
                commit_at = began + pause;
            }
            self.end_when_empty()?;
            self.pause_or_resume()?;
            self.observe();
        }
        self.collect();
        self.commit().map(drop)
    }

    /// Leaves the group and closes the clients on a separate thread. While the brokers are unavailable, this takes
    /// long, and the end of the process need not wait for it.
    fn leave(self) {
        let Self { consumer, producer, .. } = self;
        let (left, closed) = mpsc::channel();
        std::thread::spawn(move || {
            // Leave the group first.
            drop(consumer);
            drop(producer);
            // The receiver may have timed out.
            let _ = left.send(());
        });
        if closed.recv_timeout(LEAVE_TIMEOUT).is_err() {
            tracing::warn!(
                group = self.worker.group,
                "the brokers do not respond, ending without leaving the group"
            );
        }
    }

    fn read(&mut self) -> anyhow::Result<()> {
        if self.polled.elapsed() >= UNSEEN {
            self.in_flight.idle(Instant::now());
        }
        let mut wait = POLL;
        for _ in 0..READ_LIMIT {
            let polled = self
                .consumer
                .poll(wait)
                .map(|result| result.map(|message| Record::read(&message, &self.topic)));
            // A rebalance that the poll handled precedes the record that it returned.
            self.handle_rebalances()?;
            match polled {
                None => {
                    self.drained = Instant::now();
                    self.in_flight.idle(self.drained);
                    break;
                }
                Some(Ok(record)) => self.receive(record)?,
                Some(Err(error)) => self.tolerate(error)?,
            }
            if self.is_full() {
                break;
            }
            wait = Duration::ZERO;
        }
        self.polled = Instant::now();
        Ok(())
    }

    fn start(&self, record: Record, epoch: u64, token: CancellationToken) {
        self.worker.status.metrics.read.inc();
        let shared = Arc::clone(&self.shared);
        let task = async move {
            let Shared { work, done } = &*shared;
            let handled = work.process(&record).await;
            let Record { partition, offset, .. } = record;
            let output = WorkOutput::of(record, handled, &work.group);
            // The session may have ended.
            let _ = done.send(Completion { partition, epoch, offset, output });
        };
        // Not an async function, which would store the record twice. There may be 100,000 of these tasks.
        self.runtime.spawn(task.in_current_span().with_cancellation_token_owned(token));
    }

    fn await_completion(&mut self) {
        if let Ok(Completion { partition, epoch, offset, output }) = self.done.recv_timeout(POLL) {
            self.in_flight.complete(partition, epoch, offset, output);
        }
    }

    fn collect(&mut self) {
        for Completion { partition, epoch, offset, output } in self.done.try_iter() {
            self.in_flight.complete(partition, epoch, offset, output);
        }
    }

    fn pause_or_resume(&mut self) -> anyhow::Result<()> {
        let drained = self.in_flight.len() <= self.worker.max_in_flight / 2
            && self.in_flight.bytes() <= self.worker.max_in_flight_bytes / 2;
        if !self.is_full() {
            self.full_since = None;
        } else if self.full_since.get_or_insert_with(Instant::now).elapsed() >= PAUSE_AFTER && !self.paused {
            self.consumer
                .pause(&self.list_of(&self.in_flight.partitions()))
                .context("cannot pause the partitions")?;
            self.paused = true;
        }
        if drained && self.paused && self.ending.is_none() {
            self.consumer
                .resume(&self.list_of(&self.in_flight.partitions()))
                .context("cannot resume the partitions")?;
            self.paused = false;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.ending.is_some()
            || self.in_flight.len() >= self.worker.max_in_flight
            || self.in_flight.bytes() >= self.worker.max_in_flight_bytes
    }

    fn list_of(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.worker.topic, partition);
        }
        list
    }

    fn observe(&self) {
        let reading = Reading {
            assigned: self.in_flight.partitions(),
            idle: self.in_flight.idle_partitions(),
            is_saturated: self.paused || self.drained.elapsed() >= SATURATED_AFTER,
        };
        self.worker.status.observe(reading, self.in_flight.len(), self.in_flight.oldest());
    }
}
