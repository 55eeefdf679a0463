//! Runs one session of a relay: from acquiring the lease to the error that ends it.
//!
//! Progress is stored in two places. The *position* is an id in the database that holds the log. It is written
//! periodically and is never ahead of the published events, because it has the same history as the log. The *mark*
//! moves in the Kafka transaction that publishes, so it is exact. It is on the cluster, however, where a copy or an
//! older backup of the database may have moved it.
//!
//! The mark therefore counts only when the log holds, under its id, exactly the event that it names. In an
//! append-only log, this proves that all earlier events are the same as well. An event that is skipped because it
//! cannot be encoded or the brokers refuse it is recorded in the database, and the mark names the newest such record
//! as well.
//!
//! docs/EXACTLY-ONCE.md describes the result of a crash between any two of these steps.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::retries::Retries;
use super::settings::SessionSettings;
use super::status::RelayMetrics;
use crate::database::DatabaseError;
use crate::kafka::Mark;
use crate::stock::vehicle_store::{EventLog, LastPublished, Lease, LogEntry, LogRead, PositionKey};

/// The maximum number of events that one statement removes.
const PRUNE_LIMIT: i64 = 5_000;
/// The interval between removals when the last one left nothing to remove.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// The interval between removals while more events can be removed.
const PRUNE_PAUSE: Duration = Duration::from_millis(100);

/// The destination of events.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// An event that is ready to be published.
    type Record: Send;

    /// Starts a producer under `identity`, which fences any other relay with that identity and aborts its open
    /// transaction. Then reads the mark.
    async fn begin(&mut self, identity: &str) -> anyhow::Result<Begun>;

    /// Returns the id of the schema that events are encoded with, if it is known. With another one, failed events may be
    /// encodable.
    fn schema_id(&self) -> Option<u32>;

    /// Returns why an event cannot be encoded with the known schema.
    fn refusal(&self, entry: &LogEntry) -> Option<String>;

    /// Encodes events. Returns the reason in place of each event that cannot be encoded with the newest known schema.
    async fn encode(&self, entries: &[LogEntry]) -> anyhow::Result<Vec<Result<Self::Record, String>>>;

    /// Publishes `records` and moves the mark atomically. When records are refused, and after the next success, the
    /// producer takes over the identity again, even from a relay that took it over meanwhile. Before the next call, the
    /// caller must prove that it still holds the lease.
    async fn publish(&mut self, records: Vec<Self::Record>, mark: Mark) -> Result<(), PublishError>;

    /// Fences the relay of an older release and returns the number of the batch that it would publish next, or `None`
    /// if it has not published to this cluster.
    async fn next_batch_of_older_release(&mut self, identity: &str) -> anyhow::Result<Option<i64>>;
}

/// The state that earlier sessions left on a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub key: PositionKey,
    pub mark: Option<Mark>,
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another relay started a producer under the same identity.
    #[error("another relay uses the same identity: {0:#}")]
    Fenced(anyhow::Error),
    /// Nothing was published. The brokers refuse some of the records, which the next call identifies.
    #[error("the brokers refuse some of the events: {0:#}")]
    RefusedSome(anyhow::Error),
    /// Nothing was published. The brokers will never accept the records at these indexes, each for the given reason.
    #[error("the brokers refuse {} of the events", .0.len())]
    Refused(Vec<(usize, String)>),
    /// It is unknown whether the records were published.
    #[error(transparent)]
    Failed(anyhow::Error),
}

/// The reason why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("another relay acquired the lease")]
    LeaseLost,
    #[error("the log lacks the last published event or the record of a failure: its history has diverged")]
    Parted,
    #[error("inserts do not acquire the lock that keeps ids in commit order")]
    Unordered,
    #[error("the database server is in recovery")]
    Recovering,
    /// The session was fenced while it held the lease of its database, so another database uses the identity.
    #[error("{0}")]
    Fenced(PublishError),
    #[error("another database, such as a copy, uses the same identity; it was replaced")]
    IdentityReplaced,
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Cluster(#[from] anyhow::Error),
}

/// A relay session that holds the lease.
pub struct Session<'a, C> {
    pub log: &'a mut dyn EventLog,
    pub cluster: C,
    pub lease: Lease,
    pub settings: &'a SessionSettings,
    /// The maximum number of events in the first transaction. The maximum doubles after each success.
    pub first_batch: i64,
    /// What this process retried of the events that could not be published.
    pub retries: &'a mut Retries,
    /// Notified when events are appended to the log.
    pub arrivals: Arc<Notify>,
    pub metrics: RelayMetrics,
    pub shutdown: CancellationToken,
}

