//! Reads a topic as a member of a group, has the work done on each record, and commits what is finished.
//!
//! One loop on one thread owns the consumer, the producer and what is in flight; the work itself runs as tasks of
//! the async runtime and reports back over a channel. Nothing happens inside librdkafka's callbacks but taking a
//! note of a rebalance, which the loop handles before anything else. No transaction is open while the loop polls,
//! so a partition is never lost half-way through one.

mod commit;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::runtime::Handle;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument as _, Span};

use self::commit::COMMIT_LIMIT;
use super::args::KafkaArgs;
use super::client::client_config;
use super::handler::{Handler, Work};
use super::in_flight::InFlight;
use super::output::Output;
use super::rebalance::{RebalanceEvent, RebalanceLog};
use super::record::Record;
use super::transaction::TransactionalProducer;
use crate::backoff::Backoff;

/// How long the loop waits for a record before it looks at what else there is to do.
const POLL: Duration = Duration::from_millis(20);
/// Work that finishes within this time is committed together.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// Records read in a row before the loop looks at what else there is to do.
const READ_LIMIT: usize = 1_000;
/// How long it may take to leave the group.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What a worker counts.
#[derive(Clone, Debug, Default)]
pub struct WorkerMetrics {
    read: Counter,
    committed: Counter,
    dead_letters: Counter,
    in_flight: Gauge,
    partitions: Gauge,
}

impl WorkerMetrics {
    /// Metrics that are part of `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "records_read",
            "Records taken in; again those whose partition was lost before they were committed",
            metrics.read.clone(),
        );
        registry.register(
            "records_committed",
            "Records read, worked on and committed",
            metrics.committed.clone(),
        );
        registry.register(
            "dead_letters",
            "Records sent to the dead-letter topic",
            metrics.dead_letters.clone(),
        );
        registry.register(
            "records_in_flight",
            "Records read and not yet committed",
            metrics.in_flight.clone(),
        );
        registry.register(
            "partitions_assigned",
            "Partitions read by this instance",
            metrics.partitions.clone(),
        );
        metrics
    }
}

/// A member of a consumer group.
pub struct Worker<H> {
    pub kafka: KafkaArgs,
    pub topic: String,
    pub group: String,
    pub transactional_id: String,
    /// Records held at most; beyond it the partitions are paused.
    pub max_in_flight: usize,
    pub handler: Arc<H>,
    pub metrics: WorkerMetrics,
    pub shutdown: CancellationToken,
}

impl<H: Handler> Worker<H> {
    /// Works until the shutdown is cancelled, on a thread of its own. On the way out finished work is committed.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn run(self) -> anyhow::Result<()> {
        let runtime = Handle::current();
        let span = Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| self.run_sessions(&runtime)))
            .await
            .context("the worker panicked")?
    }

    /// A session ends when the producer is lost; the next begins from what the cluster holds as committed.
    fn run_sessions(self, runtime: &Handle) -> anyhow::Result<()> {
        let mut backoff = Backoff::new();
        while !self.shutdown.is_cancelled() {
            let started = Instant::now();
            let result = Session::begin(&self, runtime).and_then(Session::run);
            if self.shutdown.is_cancelled() {
                return Ok(());
            }
            if started.elapsed() > Duration::from_secs(60) {
                backoff = Backoff::new();
            }
            if let Err(error) = result {
                let pause = backoff.next_pause();
                tracing::warn!(group = self.group, error = format!("{error:#}"), ?pause, "starting over");
                runtime.block_on(async {
                    tokio::select! {
                        () = self.shutdown.cancelled() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                });
            }
        }
        Ok(())
    }
}

/// The task of a record reports here.
struct Completion {
    partition: i32,
    epoch: u64,
    offset: i64,
    output: Option<Output>,
}

/// How an attempt to commit ended, with the session going on.
enum Outcome {
    Settled,
    /// What is finished is still in flight, and is committed later.
    Aborted,
}

struct Session<'a, H> {
    worker: &'a Worker<H>,
    /// Shared by the tasks of all records, so that each of them is small.
    work: Arc<Work<H>>,
    runtime: &'a Handle,
    consumer: BaseConsumer<RebalanceLog>,
    producer: TransactionalProducer,
    in_flight: InFlight<DropGuard>,
    done: (Sender<Completion>, Receiver<Completion>),
    /// Records committed in the next transaction at most.
    commit_limit: usize,
    paused: bool,
}

