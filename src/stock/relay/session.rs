//! One session of a relay: from the lease to the error that ends it.
//!
//! Progress is kept in two places. The *position* is an id in the database that holds the log: it is written now and
//! then, and is never ahead of what was published, because it lives and dies with the log. The *mark* is moved by the
//! very Kafka transaction that publishes, so it is exact, but it lives on the cluster, where a copy or an older backup
//! of the database may have moved it. So it counts only when the log holds, under its id, the very event that it names:
//! in an append-only log that proves that everything before it is the same, too. An event that was left out because it
//! cannot be encoded, or because the brokers refuse it, is recorded in the database; the mark names the newest such
//! record as well.
//!
//! docs/EXACTLY-ONCE.md explains what follows when the process dies between any two of these lines.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::settings::SessionSettings;
use super::status::RelayMetrics;
use crate::database::DatabaseError;
use crate::kafka::Mark;
use crate::stock::store::{EventLog, LastPublished, Lease, LogEntry, LogRead, PositionKey};

/// Failed events that a session tries again when it begins.
const RETRIED_FAILURES: i64 = 1_000;
/// Events removed by one statement at most.
const PRUNE_LIMIT: i64 = 5_000;
/// From one removal to the next, when the last one left nothing to remove.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// From one removal to the next, while there is more.
const PRUNE_PAUSE: Duration = Duration::from_millis(100);

/// Where events are published to.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// An event that is ready to be published.
    type Record: Send;

    /// Begins transactions under `identity`, which fences any other relay that uses it and ends what it left open; then
    /// reads the mark.
    async fn begin(&mut self, identity: &str) -> anyhow::Result<Begun>;

    /// Encodes events. An event that no registry and no broker could ever take is an error of its own.
    async fn encode(&self, entries: &[LogEntry]) -> anyhow::Result<Vec<Result<Self::Record, String>>>;

    /// Publishes `records` and moves the mark, both or neither.
    async fn publish(&mut self, records: Vec<Self::Record>, mark: Mark) -> Result<(), PublishError>;

    /// Fences the relay of an older release and returns the number of the batch that it would publish next; `None` when
    /// it has not published here.
    async fn next_batch_of_older_release(&mut self, identity: &str) -> anyhow::Result<Option<i64>>;
}

/// What a cluster knows of earlier sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub key: PositionKey,
    pub mark: Option<Mark>,
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another relay began transactions under the identity.
    #[error("another relay uses the same identity: {0:#}")]
    Fenced(anyhow::Error),
    /// Nothing was published, and the brokers will never take these of the records, each for a reason.
    #[error("the brokers refuse {} of the events", .0.len())]
    Refused(Vec<(usize, String)>),
    /// Whether it was published is unknown.
    #[error(transparent)]
    Failed(anyhow::Error),
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("another relay took the lease")]
    LeaseLost,
    #[error("the log does not hold the event that was published last: its history parted")]
    Parted,
    #[error("inserts do not take the lock that keeps ids in commit order")]
    Unordered,
    #[error("the database server is in recovery")]
    Recovering,
    /// While it held the lease of its own database: another database uses the identity.
    #[error("{0}")]
    Fenced(PublishError),
    #[error("the identity is that of another database, too, such as a copy; it was replaced")]
    IdentityReplaced,
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Cluster(#[from] anyhow::Error),
}

/// A relay that holds the lease.
pub struct Session<'a, C> {
    pub log: &'a mut dyn EventLog,
    pub cluster: C,
    pub lease: Lease,
    pub settings: &'a SessionSettings,
    /// Events of the first transaction at most. After each that succeeds there may be twice as many.
    pub first_batch: i64,
    /// Whether events that could not be published before are tried again.
    pub retry_failures: bool,
    /// Notified when there is something new in the log.
    pub arrivals: Arc<Notify>,
    pub metrics: RelayMetrics,
    pub shutdown: CancellationToken,
}