impl<C: Cluster> Session<'_, C> {
    /// Publishes until `shutdown`, then releases the lease. With `replace_identity`, replaces the identity once
    /// everything that was published under it is known.
    ///
    /// # Errors
    /// See [`SessionError`]. After an error, the lease is still held unless it was lost.
    pub async fn run(mut self, replace_identity: bool) -> Result<(), SessionError> {
        self.retries.enter(self.lease.epoch);
        let begun = beating(self.log, &self.lease, None, self.settings.beat, {
            let (cluster, identity) = (&mut self.cluster, &self.lease.identity);
            async move { Ok(cluster.begin(identity).await?) }
        })
        .await?;
        // Starting the producer may have taken longer than the lease lasts.
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
        self.publish(&begun.key, last).await
    }

    /// Advances the beat, and the position if one is given.
    pub(super) async fn keep(
        &mut self,
        position: Option<(&PositionKey, &LastPublished)>,
    ) -> Result<(), SessionError> {
        if self.log.renew(&self.lease, position).await? { Ok(()) } else { Err(SessionError::LeaseLost) }
    }

    /// Moves the position past the events that an older release claimed and published before the outbox became a log.
    async fn resolve_claimed(&mut self, key: &PositionKey) -> Result<(), SessionError> {
        let Some(claimed) = self.log.claimed().await? else { return Ok(()) };
        let next = beating(self.log, &self.lease, None, self.settings.beat, {
            let (cluster, identity) = (&mut self.cluster, &claimed.identity);
            async move { Ok(cluster.next_batch_of_older_release(identity).await?) }
        })
        .await?;
        // Without a mark, this may be a cluster that the older release did not publish to.
        let Some(next) = next else { return Ok(()) };
        let published = claimed.batches.iter().filter(|(batch, _)| *batch < next).map(|(_, last)| *last);
        let published = published.max().unwrap_or(0);
        tracing::info!(published, "took over the events that an older release had claimed");
        if self.log.resolve_claimed(&self.lease, key, published).await? {
            Ok(())
        } else {
            Err(SessionError::LeaseLost)
        }
    }

    /// Returns the event up to which everything has been published. Removes the failures of later events, which a session
    /// recorded before it crashed; they are read again.
    async fn resume(&mut self, begun: &Begun) -> Result<LastPublished, SessionError> {
        if let Some(Mark { offset, metadata }) = &begun.mark {
            let id = offset - 1;
            let (event_id, failure) =
                metadata.as_deref().and_then(|text| text.split_once(' ')).unwrap_or_default();
            let last = LastPublished { id, event_id: Some(event_id.to_owned()), failure: failure.to_owned() };
            if self.log.holds(&last).await? {
                self.log.forget_failures_after(&self.lease, &begun.key, last.id).await?;
                return Ok(last);
            }
            self.metrics.histories_parted.inc();
            self.retries.start_over();
            tracing::warn!(
                id,
                "the mark on the cluster names an event that the log does not contain: it belongs to another history \
                 of this database, such as a copy or a backup; continuing from the position in the database"
            );
        }
        let last = self.log.position(&begun.key).await?;
        self.log.forget_failures_after(&self.lease, &begun.key, last.id).await?;
        // Now the most recent failure may be an earlier one.
        let again = self.log.position(&begun.key).await?;
        if (again.id, &again.event_id) == (last.id, &last.event_id) {
            Ok(again)
        } else {
            Err(SessionError::Parted)
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
                LogRead::Parted => return Err(SessionError::Parted),
            };
            let idle = entries.is_empty();
            let began = Instant::now();
            let may_pause = i64::try_from(entries.len()).unwrap_or(i64::MAX) < batch_events;
            if !idle {
                last = self.publish_batch(key, &last, entries).await?;
                batch_events = batch_events.saturating_mul(2).min(self.settings.batch_events);
            }
            let has_retried = self.retry_failures(key, &last).await?;
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
            if has_retried {
                // The events that it appended, or the next failed events, are there to be published.
                continue;
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

    /// Publishes events in one transaction and returns the last of them. Skips events that can never be published.
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
        let mut failures = Vec::new();
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
                failure = self.leave_out(position, &mut entries, failed, &mut failures).await?;
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
                Err(PublishError::RefusedSome(_)) => self.keep(Some(position)).await?,
                Err(PublishError::Refused(refused)) => {
                    failure = self.leave_out(position, &mut entries, refused, &mut failures).await?;
                }
                Err(PublishError::Failed(error)) => return Err(SessionError::Cluster(error)),
                Err(error @ PublishError::Fenced(_)) => {
                    // A relay that acquired the lease fences its predecessor as intended.
                    self.keep(Some(position)).await?;
                    return Err(SessionError::Fenced(error));
                }
            }
        }
    }

    /// Removes events that can never be published from `entries`; `failed` holds their indexes and reasons. Adds them to
    /// the `failures` of the batch, records all of these, and returns the token of the most recent record.
    ///
    /// Must precede the move of the mark past them: after a crash in between, the events are still to be published. One
    /// statement records all, so the token that the mark names proves that the log has each of the records, and every
    /// earlier one, even when a failover has removed some since they were recorded first.
    async fn leave_out(
        &mut self,
        position: (&PositionKey, &LastPublished),
        entries: &mut Vec<LogEntry>,
        failed: Vec<(usize, String)>,
        failures: &mut Vec<(i64, String)>,
    ) -> Result<String, SessionError> {
        let left: HashSet<_> = failed.iter().map(|(index, _)| *index).collect();
        for (index, reason) in failed {
            let Some(LogEntry { id, .. }) = entries.get(index) else { continue };
            tracing::error!(id, reason, "an event can never be published, skipping it");
            failures.push((*id, reason));
        }
        let mut index = 0..;
        entries.retain(|_| index.next().is_some_and(|index| !left.contains(&index)));
        let (key, last) = position;
        match self.log.record_failures(&self.lease, key, last, failures).await? {
            Some(token) => Ok(token),
            None => {
                self.keep(None).await?;
                Err(SessionError::Parted)
            }
        }
    }
}

/// Awaits `work` and advances the beat meanwhile.
pub(super) async fn beating<T>(
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