impl<'a, H: Handler> Session<'a, H> {
    fn begin(worker: &'a Worker<H>, runtime: &'a Handle) -> anyhow::Result<Self> {
        // First the producer: it settles what a predecessor left open, on which the committed offsets depend.
        let producer = runtime.block_on(TransactionalProducer::new(
            &worker.kafka,
            &worker.transactional_id,
            worker.shutdown.clone(),
        ))?;
        let consumer: BaseConsumer<RebalanceLog> = client_config(&worker.kafka)
            .set("group.id", &worker.group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "10000")
            // A topic that is created while the group waits for it is seen this soon.
            .set("topic.metadata.refresh.fast.interval.ms", "250")
            .set("queued.max.messages.kbytes", "16384")
            .create_with_context(RebalanceLog::default())
            .context("cannot set up a Kafka consumer; see --kafka-property")?;
        consumer.subscribe(&[&worker.topic]).context("cannot subscribe")?;
        let work = Arc::new(Work {
            handler: Arc::clone(&worker.handler),
            group: worker.group.clone(),
            dead_letters: worker.metrics.dead_letters.clone(),
        });
        Ok(Self {
            worker,
            work,
            runtime,
            consumer,
            producer,
            in_flight: InFlight::new(),
            done: mpsc::channel(),
            commit_limit: COMMIT_LIMIT,
            paused: false,
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
            self.read()?;
            self.collect();
            if Instant::now() >= commit_at {
                let pause = match self.commit()? {
                    Outcome::Settled => {
                        backoff = Backoff::new();
                        COMMIT_INTERVAL
                    }
                    Outcome::Aborted => backoff.next_pause(),
                };
                commit_at = Instant::now() + pause;
            }
            self.pause_or_resume()?;
            self.observe();
        }
        self.collect();
        self.commit().map(drop)
    }

    /// Leaves the group and closes the clients, on a thread of its own: with the brokers away librdkafka takes
    /// its time, for which a process that ends need not wait.
    fn leave(self) {
        let Self { consumer, producer, .. } = self;
        let (left, closed) = mpsc::channel();
        std::thread::spawn(move || {
            // A member leaves its group first.
            drop(consumer);
            drop(producer);
            // Nobody may be waiting any more.
            let _ = left.send(());
        });
        if closed.recv_timeout(LEAVE_TIMEOUT).is_err() {
            tracing::warn!(
                group = self.worker.group,
                "the brokers do not answer, so the group is left without a word"
            );
        }
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let mut wait = POLL;
        for _ in 0..READ_LIMIT {
            let polled = self.consumer.poll(wait).map(|result| result.map(|message| Record::from(&message)));
            // A rebalance that the poll served comes before the record that it returned.
            self.handle_rebalances();
            match polled {
                None => break,
                Some(Ok(record)) => self.start(record),
                Some(Err(error)) => self.tolerate(error)?,
            }
            if self.is_full() {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn handle_rebalances(&mut self) {
        for event in self.consumer.context().take() {
            match event {
                RebalanceEvent::Assigned(partitions) => {
                    for &partition in &partitions {
                        self.in_flight.assign(partition, CancellationToken::new().drop_guard());
                    }
                    self.align(&partitions);
                    tracing::info!(group = self.worker.group, ?partitions, "partitions assigned");
                }
                RebalanceEvent::Revoked(partitions) => {
                    let dropped: usize =
                        partitions.iter().map(|&partition| self.in_flight.revoke(partition)).sum();
                    tracing::info!(group = self.worker.group, ?partitions, dropped, "partitions revoked");
                }
                RebalanceEvent::Failed(error) => {
                    tracing::warn!(group = self.worker.group, %error, "rebalance failed");
                }
            }
        }
    }

    fn start(&mut self, record: Record) {
        let (partition, offset) = (record.partition, record.offset);
        let Some((epoch, guard)) = self.in_flight.admit(partition, offset) else {
            tracing::debug!(partition, offset, "ignoring a record of a partition that is not assigned");
            return;
        };
        self.worker.metrics.read.inc();
        let work = Arc::clone(&self.work);
        let done = self.done.0.clone();
        let task = async move {
            let handled = work.settle(&record).await;
            let Record { partition, offset, .. } = record;
            let output = Output::of(record, handled, &work.group);
            // The session may have ended; then nobody waits for it.
            let _ = done.send(Completion { partition, epoch, offset, output });
        };
        // Nothing that holds it twice, as an async function that takes it would: there may be 100,000 of them.
        self.runtime.spawn(task.in_current_span().with_cancellation_token_owned(guard.token().clone()));
    }

    fn collect(&mut self) {
        for Completion { partition, epoch, offset, output } in self.done.1.try_iter() {
            self.in_flight.complete(partition, epoch, offset, output);
        }
    }

    fn pause_or_resume(&mut self) -> anyhow::Result<()> {
        let drained = self.in_flight.len() <= self.worker.max_in_flight / 2;
        if self.is_full() && !self.paused {
            self.consumer
                .pause(&self.list_of(&self.in_flight.partitions()))
                .context("cannot pause the partitions")?;
            self.paused = true;
        } else if drained && self.paused {
            self.consumer
                .resume(&self.list_of(&self.in_flight.partitions()))
                .context("cannot resume the partitions")?;
            self.paused = false;
        }
        Ok(())
    }

    /// Brings newly assigned partitions in line with the others. A partition that was paused when it was lost is
    /// still paused when it comes back: librdkafka keeps that over assignments.
    fn align(&self, partitions: &[i32]) {
        let list = self.list_of(partitions);
        let aligned = if self.paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = aligned {
            tracing::warn!(%error, ?partitions, "cannot pause or resume the partitions");
        }
    }

    fn is_full(&self) -> bool {
        self.in_flight.len() >= self.worker.max_in_flight
    }

    fn list_of(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.worker.topic, partition);
        }
        list
    }

    /// Only a fatal error ends the session; librdkafka mends the others by itself.
    fn tolerate(&self, error: KafkaError) -> anyhow::Result<()> {
        if let Some((code, reason)) = self.consumer.client().fatal_error() {
            return Err(error).with_context(|| format!("the consumer failed: {code}: {reason}"));
        }
        match error.rdkafka_error_code() {
            // Told by what watches the cluster.
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => tracing::debug!(group = self.worker.group, %error, "reading failed, librdkafka tries again"),
            _ => tracing::warn!(group = self.worker.group, %error, "reading failed, librdkafka tries again"),
        }
        Ok(())
    }

    fn observe(&self) {
        self.worker.metrics.in_flight.set(self.in_flight.len() as i64);
        self.worker.metrics.partitions.set(self.in_flight.partitions().len() as i64);
    }
}