impl<C: Cluster> Session<'_, C> {
    /// Publishes until `shutdown`, then gives the lease back. `replace_identity`: whether the identity is to be
    /// replaced once everything that was published under it is known.
    ///
    /// # Errors
    /// See [`SessionError`]. The lease is still held then, unless it was lost.
    pub async fn run(mut self, replace_identity: bool) -> Result<(), SessionError> {
        let begun = beating(self.log, &self.lease, None, self.settings.beat, {
            let (cluster, identity) = (&mut self.cluster, &self.lease.identity);
            async move { Ok(cluster.begin(identity).await?) }
        })
        .await?;
        // Beginning may have taken longer than the lease lasts.
        self.keep(None).await?;
        self.resolve_claimed(&begun.key).await?;
        let last = self.resume(&begun).await?;
        self.keep(Some((&begun.key, &last))).await?;
        if replace_identity {
            if !self.log.replace_identity(&self.lease).await? {
                return Err(SessionError::LeaseLost);
            }
            return Err(SessionError::IdentityReplaced);
        }
        // A session that crashed before the mark moved past them recorded those; they are read again.
        self.log.forget_failures_after(&self.lease, &begun.key, last.id).await?;
        if self.retry_failures {
            self.retry_failures(&begun.key, &last).await?;
        }
        let last = LastPublished { failure: self.log.last_failure(&begun.key).await?, ..last };
        self.publish(&begun.key, last).await
    }

    /// Moves the beat, and the position if one is given.
    async fn keep(&mut self, position: Option<(&PositionKey, &LastPublished)>) -> Result<(), SessionError> {
        if self.log.renew(&self.lease, position).await? { Ok(()) } else { Err(SessionError::LeaseLost) }
    }

    /// Moves the position past what an older release had claimed and published before the outbox became a log.
    async fn resolve_claimed(&mut self, key: &PositionKey) -> Result<(), SessionError> {
        let Some(claimed) = self.log.claimed().await? else { return Ok(()) };
        let next = beating(self.log, &self.lease, None, self.settings.beat, {
            let (cluster, identity) = (&mut self.cluster, &claimed.identity);
            async move { Ok(cluster.next_batch_of_older_release(identity).await?) }
        })
        .await?;
        // Without a mark this may be a cluster that the older release did not publish to.
        let Some(next) = next else { return Ok(()) };
        let published = claimed.batches.iter().filter(|(batch, _)| *batch < next).map(|(_, last)| *last);
        let published = published.max().unwrap_or(0);
        tracing::info!(published, "took over what an older release had claimed");
        if self.log.resolve_claimed(&self.lease, key, published).await? {
            Ok(())
        } else {
            Err(SessionError::LeaseLost)
        }
    }

    /// Returns the event up to which everything was published.
    async fn resume(&mut self, begun: &Begun) -> Result<LastPublished, SessionError> {
        if let Some(Mark { offset, metadata }) = &begun.mark {
            let id = offset - 1;
            let (event_id, failure) =
                metadata.as_deref().and_then(|text| text.split_once(' ')).unwrap_or_default();
            let last = LastPublished { id, event_id: Some(event_id.to_owned()), failure: failure.to_owned() };
            if self.log.holds(&last).await? {
                return Ok(last);
            }
            self.metrics.histories_parted.inc();
            tracing::warn!(
                id,
                "the mark on the cluster names an event that the log does not hold: it is of another history of this \
                 database, such as a copy or a backup; going on from the position in the database"
            );
        }
        Ok(self.log.position(&begun.key).await?)
    }

    /// Appends events again that could not be encoded, and can be encoded by this release.
    async fn retry_failures(&mut self, key: &PositionKey, last: &LastPublished) -> Result<(), SessionError> {
        let mut after = 0;
        loop {
            let failures = self.log.failures(key, after, RETRIED_FAILURES).await?;
            let Some(newest) = failures.last() else { return Ok(()) };
            after = newest.id;
            let encoded = beating(self.log, &self.lease, None, self.settings.beat, {
                let (cluster, failures) = (&self.cluster, &failures);
                async move { Ok(cluster.encode(failures).await?) }
            })
            .await?;
            let mut kept = Instant::now();
            for (entry, encoded) in failures.iter().zip(encoded) {
                match encoded {
                    Ok(_) => {
                        if self.log.retry_failure(&self.lease, entry.id).await? {
                            tracing::info!(
                                id = entry.id,
                                "publishing an event that could not be encoded before"
                            );
                        }
                    }
                    Err(reason) => tracing::warn!(id = entry.id, reason, "an event still cannot be encoded"),
                }
                if kept.elapsed() >= self.settings.beat {
                    self.keep(Some((key, last))).await?;
                    kept = Instant::now();
                }
            }
        }
    }

    async fn publish(&mut self, key: &PositionKey, mut last: LastPublished) -> Result<(), SessionError> {
        let SessionSettings { batch_bytes, pace, beat, look_again, retention, .. } = *self.settings;
        let mut batch_events = self.first_batch;
        let mut written = (last.id, Instant::now());
        let mut prune_at = Instant::now();
        let mut pruned = 0;
        loop {
            let entries = match self.log.read(&self.lease, &last, batch_events, batch_bytes).await? {
                LogRead::Entries(entries) => entries,
                LogRead::LeaseLost => return Err(SessionError::LeaseLost),
                LogRead::Recovering => return Err(SessionError::Recovering),
                LogRead::Unordered => return Err(SessionError::Unordered),
                LogRead::Parted => {
                    self.metrics.histories_parted.inc();
                    return Err(SessionError::Parted);
                }
            };
            let idle = entries.is_empty();
            let began = Instant::now();
            let may_pause = i64::try_from(entries.len()).unwrap_or(i64::MAX) < batch_events;
            if !idle {
                last = self.publish_batch(key, &last, entries).await?;
                batch_events = batch_events.saturating_mul(2).min(self.settings.batch_events);
            }
            if written.1.elapsed() >= beat || (idle && written.0 != last.id) || self.shutdown.is_cancelled() {
                self.keep(Some((key, &last))).await?;
                written = (last.id, Instant::now());
            }
            if Instant::now() >= prune_at {
                let seconds = retention.as_secs_f64();
                let removed = self.log.prune(&self.lease, pruned, &last, seconds, PRUNE_LIMIT).await?;
                pruned = removed.iter().copied().max().unwrap_or(pruned);
                let more = i64::try_from(removed.len()).unwrap_or(i64::MAX) >= PRUNE_LIMIT;
                prune_at = Instant::now() + if more { PRUNE_PAUSE } else { PRUNE_INTERVAL };
            }
            if self.shutdown.is_cancelled() {
                self.log.release(&self.lease).await?;
                return Ok(());
            }
            if idle {
                tokio::select! {
                    () = self.shutdown.cancelled() => {}
                    () = self.arrivals.notified() => {}
                    () = tokio::time::sleep(look_again.min(beat)) => {}
                }
            } else if may_pause {
                tokio::select! {
                    () = self.shutdown.cancelled() => {}
                    () = tokio::time::sleep(pace.saturating_sub(began.elapsed())) => {}
                }
            }
        }
    }

    /// Publishes events in one transaction and returns the last of them. Leaves out those that can never be published.
    async fn publish_batch(
        &mut self,
        key: &PositionKey,
        last: &LastPublished,
        mut entries: Vec<LogEntry>,
    ) -> Result<LastPublished, SessionError> {
        let Some((id, event_id)) = entries.last().map(|entry| (entry.id, entry.event_id.clone())) else {
            return Ok(last.clone());
        };
        let position = (key, last);
        let mut failure = last.failure.clone();
        loop {
            let encoded = beating(self.log, &self.lease, Some(position), self.settings.beat, {
                let (cluster, entries) = (&self.cluster, &entries);
                async move { Ok(cluster.encode(entries).await?) }
            })
            .await?;
            let (mut records, mut failed) = (Vec::with_capacity(encoded.len()), Vec::new());
            for (index, encoded) in encoded.into_iter().enumerate() {
                match encoded {
                    Ok(record) => records.push(record),
                    Err(reason) => failed.push((index, reason)),
                }
            }
            if !failed.is_empty() {
                self.leave_out(position, &mut entries, failed, &mut failure).await?;
            }
            let published = records.len() as u64;
            let mark = Mark { offset: id.saturating_add(1), metadata: Some(format!("{event_id} {failure}")) };
            let committed = beating(self.log, &self.lease, Some(position), self.settings.beat, {
                let cluster = &mut self.cluster;
                async move { Ok(cluster.publish(records, mark).await) }
            })
            .await?;
            match committed {
                Ok(()) => {
                    self.metrics.published.inc_by(published);
                    return Ok(LastPublished { id, event_id: Some(event_id), failure });
                }
                Err(PublishError::Refused(refused)) => {
                    self.leave_out(position, &mut entries, refused, &mut failure).await?;
                }
                Err(PublishError::Failed(error)) => return Err(SessionError::Cluster(error)),
                Err(error @ PublishError::Fenced(_)) => {
                    // A relay that took the lease fences its predecessor, as it should.
                    self.keep(Some(position)).await?;
                    return Err(SessionError::Fenced(error));
                }
            }
        }
    }

    /// Takes events that can never be published, each named by its index with the reason, out of `entries` and records
    /// them. Comes before the mark moves past them: after a crash in between, they are still to be published.
    async fn leave_out(
        &mut self,
        position: (&PositionKey, &LastPublished),
        entries: &mut Vec<LogEntry>,
        failed: Vec<(usize, String)>,
        failure: &mut String,
    ) -> Result<(), SessionError> {
        let mut kept = Instant::now();
        for (index, reason) in &failed {
            let Some(LogEntry { id, .. }) = entries.get(*index) else { continue };
            tracing::error!(id, reason, "an event can never be published, leaving it out");
            let recorded = self.log.record_failure(&self.lease, position.0, *id, reason).await?;
            *failure = recorded.ok_or(SessionError::LeaseLost)?;
            if kept.elapsed() >= self.settings.beat {
                self.keep(Some(position)).await?;
                kept = Instant::now();
            }
        }
        let mut index = 0..;
        entries.retain(|_| index.next().is_some_and(|index| failed.iter().all(|(gone, _)| *gone != index)));
        Ok(())
    }
}

/// Awaits `work` while the lease beats.
async fn beating<T>(
    log: &mut dyn EventLog,
    lease: &Lease,
    position: Option<(&PositionKey, &LastPublished)>,
    beat: Duration,
    work: impl Future<Output = Result<T, SessionError>> + Send,
) -> Result<T, SessionError> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(beat) => {
                if !log.renew(lease, position).await? {
                    return Err(SessionError::LeaseLost);
                }
            }
        }
    }
}
