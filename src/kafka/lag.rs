//! How far a consumer group is behind the end of its topic, and whether it moves at all.

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
use super::observer::Observer;
use super::reader::record_waits;
use super::silence::{Extent, SilentPartitions};
use super::topics::ClusterCheck;
use super::worker_status::WorkerStatus;

/// From one measurement to the next.
const PAUSE: Duration = Duration::from_secs(5);
/// A group that is behind and commits nothing for this long is looked at closely.
const QUIET: Duration = Duration::from_secs(10);

type FloatGauge = Gauge<f64, AtomicU64>;

/// Measures the lag of a group by asking the brokers, as Kafka's own tools do: so it is right, too, when no member
/// reads. What ends a transaction takes an offset, and counts.
pub struct GroupLag {
    observer: Arc<Observer>,
    kafka: KafkaArgs,
    topic: String,
    status: WorkerStatus,
    /// Not a number before it is known, and after the brokers did not tell.
    lag: FloatGauge,
    dead_letter_offsets: FloatGauge,
}

/// What the brokers say of a group and its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Measured {
    committed: BTreeMap<i32, i64>,
    /// The first offset, and the next one to be written.
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
        let behind = self.bounds.iter().map(|(partition, (first, end))| {
            // A group that has committed nothing begins with the first record.
            let next = self.committed.get(partition).map_or(first, |next| next.max(first));
            (end - next).max(0)
        });
        behind.sum()
    }
}

