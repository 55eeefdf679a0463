//! How far a consumer group is behind the end of its topic.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::CALL_TIMEOUT;
use super::observer::Observer;
use super::topics::ClusterCheck;

/// From one measurement to the next.
const PAUSE: Duration = Duration::from_secs(5);

/// Measures the lag of a group by asking the brokers, as Kafka's own tools do: so it is right, too, when no member
/// reads. What ends a transaction takes an offset, and counts.
pub struct GroupLag {
    observer: Arc<Observer>,
    topic: String,
    /// Not a number before it is known, and after the brokers did not tell.
    lag: Gauge<f64, AtomicU64>,
}

impl GroupLag {
    /// A metric that is part of `registry`, of the group that `cluster` was told of.
    pub fn register(cluster: &ClusterCheck, topic: &str, registry: &mut Registry) -> Self {
        let lag = Gauge::<f64, AtomicU64>::default();
        lag.set(f64::NAN);
        registry.register(
            "group_lag",
            "Offsets between what the whole group has committed and the end of its topic",
            lag.clone(),
        );
        Self { observer: cluster.observer(), topic: topic.to_owned(), lag }
    }

    /// Measures now and then, until `shutdown`.
    pub async fn watch(&self, shutdown: &CancellationToken) {
        let measure = async || {
            let (observer, topic) = (Arc::clone(&self.observer), self.topic.clone());
            let measured = tokio::task::spawn_blocking(move || measure(&observer, &topic)).await;
            let lag = match measured {
                Ok(Ok(lag)) => lag,
                Ok(Err(error)) => {
                    // What watches the cluster tells when it is away.
                    tracing::debug!(error = format!("{error:#}"), "the lag is not known");
                    f64::NAN
                }
                Err(error) => {
                    tracing::error!(%error, "measuring the lag panicked");
                    f64::NAN
                }
            };
            self.lag.set(lag);
            tokio::time::sleep(PAUSE).await;
        };
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = measure() => {}
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a topic has fewer than 2^53 records")]
fn measure(observer: &Observer, topic: &str) -> anyhow::Result<f64> {
    let committed = observer.committed(topic, CALL_TIMEOUT)?;
    let behind = observer.bounds(topic)?.into_iter().map(|(partition, (first, end))| {
        // A group that has committed nothing begins with the first record.
        let next = committed.get(&partition).map_or(first, |next| *next.max(&first));
        (end - next).max(0)
    });
    Ok(behind.sum::<i64>() as f64)
}
