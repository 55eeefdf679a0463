//! Retries the events that could not be published, a few at a time between batches.
//!
//! A retry succeeds only after an upgrade, with other settings of the topic, or with another schema. Each relay that
//! acquires the lease from another, and each new schema, therefore begins one *sweep* over all events that have failed
//! by then. An event that fails again waits for the next sweep.

use super::session::{Cluster, Session, SessionError};
use crate::stock::vehicle_store::{LastPublished, PositionKey};

/// The number of failed events that are retried between two batches.
const PAGE: i64 = 100;

/// The progress of a process's retries. It outlives sessions, so a sweep that is interrupted continues.
#[derive(Debug, Default)]
pub struct Retries {
    /// The epoch of the newest session.
    epoch: i64,
    /// The position and the schema of the newest sweep; `None` before the first one.
    sweep: Option<(PositionKey, u32)>,
    /// The ids that the sweep has yet to retry: those after the first and up to the second.
    rest: Option<(i64, i64)>,
    appended: usize,
    left: usize,
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
    fn begin(&mut self, key: &PositionKey, schema_id: u32, last: i64) {
        if self.sweep.as_ref().is_none_or(|(swept, with)| swept != key || *with != schema_id) {
            self.start_over();
            self.sweep = Some((key.clone(), schema_id));
            self.rest = Some((0, last));
        }
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
        let Some(schema_id) = self.cluster.schema_id() else { return Ok(false) };
        self.retries.begin(key, schema_id, last.id);
        let Some((after, until)) = self.retries.rest else { return Ok(false) };
        let mut failures = self.log.failures(key, after, PAGE).await?;
        failures.retain(|failure| failure.id <= until);
        let Some(newest) = failures.last().map(|failure| failure.id) else {
            self.retries.finish();
            return Ok(false);
        };
        let mut encodable = Vec::new();
        for failure in &failures {
            match self.cluster.refusal(failure) {
                None => encodable.push(failure.id),
                Some(reason) => tracing::debug!(id = failure.id, reason, "an event still cannot be encoded"),
            }
        }
        let appended =
            if encodable.is_empty() { 0 } else { self.log.retry_failures(&self.lease, &encodable).await? };
        self.retries.rest = Some((newest, until));
        self.retries.appended += appended;
        self.retries.left += failures.len() - encodable.len();
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
        retries.begin(&key("one"), 7, 500);
        retries.rest = Some((100, 500));
        retries
    }

    #[test]
    fn a_sweep_that_a_session_interrupts_continues_in_the_next_one() {
        let mut retries = within_a_sweep();
        // This session ends before it publishes.
        retries.enter(5);
        retries.enter(6);
        retries.begin(&key("one"), 7, 900);
        assert_eq!(retries.rest, Some((100, 500)));
    }

    #[test]
    fn a_sweep_is_made_once_for_each_schema() {
        let mut retries = within_a_sweep();
        retries.finish();
        retries.begin(&key("one"), 7, 900);
        assert_eq!(retries.rest, None);
        retries.begin(&key("one"), 8, 900);
        assert_eq!(retries.rest, Some((0, 900)));
    }

    #[test]
    fn a_sweep_begins_again_after_another_relay_held_the_lease() {
        let mut retries = within_a_sweep();
        retries.finish();
        retries.enter(6);
        retries.begin(&key("one"), 7, 900);
        assert_eq!(retries.rest, Some((0, 900)));
    }

    #[test]
    fn a_sweep_begins_again_on_another_cluster() {
        let mut retries = within_a_sweep();
        retries.enter(5);
        retries.begin(&key("two"), 7, 900);
        assert_eq!(retries.rest, Some((0, 900)));
    }
}
