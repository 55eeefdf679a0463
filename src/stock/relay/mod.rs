//! Publishes each event of the log exactly once, no matter what crashes in between.
//!
//! Every instance of stock has a relay. The one that holds the lease publishes, and the others are on standby. A
//! lease is a row of the database rather than a session, so it also expires when the network between the holder and
//! the database drops every packet.

mod cluster;
mod retries;
mod session;
mod settings;
mod status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::cluster::KafkaCluster;
pub use self::retries::Retries;
pub use self::session::{Begun, Cluster, PublishError, Session, SessionError};
pub use self::settings::{DEFAULT_RETENTION, SessionSettings};
pub use self::status::{RelayMetrics, RelayStatus};
use super::vehicle_store::{EventLog, Lease, VehicleStore};
use crate::backoff::Backoff;
use crate::event::VEHICLE_CREATED;
use crate::kafka::{ClusterCheck, KafkaArgs, Naming};
use crate::registry::Codec;

/// The time after which a lease whose beat has not advanced is free.
pub const LEASE_TIME: Duration = Duration::from_secs(5);
/// The interval at which a relay on standby reads the lease.
const STAND_BY: Duration = Duration::from_secs(1);
/// The minimum pause after a failure. It exceeds [`STAND_BY`], which gives another relay the chance to publish.
const COOL_DOWN: Duration = Duration::from_millis(1_500);
/// The time for the current transaction to complete after shutdown. The lease is then released without it, and the next
/// relay fences its producer.
const LAST_TRANSACTION: Duration = Duration::from_secs(1);

/// Moves events from the log to Kafka.
pub struct Relay {
    pub kafka: KafkaArgs,
    pub codec: Arc<Codec>,
    pub store: Arc<dyn VehicleStore>,
    pub cluster: Arc<ClusterCheck>,
    /// The name of this process among those that compete for the lease.
    pub holder: String,
    pub settings: SessionSettings,
    /// Notified when events are appended to the log.
    pub arrivals: Arc<Notify>,
    pub metrics: RelayMetrics,
    pub status: RelayStatus,
    pub shutdown: CancellationToken,
}

