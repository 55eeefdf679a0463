//! Retries the events that could not be published, a few at a time between batches.
//!
//! A retry succeeds only after an upgrade, with other settings of the topic, or with another schema. Each relay that
//! acquires the lease from another, and each new schema, therefore begins one *sweep* over all events that have failed
//! by then. An event that fails again waits for the next sweep.

use std::time::{Duration, Instant};

use super::session::{Cluster, Session, SessionError, beating};
use crate::stock::vehicle_store::{LastPublished, PositionKey};

/// The number of failed events that are retried between two batches.
const PAGE: i64 = 100;
/// The pause after a page that no registry encoded. Events that have not failed come first.
const PAUSE: Duration = Duration::from_secs(300);

/// The progress of a process's retries. It outlives sessions, so a sweep that is interrupted continues.
#[derive(Debug, Default)]
pub struct Retries {
    /// The epoch of the newest session.
    epoch: i64,
    /// The position and the schema of the newest sweep; `None` before the first one.
    sweep: Option<(PositionKey, Option<u32>)>,
    /// The ids that the sweep has yet to retry: those after the first and up to the second.
    rest: Option<(i64, i64)>,
    not_before: Option<Instant>,
    appended: u64,
    left: u64,
}

impl Retries {
    /// Continues in a session that has taken the lease, unless another relay took it since the last one.
    pub(super) fn enter(&mut self, epoch: i64) {
        if self.epoch.checked_add(1) != Some(epoch) {
            self.start_over();
        }
        self.epoch = epoch;
    }

    /// Forgets which events were retried.
    pub(super) fn start_over(&mut self) {
        *self = Self { epoch: self.epoch, ..Self::default() };
    }

    /// Begins a sweep over the events up to `last` if this is another position or schema than that of the newest one.
    fn begin(&mut self, key: &PositionKey, schema_id: Option<u32>, last: i64) {
        if self.sweep.as_ref().is_none_or(|(swept, with)| swept != key || *with != schema_id) {
            self.start_over();
            self.sweep = Some((key.clone(), schema_id));
            self.rest = Some((0, last));
        }
    }

    /// Returns the range of ids to retry now.
    fn due(&self) -> Option<(i64, i64)> {
        self.rest.filter(|_| self.not_before.is_none_or(|time| Instant::now() >= time))
    }

    fn finish(&mut self) {
        self.rest = None;
        let Self { appended, left, .. } = *self;
        if left > 0 {
            tracing::warn!(
                appended,
                left,
                "retried the events that could not be published, some still cannot be"
            );
        } else if appended > 0 {
            tracing::info!(appended, "retried the events that could not be published");
        }
    }
}

impl<C: Cluster> Session<'_, C> {
    /// Appends a few failed events to the log again if they can be encoded. Returns whether it retried any.
    pub(super) async fn retry_failures(
        &mut self,
        key: &PositionKey,
        last: &LastPublished,
    ) -> Result<bool, SessionError> {
        self.retries.begin(key, self.cluster.schema_id(), last.id);
        let Some((after, until)) = self.retries.due() else { return Ok(false) };
        let mut failures = self.log.failures(key, after, PAGE).await?;
        failures.retain(|failure| failure.id <= until);
        let Some(newest) = failures.last().map(|failure| failure.id) else {
            self.retries.finish();
            return Ok(false);
        };
        let encoded = beating(self.log, &self.lease, Some((key, last)), self.settings.beat, {
            let (cluster, failures) = (&self.cluster, &failures);
            async move { Ok(cluster.encode(failures).await) }
        })
        .await?;
        let encoded = match encoded {
            Ok(encoded) => encoded,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, pause = ?PAUSE, "cannot retry the events that could not be published");
                self.retries.not_before = Some(Instant::now() + PAUSE);
                return Ok(false);
            }
        };
        let (mut appended, mut left) = (0, 0);
        let mut kept = Instant::now();
        for (entry, encoded) in failures.iter().zip(encoded) {
            match encoded {
                Ok(_) => appended += u64::from(self.log.retry_failure(&self.lease, entry.id).await?),
                Err(reason) => {
                    left += 1;
                    tracing::debug!(id = entry.id, reason, "an event still cannot be encoded");
                }
            }
            if kept.elapsed() >= self.settings.beat {
                self.keep(Some((key, last))).await?;
                kept = Instant::now();
            }
        }
        self.retries.rest = Some((newest, until));
        self.retries.appended += appended;
        self.retries.left += left;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cluster: &str) -> PositionKey {
        PositionKey { cluster: cluster.to_owned(), topic: "topic".to_owned() }
    }

    fn within_a_sweep() -> Retries {
        let mut retries = Retries::default();
        retries.enter(4);
        retries.begin(&key("one"), Some(7), 500);
        retries.rest = Some((100, 500));
        retries
    }

    #[test]
    fn a_sweep_that_a_session_interrupts_continues_in_the_next_one() {
        let mut retries = within_a_sweep();
        // This session ends before it publishes.
        retries.enter(5);
        retries.enter(6);
        retries.begin(&key("one"), Some(7), 900);
        assert_eq!(retries.due(), Some((100, 500)));
    }

    #[test]
    fn a_sweep_is_made_once_for_each_schema() {
        let mut retries = within_a_sweep();
        retries.finish();
        retries.begin(&key("one"), Some(7), 900);
        assert_eq!(retries.due(), None);
        retries.begin(&key("one"), Some(8), 900);
        assert_eq!(retries.due(), Some((0, 900)));
    }

    #[test]
    fn a_sweep_begins_again_after_another_relay_held_the_lease() {
        let mut retries = within_a_sweep();
        retries.finish();
        retries.enter(6);
        retries.begin(&key("one"), Some(7), 900);
        assert_eq!(retries.due(), Some((0, 900)));
    }

    #[test]
    fn a_sweep_begins_again_on_another_cluster() {
        let mut retries = within_a_sweep();
        retries.enter(5);
        retries.begin(&key("two"), Some(7), 900);
        assert_eq!(retries.due(), Some((0, 900)));
    }
}
