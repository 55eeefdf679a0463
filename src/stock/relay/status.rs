//! What a relay counts, and whether it makes progress.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::stock::store::Backlog;

/// Events that wait this long, while none is published, make a role not ready.
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
    /// Metrics that are part of `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "events_published",
            "Events that the brokers acknowledged",
            metrics.published.clone(),
        );
        registry.register(
            "relay_sessions",
            "Times that this instance began to publish, after a start, an error or another instance",
            metrics.sessions.clone(),
        );
        registry.register(
            "history_parted",
            "Times that progress kept on the cluster belonged to another history of the database",
            metrics.histories_parted.clone(),
        );
        registry.register(
            "relay_leader",
            "1 while this instance holds the lease to publish",
            metrics.leader.clone(),
        );
        registry.register(
            "outbox_depth",
            "Events that wait to be published, counted up to 10000",
            metrics.depth.clone(),
        );
        registry.register(
            "unpublished_oldest_seconds",
            "Age of the oldest event that waits to be published",
            metrics.oldest.clone(),
        );
        registry.register(
            "events_failed",
            "Events that cannot be encoded, or that the brokers refuse",
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

/// What a relay is doing.
#[derive(Clone, Debug)]
enum Standing {
    Starting,
    Holding,
    /// Another relay holds the lease, since this instance saw it first.
    Waiting(String, Instant),
    /// Its sessions fail, since the first that did.
    Blocked(String, Instant),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => write!(f, "the relay starts"),
            Self::Holding => write!(f, "the relay holds the lease"),
            Self::Waiting(holder, since) => {
                write!(f, "the relay stands by for {holder}, for {} s", since.elapsed().as_secs())
            }
            Self::Blocked(reason, since) => {
                write!(f, "the relay is blocked for {} s: {reason}", since.elapsed().as_secs())
            }
        }
    }
}

/// Says whether events are published, by this instance or by another.
#[derive(Clone)]
pub struct RelayStatus {
    standing: Arc<Mutex<Standing>>,
    /// Where the position was seen to move last, and when; `None` before the first look.
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
                tracing::info!(holder, "another relay publishes, standing by");
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

    /// Notes what waits, and judges whether that makes progress.
    ///
    /// # Errors
    /// When events wait and none was published for a while: how many, since when, and what the relay is doing.
    pub fn judge(&self, backlog: &Backlog) -> anyhow::Result<()> {
        self.metrics.observe(backlog);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let moved = match *progress {
            Some((position, at)) if backlog.events > 0 && position == backlog.position => at,
            // At the first look events that wait for long already get no grace.
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
        anyhow::bail!(
            "{least}{} events wait to be published, the oldest for {:.0} s; {standing}",
            backlog.events,
            backlog.oldest_seconds
        )
    }
}
