//! Measures how far a consumer group is behind the end of its topic, and detects partitions without progress.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::dead_letter::dead_letter_topic;
use super::group_view::lag;
use super::observer::Observer;
use super::reader::records_wait;
use super::silence::{Extent, SilentPartitions};
use super::stall::StalledPartitions;
use super::topics::ClusterCheck;
use super::worker_status::WorkerStatus;

/// The interval between measurements.
const PAUSE: Duration = Duration::from_secs(5);

type FloatGauge = Gauge<f64, AtomicU64>;

/// Measures the lag of a group by querying the brokers, as Kafka's own tools do, so it is also correct when no member
/// reads. Transaction markers occupy offsets, so they are included.
pub struct GroupLag {
    observer: Arc<Observer>,
    kafka: KafkaArgs,
    topic: String,
    status: WorkerStatus,
    /// The lag, or NaN before the first measurement and after a failed one.
    lag: FloatGauge,
    dead_letter_offsets: FloatGauge,
}

/// The offsets of a group and its topics, as the brokers return them.
#[derive(Debug)]
struct Measured {
    committed: BTreeMap<i32, i64>,
    /// The first offset and the next one to be written.
    bounds: BTreeMap<i32, (i64, i64)>,
    dead_letters: i64,
}

impl Measured {
    fn extents(&self) -> impl Iterator<Item = (i32, Extent)> {
        self.bounds.iter().map(|(&partition, &(first, end))| {
            (partition, Extent { committed: self.committed.get(&partition).copied(), first, end })
        })
    }

    fn lag(&self) -> i64 {
        lag(&self.committed, &self.bounds)
    }
}

impl GroupLag {
    /// Creates a measurement of the group that `cluster` was created with and registers its metrics. `status` is the
    /// status of this process's member.
    pub fn register(
        cluster: &ClusterCheck,
        topic: &str,
        status: &WorkerStatus,
        registry: &mut Registry,
    ) -> Self {
        let (lag, dead_letter_offsets) = (FloatGauge::default(), FloatGauge::default());
        lag.set(f64::NAN);
        dead_letter_offsets.set(f64::NAN);
        registry.register(
            "group_lag",
            "Offsets between those that the whole group has committed and the end of its topic",
            lag.clone(),
        );
        registry.register(
            "dead_letter_offsets",
            "Offsets in the dead-letter topic: at least the number of unresolved dead letters, because resolutions and \
             transaction markers are included",
            dead_letter_offsets.clone(),
        );
        Self {
            observer: cluster.observer(),
            kafka: cluster.kafka().clone(),
            topic: topic.to_owned(),
            status: status.clone(),
            lag,
            dead_letter_offsets,
        }
    }

    /// Measures the lag every 5 s until `shutdown`.
    pub async fn watch(&self, shutdown: &CancellationToken) {
        let work = async {
            let mut stalled = StalledPartitions::default();
            let mut silent = SilentPartitions::default();
            loop {
                let measured = self.measure().await;
                self.show(measured.as_ref());
                if let Some(measured) = &measured {
                    self.listen(&mut silent, measured).await;
                }
                self.status.stalled(self.look(&mut stalled, measured).await);
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    /// Measures the offsets. Returns `None` when the brokers do not respond, which the cluster check reports.
    async fn measure(&self) -> Option<Measured> {
        let (observer, topic) = (Arc::clone(&self.observer), self.topic.clone());
        let measured = tokio::task::spawn_blocking(move || measure(&observer, &topic)).await;
        let measured = measured.context("measuring the lag panicked").flatten();
        measured
            .inspect_err(|error| {
                tracing::debug!(error = format!("{error:#}"), "measuring the lag failed, will retry");
            })
            .ok()
    }

    #[expect(clippy::cast_precision_loss, reason = "a topic has fewer than 2^53 records")]
    fn show(&self, measured: Option<&Measured>) {
        self.lag.set(measured.map_or(f64::NAN, |measured| measured.lag() as f64));
        self.dead_letter_offsets.set(measured.map_or(f64::NAN, |measured| measured.dead_letters as f64));
    }

    /// Detects partitions that this member does not read although records wait there.
    async fn listen(&self, silent: &mut SilentPartitions, measured: &Measured) {
        let reading = self.status.reading();
        let extents: BTreeMap<_, _> =
            measured.extents().filter(|(partition, _)| reading.is_waiting_for(*partition)).collect();
        let Some(partition) = silent.suspect(&extents, Instant::now()) else { return };
        let from = extents.get(&partition).map(|extent| (partition, extent.next())).into_iter().collect();
        if self.look_for_records(from).await.get(&partition) == Some(&true) {
            self.status.found_silent(partition);
            // The new client has to be given time for all partitions.
            *silent = SilentPartitions::default();
        } else {
            silent.forget(partition);
        }
    }

    /// Returns why the group makes no progress in a partition, if so.
    async fn look(&self, stalled: &mut StalledPartitions, measured: Option<Measured>) -> Option<String> {
        let Some(measured) = measured else {
            *stalled = StalledPartitions::default();
            return None;
        };
        let reading = self.status.reading();
        // Partitions with records in flight are judged by the age of these records.
        let extents: BTreeMap<_, _> =
            measured.extents().filter(|(partition, _)| !reading.is_working_on(*partition)).collect();
        let suspects = stalled.suspects(&extents, Instant::now());
        if !suspects.is_empty() {
            for (partition, waits) in self.look_for_records(suspects).await {
                stalled.learned(partition, waits, Instant::now());
            }
        }
        let reason = stalled.describe(&reading.assigned, self.status.patience(), Instant::now())?;
        Some(format!(
            "{reason}: it is {} offsets behind, with {}",
            measured.lag(),
            self.status.describe_assignment()
        ))
    }

    /// Reads the partitions from the given offsets and returns whether a committed record waits there. Omits partitions
    /// for which this cannot be determined.
    async fn look_for_records(&self, from: BTreeMap<i32, i64>) -> BTreeMap<i32, bool> {
        let (kafka, topic) = (self.kafka.clone(), self.topic.clone());
        let looked = tokio::task::spawn_blocking(move || records_wait(&kafka, &topic, &from)).await;
        let looked = looked.context("looking for records panicked").flatten();
        looked
            .inspect_err(|error| {
                tracing::debug!(error = format!("{error:#}"), "looking for records failed, will retry");
            })
            .unwrap_or_default()
    }
}

fn measure(observer: &Observer, topic: &str) -> anyhow::Result<Measured> {
    let dead_letters = observer.bounds(&dead_letter_topic(topic))?;
    Ok(Measured {
        committed: observer.committed(topic, CALL_TIMEOUT)?,
        bounds: observer.bounds(topic)?,
        dead_letters: dead_letters.values().map(|(first, end)| end - first).sum(),
    })
}