impl Relay {
    /// Publishes whenever it holds the lease, until shutdown.
    pub async fn run(self) {
        let mut candidate = Candidate::new(self.holder.clone());
        let mut fencings = Fencings::default();
        let mut backoff = Backoff::new();
        let mut log = None;
        let mut tries = Tries { first_batch: self.settings.batch_events, retries: Retries::default() };
        while !self.shutdown.is_cancelled() {
            let began = Instant::now();
            let pause =
                match self.attempt(&mut log, &mut candidate, &mut tries, fencings.is_shared_identity()).await
                {
                    Ok(()) => STAND_BY,
                    Err(error) => {
                        if self.shutdown.is_cancelled() {
                            tracing::debug!(error = format!("{error:#}"), "stopping the relay");
                            break;
                        }
                        fencings.note(&error, began.elapsed());
                        tries.note(&error);
                        if began.elapsed() > LONG_SESSION {
                            backoff = Backoff::new();
                        }
                        let pause = COOL_DOWN + backoff.next_pause();
                        tracing::warn!(error = format!("{error:#}"), ?pause, "publishing failed, will retry");
                        self.status.blocked(format!("{error:#}"));
                        log = None;
                        pause
                    }
                };
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Tries to take the lease and publishes while it holds it. Succeeds when another relay holds the lease, or after
    /// shutdown.
    async fn attempt(
        &self,
        log: &mut Option<Box<dyn EventLog>>,
        candidate: &mut Candidate,
        tries: &mut Tries,
        replace_identity: bool,
    ) -> Result<(), SessionError> {
        let log = match log {
            Some(log) => log,
            None => log.insert(self.store.event_log().await?),
        };
        let seen = log.lease().await?;
        if !candidate.may_take(&seen) {
            self.status.standing_by(seen.holder.as_deref().unwrap_or_default());
            return Ok(());
        }
        // A relay that cannot publish must not keep the lease from one that can.
        self.cluster.check().await?;
        self.codec
            .prepare(VEHICLE_CREATED, &Naming::new(&self.kafka).topic(VEHICLE_CREATED))
            .await
            .map_err(anyhow::Error::from)?;
        log.prove_order().await?;
        let Some(lease) = log.take(&seen, &self.holder).await? else { return Ok(()) };
        tracing::info!(epoch = lease.epoch, "acquired the lease, publishing events");
        self.metrics.sessions.inc();
        self.metrics.leader.set(1);
        self.status.holding();
        let session = Session {
            log: &mut **log,
            cluster: KafkaCluster::new(&self.kafka, Arc::clone(&self.codec), self.shutdown.clone()),
            lease: lease.clone(),
            settings: &self.settings,
            first_batch: tries.first_batch,
            retries: &mut tries.retries,
            arrivals: Arc::clone(&self.arrivals),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
        };
        let too_late = async {
            self.shutdown.cancelled().await;
            tokio::time::sleep(LAST_TRANSACTION).await;
        };
        let result = tokio::select! {
            result = session.run(replace_identity) => result,
            () = too_late => Err(anyhow!("the brokers did not complete the last transaction in time").into()),
        };
        self.metrics.leader.set(0);
        if matches!(result, Err(SessionError::Parted)) {
            self.metrics.histories_parted.inc();
        }
        if result.is_err() {
            self.give_back(&lease).await;
        }
        result
    }

    /// Releases the lease on a new connection, since that of the session may be the one that failed. The lease
    /// expires when this fails.
    async fn give_back(&self, lease: &Lease) {
        let release = async { self.store.event_log().await?.release(lease).await };
        if let Err(error) = release.await {
            tracing::debug!(error = format!("{error:#}"), "releasing the lease failed, it will expire");
        }
    }
}

/// The parameters of the next session.
struct Tries {
    first_batch: i64,
    retries: Retries,
}

impl Tries {
    /// Halves the next transaction after one that may have been too large for the brokers to complete in time.
    fn note(&mut self, error: &SessionError) {
        if matches!(error, SessionError::Cluster(_)) {
            self.first_batch = (self.first_batch / 2).max(1);
        }
    }
}

/// The duration from which a session counts as successful.
const LONG_SESSION: Duration = Duration::from_secs(60);

/// Detects, from the ends of sessions, whether another database uses the same identity.
///
/// A transaction that times out while the process is paused also fences a relay. The identity is therefore replaced
/// only on the second fencing, by a session that has determined what was published under the old identity.
#[derive(Debug, Default)]
pub struct Fencings(u32);

impl Fencings {
    const LIMIT: u32 = 2;

    /// Records how a session ended and how long it lasted.
    pub fn note(&mut self, error: &SessionError, lasted: Duration) {
        self.0 = match error {
            SessionError::Fenced(_) if lasted < LONG_SESSION => self.0 + 1,
            SessionError::Fenced(_) => 1,
            SessionError::IdentityReplaced => 0,
            _ => self.0,
        };
    }

    /// Returns whether the next session must replace the identity.
    pub fn is_shared_identity(&self) -> bool {
        self.0 >= Self::LIMIT
    }
}

/// Decides when a lease that another relay holds is free. Uses only this process's monotonic clock, so that clock
/// changes have no effect.
pub struct Candidate {
    holder: String,
    seen: Option<(Lease, Instant)>,
}

impl Candidate {
    pub fn new(holder: String) -> Self {
        Self { holder, seen: None }
    }

    /// Returns whether a lease in the state `now` may be taken.
    pub fn may_take(&mut self, now: &Lease) -> bool {
        if now.holder.as_ref().is_none_or(|holder| *holder == self.holder) {
            self.seen = None;
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen == now => since.elapsed() >= LEASE_TIME,
            _ => {
                self.seen = Some((now.clone(), Instant::now()));
                false
            }
        }
    }
}
