//! Publishes what waits in the outbox: each event once, whatever dies in between.
//!
//! A batch is published by one Kafka transaction, which also commits the number of the next batch as the offset
//! of a consumer group that has no members. After a crash, or when an answer was lost, that number tells whether
//! the batch went out, so it is neither lost nor sent twice.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::store::{OutboxEntry, VehicleStore};
use crate::backoff::Backoff;
use crate::event::{VEHICLE_CREATED, VehicleCreated};
use crate::kafka::{KafkaArgs, Marker, Naming, OutgoingRecord, TransactionalProducer, describe_sent};
use crate::registry::{Codec, CodecError};
use crate::trace::Span;

/// Events published by one transaction at most.
const BATCH_LIMIT: i64 = 500;
/// How soon an event is seen that another instance wrote.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How soon the outbox is asked for again that another instance holds, or that was not yet there.
const STAND_BY: Duration = Duration::from_secs(1);

/// What the relay counts.
#[derive(Clone, Debug, Default)]
pub struct RelayMetrics {
    published: Counter,
    depth: Gauge,
}

impl RelayMetrics {
    /// Metrics that are part of `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("events_published", "Events that the brokers have", metrics.published.clone());
        registry.register("outbox_depth", "Events that wait to be published", metrics.depth.clone());
        metrics
    }

    /// Notes how many events wait.
    pub fn observe_depth(&self, depth: i64) {
        self.depth.set(depth);
    }
}

/// Moves events from the outbox to Kafka.
pub struct Relay {
    pub kafka: KafkaArgs,
    pub codec: Arc<Codec>,
    pub store: Arc<dyn VehicleStore>,
    /// Notified when there is something new in the outbox.
    pub arrivals: Arc<Notify>,
    pub metrics: RelayMetrics,
    pub shutdown: CancellationToken,
}

impl Relay {
    /// Works until the shutdown is cancelled, on a thread of its own.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn run(self) -> anyhow::Result<()> {
        let runtime = Handle::current();
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| self.run_sessions(&runtime)))
            .await
            .context("the relay panicked")
    }

    /// A session ends with its producer or its database connection; the next finds out what was published.
    fn run_sessions(&self, runtime: &Handle) {
        let mut backoff = Backoff::new();
        while !self.shutdown.is_cancelled() {
            let pause = match self.run_session(runtime, &mut backoff) {
                Ok(()) => STAND_BY,
                Err(error) if self.shutdown.is_cancelled() => {
                    tracing::debug!(error = format!("{error:#}"), "the relay stops");
                    return;
                }
                Err(error) => {
                    let pause = backoff.next_pause();
                    tracing::warn!(error = format!("{error:#}"), ?pause, "events wait in the outbox");
                    pause
                }
            };
            runtime.block_on(self.pause(pause));
        }
    }

    /// Returns without an error when the outbox cannot be had.
    fn run_session(&self, runtime: &Handle, backoff: &mut Backoff) -> anyhow::Result<()> {
        let Some(mut outbox) = runtime.block_on(self.store.outbox())? else { return Ok(()) };
        let naming = Naming::new(&self.kafka);
        let topic = naming.topic(VEHICLE_CREATED);
        let identity = runtime.block_on(outbox.identity())?;
        let name = naming.group(&format!("ms-vehicles-stock.{identity}"));

        let mut producer = TransactionalProducer::new(&self.kafka, &name, self.shutdown.clone())?;
        let marker = Marker::read(&self.kafka, &name, &topic)?;
        let mut batch = marker.committed().unwrap_or(0);
        runtime.block_on(outbox.recover(batch))?;

        while !self.shutdown.is_cancelled() {
            let entries = runtime.block_on(outbox.claim(batch, BATCH_LIMIT))?;
            if entries.is_empty() {
                self.metrics.depth.set(0);
                runtime.block_on(self.await_arrivals());
                continue;
            }
            let (records, spans) = runtime.block_on(self.encode(&topic, &entries))?;
            // Never tried again within the session: whether the outbox is still ours has to be asked first.
            producer.commit(&records, &marker.progress(batch + 1), marker.group())?;
            self.metrics.published.inc_by(records.len() as u64);
            for (record, span) in records.iter().zip(spans) {
                span.end(|| describe_sent(record));
            }
            batch += 1;
            runtime.block_on(outbox.remove(batch - 1))?;
            *backoff = Backoff::new();
        }
        Ok(())
    }

    async fn encode(
        &self,
        topic: &str,
        entries: &[OutboxEntry],
    ) -> anyhow::Result<(Vec<OutgoingRecord>, Vec<Span>)> {
        let mut records = Vec::with_capacity(entries.len());
        let mut spans = Vec::with_capacity(entries.len());
        for entry in entries {
            let event: VehicleCreated =
                serde_json::from_str(&entry.event).context("unreadable outbox entry")?;
            let span = Span::follow(Some(entry.traceparent.as_bytes()));
            let value = self.encode_patiently(topic, &event).await?;
            let key = entry.vin.clone().into_bytes();
            records.push(OutgoingRecord::new(topic.to_owned(), key, value, span.context()));
            spans.push(span);
        }
        Ok((records, spans))
    }

    /// Waits for the registry without giving up the producer and the outbox.
    async fn encode_patiently(&self, topic: &str, event: &VehicleCreated) -> anyhow::Result<Vec<u8>> {
        let mut backoff = Backoff::new();
        loop {
            match self.codec.encode(VEHICLE_CREATED, topic, event).await {
                Err(CodecError::Unavailable(reason)) if !self.shutdown.is_cancelled() => {
                    let pause = backoff.next_pause();
                    tracing::warn!(reason, ?pause, "events wait for the schema registry");
                    self.pause(pause).await;
                }
                result => return Ok(result?),
            }
        }
    }

    async fn await_arrivals(&self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = self.arrivals.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }

    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
