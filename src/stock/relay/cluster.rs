//! Publishes events to a Kafka cluster.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::session::{Begun, Cluster, PublishError};
use crate::backoff::Backoff;
use crate::event::{REANNOUNCED_HEADER, VEHICLE_CREATED, VehicleCreated};
use crate::kafka::{
    CommitError, KafkaArgs, Mark, Marker, Naming, OutgoingRecord, TransactionalProducer, describe_sent,
};
use crate::registry::{Codec, CodecError};
use crate::stock::vehicle_store::{LogEntry, PositionKey};
use crate::trace::Span;
use std::sync::Arc;

/// The time to wait for the brokers or the registry before releasing the lease to another relay, which may reach
/// them.
const PATIENCE: Duration = Duration::from_secs(15);

/// The prefix of the transactional ids and groups of all relays.
const NAME: &str = "ms-vehicles-stock";

pub(super) struct KafkaCluster {
    kafka: KafkaArgs,
    codec: Arc<Codec>,
    topic: String,
    /// The producer and the mark, once a session has begun.
    session: Option<(TransactionalProducer, Marker)>,
    shutdown: CancellationToken,
}

/// A record and the span that ends when the record is published.
pub(super) struct TracedRecord {
    record: OutgoingRecord,
    span: Span,
}

impl KafkaCluster {
    pub(super) fn new(kafka: &KafkaArgs, codec: Arc<Codec>, shutdown: CancellationToken) -> Self {
        let topic = Naming::new(kafka).topic(VEHICLE_CREATED);
        Self { kafka: kafka.clone(), codec, topic, session: None, shutdown }
    }

    /// Fences any other producer with the same name, then reads the mark, which that producer can no longer move.
    async fn open(&self, name: String) -> anyhow::Result<(TransactionalProducer, Marker)> {
        let producer =
            TransactionalProducer::within(&self.kafka, &name, PATIENCE, self.shutdown.clone()).await?;
        let (kafka, topic) = (self.kafka.clone(), self.topic.clone());
        let marker = tokio::task::spawn_blocking(move || Marker::read(&kafka, &name, &topic));
        Ok((producer, marker.await.context("reading the mark panicked")??))
    }

    async fn encode_one(
        &self,
        entry: &LogEntry,
        is_unavailable: &mut bool,
    ) -> anyhow::Result<Result<TracedRecord, String>> {
        let event = match event_of(entry) {
            Ok(event) => event,
            Err(reason) => return Ok(Err(reason)),
        };
        let value = match self.encode_patiently(&event, is_unavailable).await? {
            Ok(value) => value,
            Err(reason) => return Ok(Err(reason)),
        };
        let span = Span::follow(&entry.trace);
        let key = entry.vin.clone().into_bytes();
        let mut record = OutgoingRecord::new(self.topic.clone(), key, value, span.context());
        if entry.reannounced {
            record.headers.push((REANNOUNCED_HEADER.to_owned(), Some(b"true".to_vec())));
        }
        Ok(Ok(TracedRecord { record, span }))
    }

    /// Encodes an event. Without a known schema, retries for up to [`PATIENCE`] while the registry is unavailable, which
    /// sets `is_unavailable`. An event that violates the known schema fails then without another call to the registry:
    /// when a newer schema becomes known, the relay retries it.
    async fn encode_patiently(
        &self,
        event: &VehicleCreated,
        is_unavailable: &mut bool,
    ) -> anyhow::Result<Result<Vec<u8>, String>> {
        let mut backoff = Backoff::new();
        let until = Instant::now() + PATIENCE;
        let refusal = || self.codec.refusal(&self.topic, event);
        if *is_unavailable && let Some(reason) = refusal() {
            return Ok(Err(reason));
        }
        loop {
            let reason = match self.codec.encode(VEHICLE_CREATED, &self.topic, event).await {
                Ok(value) => return Ok(Ok(value)),
                Err(CodecError::Rejected(reason)) => return Ok(Err(reason)),
                Err(error @ (CodecError::UnknownSchema(_) | CodecError::Unavailable(_))) => error.to_string(),
            };
            *is_unavailable = true;
            // Comes before the deadline: one call may take as long.
            if let Some(reason) = refusal() {
                return Ok(Err(reason));
            }
            if Instant::now() > until || self.shutdown.is_cancelled() {
                bail!("{reason}");
            }
            let pause = backoff.next_pause();
            tracing::warn!(reason, ?pause, "cannot encode events, will retry");
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

fn event_of(entry: &LogEntry) -> Result<VehicleCreated, String> {
    serde_json::from_str(&entry.event).map_err(|error| format!("not an event of this release: {error}"))
}

#[async_trait]
impl Cluster for KafkaCluster {
    type Record = TracedRecord;

    async fn begin(&mut self, identity: &str) -> anyhow::Result<Begun> {
        let name = Naming::new(&self.kafka).group(&format!("{NAME}.relay.{identity}"));
        let (producer, marker) = self.open(name).await?;
        let key = PositionKey { cluster: marker.cluster_id().to_owned(), topic: self.topic.clone() };
        let begun = Begun { key, mark: marker.mark().cloned() };
        self.session = Some((producer, marker));
        Ok(begun)
    }

    fn schema_id(&self) -> Option<u32> {
        self.codec.schema_id(&self.topic)
    }

    fn refusal(&self, entry: &LogEntry) -> Option<String> {
        match event_of(entry) {
            Ok(event) => self.codec.refusal(&self.topic, &event),
            Err(reason) => Some(reason),
        }
    }

    async fn encode(&self, entries: &[LogEntry]) -> anyhow::Result<Vec<Result<TracedRecord, String>>> {
        let mut encoded = Vec::with_capacity(entries.len());
        let mut is_unavailable = false;
        for entry in entries {
            encoded.push(self.encode_one(entry, &mut is_unavailable).await?);
        }
        Ok(encoded)
    }

    async fn publish(&mut self, records: Vec<TracedRecord>, mark: Mark) -> Result<(), PublishError> {
        let failed = |error: CommitError| match error {
            CommitError::Fenced(_) => PublishError::Fenced(error.into()),
            CommitError::RefusedSome(_) => PublishError::RefusedSome(error.into()),
            CommitError::Refused(refusals) => PublishError::Refused(
                refusals
                    .iter()
                    .map(|refusal| (refusal.index, format!("refused: {}", refusal.code)))
                    .collect(),
            ),
            CommitError::Aborted(_) | CommitError::Unknown(_) => PublishError::Failed(error.into()),
        };
        let (producer, marker) =
            self.session.as_mut().context("publishing before it began").map_err(PublishError::Failed)?;
        let (records, spans): (Vec<_>, Vec<_>) =
            records.into_iter().map(|traced| (traced.record, traced.span)).unzip();
        producer.commit(&records, &marker.progress(mark), marker.group()).await.map_err(failed)?;
        for (record, span) in records.iter().zip(spans) {
            span.end(|| describe_sent(record));
        }
        Ok(())
    }

    async fn next_batch_of_older_release(&mut self, identity: &str) -> anyhow::Result<Option<i64>> {
        let name = Naming::new(&self.kafka).group(&format!("{NAME}.{identity}"));
        let (_, marker) = self.open(name).await?;
        Ok(marker.mark().map(|mark| mark.offset))
    }
}