impl GroupLag {
    /// Registers the metrics of the group that `cluster` names in `registry`. `status` is that of its member.
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
            "Offsets between what the whole group has committed and the end of its topic",
            lag.clone(),
        );
        registry.register(
            "dead_letter_offsets",
            "Offsets in the dead-letter topic: at least as many as letters that wait, for resolutions and ends of \
             transactions count, too",
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

    /// Measures now and then, until `shutdown`.
    pub async fn watch(&self, shutdown: &CancellationToken) {
        let work = async {
            let mut stall = StallWatch::default();
            let mut silent = SilentPartitions::default();
            loop {
                let measured = self.measure().await;
                self.show(measured.as_ref());
                if let Some(measured) = &measured {
                    self.listen(&mut silent, measured).await;
                }
                let stalled = self.look(&mut stall, measured).await;
                self.status.stalled(stalled);
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    /// Returns `None` when the brokers do not answer, which what watches the cluster reports.
    async fn measure(&self) -> Option<Measured> {
        let (observer, topic) = (Arc::clone(&self.observer), self.topic.clone());
        let measured = tokio::task::spawn_blocking(move || measure(&observer, &topic)).await;
        let measured = measured.context("measuring the lag panicked").flatten();
        measured
            .inspect_err(|error| tracing::debug!(error = format!("{error:#}"), "the lag is not known"))
            .ok()
    }

    #[expect(clippy::cast_precision_loss, reason = "a topic has fewer than 2^53 records")]
    fn show(&self, measured: Option<&Measured>) {
        self.lag.set(measured.map_or(f64::NAN, |measured| measured.lag() as f64));
        self.dead_letter_offsets.set(measured.map_or(f64::NAN, |measured| measured.dead_letters as f64));
    }

    /// Looks for partitions that this member does not read although records wait there.
    async fn listen(&self, silent: &mut SilentPartitions, measured: &Measured) {
        let idle = self.status.idle();
        let extents: BTreeMap<_, _> =
            measured.extents().filter(|(partition, _)| idle.contains(partition)).collect();
        let Some(partition) = silent.suspect(&extents, Instant::now()) else { return };
        silent.forget(partition);
        // Of the others nothing.
        let from = measured
            .extents()
            .map(|(other, extent)| (other, if other == partition { extent.next() } else { extent.end }));
        let (kafka, topic, from) = (self.kafka.clone(), self.topic.clone(), from.collect());
        let waits = tokio::task::spawn_blocking(move || record_waits(&kafka, &topic, &from)).await;
        if matches!(waits, Ok(Ok(true))) {
            self.status.found_silent(partition);
        }
    }

    /// Returns why the whole group makes no progress, if so.
    async fn look(&self, stall: &mut StallWatch, measured: Option<Measured>) -> Option<String> {
        let now = Instant::now();
        // What this member has in flight is judged by its age.
        let Some(measured) = measured.filter(|_| !self.status.is_working()) else {
            *stall = StallWatch::default();
            return None;
        };
        let lag = measured.lag();
        if let Some(committed) = stall.suspects(measured, now) {
            let (kafka, topic) = (self.kafka.clone(), self.topic.clone());
            let waits = tokio::task::spawn_blocking(move || record_waits(&kafka, &topic, &committed)).await;
            if let Ok(Ok(waits)) = waits {
                stall.learned(waits, now);
            }
        }
        let since = stall.waiting_since.filter(|since| since.elapsed() > self.status.patience())?;
        let seconds = since.elapsed().as_secs();
        Some(format!(
            "records wait, and the group commits nothing for {seconds} s: it is {lag} offsets behind, with {}",
            self.status.describe_assignment()
        ))
    }
}

/// Finds out when a group stopped. An offset that is not committed may belong to the end of a transaction, which is never
/// read: so a group that seems to be behind is only suspected, until a record was seen that waits for it.
#[derive(Default)]
struct StallWatch {
    /// The last measurement, and since when the committed offsets are as they are.
    last: Option<(Measured, Instant)>,
    /// Whether a record was looked for since the last change, or found.
    looked: bool,
    waiting_since: Option<Instant>,
}

impl StallWatch {
    /// Takes a measurement in. Returns what is committed if a record has to be looked for there.
    fn suspects(&mut self, measured: Measured, now: Instant) -> Option<BTreeMap<i32, i64>> {
        let lags = measured.lag() > 0;
        let since = match self.last.take() {
            Some((last, since)) if last.committed == measured.committed => {
                if last.bounds != measured.bounds && self.waiting_since.is_none() {
                    self.looked = false;
                }
                since
            }
            _ => {
                (self.looked, self.waiting_since) = (false, None);
                now
            }
        };
        let committed = measured.committed.clone();
        self.last = Some((measured, since));
        (lags && !self.looked && now.duration_since(since) >= QUIET).then_some(committed)
    }

    fn learned(&mut self, waits: bool, now: Instant) {
        self.looked = true;
        self.waiting_since = waits.then_some(now);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(committed: i64, end: i64) -> Measured {
        Measured {
            committed: BTreeMap::from([(0, committed)]),
            bounds: BTreeMap::from([(0, (0, end))]),
            dead_letters: 0,
        }
    }

    #[test]
    fn a_quiet_group_is_looked_at_once_until_something_changes() {
        let (mut watch, began) = (StallWatch::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(watch.suspects(measured(5, 6), at(0)), None);
        assert!(watch.suspects(measured(5, 6), at(10)).is_some());
        watch.learned(false, at(10));
        assert_eq!(watch.suspects(measured(5, 6), at(1_000)), None, "only the end of a transaction");
        assert!(watch.suspects(measured(5, 8), at(1_005)).is_some());
        watch.learned(true, at(1_005));
        assert_eq!(watch.suspects(measured(5, 9), at(1_010)), None);
        assert_eq!(watch.waiting_since, Some(at(1_005)));
        assert_eq!(watch.suspects(measured(7, 9), at(1_015)), None);
        assert_eq!(watch.waiting_since, None, "the group moves");
    }

    #[test]
    fn a_group_that_has_read_everything_is_not_suspected() {
        let (mut watch, began) = (StallWatch::default(), Instant::now());
        for seconds in [0, 60] {
            assert_eq!(watch.suspects(measured(6, 6), began + Duration::from_secs(seconds)), None);
        }
    }
}
