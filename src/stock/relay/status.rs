//! Provides the metrics of a relay and judges its progress.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::stock::vehicle_store::Backlog;

/// The time after which waiting events make a role not ready when none is published.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The metrics of a relay.
#[derive(Clone, Debug, Default)]
pub struct RelayMetrics {
    pub(super) published: Counter,
    pub(super) sessions: Counter,
    pub(super) histories_parted: Counter,
    pub(super) leader: Gauge,
    depth: Gauge,
    oldest: Gauge<f64, AtomicU64>,
    failed: Gauge,
}

impl RelayMetrics {
    /// Creates the metrics and registers them in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "events_published",
            "Events acknowledged by the brokers",
            metrics.published.clone(),
        );
        registry.register(
            "relay_sessions",
            "Relay sessions started by this instance",
            metrics.sessions.clone(),
        );
        registry.register(
            "history_parted",
            "Times that the progress on the cluster belonged to another history of the database",
            metrics.histories_parted.clone(),
        );
        registry.register(
            "relay_leader",
            "1 while this instance holds the lease to publish",
            metrics.leader.clone(),
        );
        registry.register(
            "outbox_depth",
            "Events waiting to be published, counted up to 10000",
            metrics.depth.clone(),
        );
        registry.register(
            "unpublished_oldest_seconds",
            "Age of the oldest event waiting to be published",
            metrics.oldest.clone(),
        );
        registry.register(
            "events_failed",
            "Events that cannot be encoded or that the brokers refuse",
            metrics.failed.clone(),
        );
        metrics
    }

    fn observe(&self, backlog: &Backlog) {
        self.depth.set(backlog.events);
        self.oldest.set(backlog.oldest_seconds);
        self.failed.set(backlog.failed);
    }
}

/// The state of a relay.
#[derive(Clone, Debug)]
enum Standing {
    Starting,
    Holding,
    /// Another relay holds the lease; since when this instance has observed it.
    Waiting(String, Instant),
    /// Sessions fail; the latest reason and the time of the first failure.
    Blocked(String, Instant),
}

impl Standing {
    /// Returns the error that events are waiting, as `backlog` describes, with the cause in this standing.
    fn explain(&self, backlog: &str) -> anyhow::Error {
        let error =
            |cause: &str, summary: String| anyhow!("{cause}").context(format!("{backlog}; {summary}"));
        match self {
            Self::Starting => anyhow!("{backlog}; the relay is starting"),
            Self::Holding => anyhow!("{backlog}; the relay holds the lease"),
            Self::Waiting(holder, since) => {
                let seconds = since.elapsed().as_secs();
                error(
                    holder,
                    format!("the relay has been on standby for {seconds} s while another holds the lease"),
                )
            }
            Self::Blocked(reason, since) => {
                error(reason, format!("the relay has been blocked for {} s", since.elapsed().as_secs()))
            }
        }
    }
}

/// Reports whether events are being published, by this instance or another.
#[derive(Clone)]
pub struct RelayStatus {
    standing: Arc<Mutex<Standing>>,
    /// The last observed position and when it was first observed; `None` before the first observation.
    progress: Arc<Mutex<Option<(i64, Instant)>>>,
    metrics: RelayMetrics,
}

impl RelayStatus {
    pub fn new(metrics: RelayMetrics) -> Self {
        Self { standing: Arc::new(Mutex::new(Standing::Starting)), progress: Arc::default(), metrics }
    }

    pub(super) fn holding(&self) {
        self.set(|_| Standing::Holding);
    }

    pub(super) fn standing_by(&self, holder: &str) {
        self.set(|standing| match standing {
            Standing::Waiting(known, since) if known == holder => {
                Standing::Waiting(holder.to_owned(), *since)
            }
            _ => {
                tracing::info!(holder, "another relay holds the lease, waiting on standby");
                Standing::Waiting(holder.to_owned(), Instant::now())
            }
        });
    }

    pub(super) fn blocked(&self, reason: String) {
        self.set(|standing| match standing {
            Standing::Blocked(_, since) => Standing::Blocked(reason, *since),
            _ => Standing::Blocked(reason, Instant::now()),
        });
    }

    fn set(&self, next: impl FnOnce(&Standing) -> Standing) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        *standing = next(&standing);
    }

    /// Records the backlog and checks that it makes progress.
    ///
    /// # Errors
    /// Fails when events are waiting and none was published for 10 s. The error contains the number and age of the
    /// events and the state of the relay.
    pub fn judge(&self, backlog: &Backlog) -> anyhow::Result<()> {
        self.metrics.observe(backlog);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let moved = match *progress {
            Some((position, at)) if backlog.events > 0 && position == backlog.position => at,
            // The first observation of events that have already waited too long grants no grace period.
            None if backlog.oldest_seconds >= LONGEST_WAIT.as_secs_f64() => {
                now.checked_sub(LONGEST_WAIT).unwrap_or(now)
            }
            _ => now,
        };
        *progress = Some((backlog.position, moved));
        if moved.elapsed() < LONGEST_WAIT {
            return Ok(());
        }
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let least = if backlog.events >= Backlog::MAX_EVENTS { "at least " } else { "" };
        Err(standing.explain(&format!(
            "{least}{} events are waiting to be published, the oldest for {:.0} s",
            backlog.events, backlog.oldest_seconds
        )))
    }
}
