//! Reports whether vehicles can be written, based on the actual writes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::database::DatabaseError;
use crate::error_chain::chain;

/// The time after which a failure no longer counts: a load balancer that removed the instance sends it no further
/// requests.
const RECENT: Duration = Duration::from_secs(10);

/// The failure of the most recent write, if it failed. Some causes show only there, such as a full disk or a slow
/// trigger.
#[derive(Clone, Debug, Default)]
pub struct WriteStatus(Arc<Mutex<Option<(Instant, String)>>>);

impl WriteStatus {
    fn lock(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn written(&self) {
        *self.lock() = None;
    }

    /// Records a failure, unless the values of a single vehicle caused it.
    pub(super) fn failed(&self, error: &DatabaseError) {
        if !matches!(error, DatabaseError::Refused(_)) {
            *self.lock() = Some((Instant::now(), chain(error)));
        }
    }

    /// Checks that vehicles can be written.
    ///
    /// # Errors
    /// Fails when the most recent write failed within the last 10 s.
    pub fn judge(&self) -> anyhow::Result<()> {
        match &*self.lock() {
            Some((failed_at, error)) if failed_at.elapsed() < RECENT => {
                Err(anyhow!("{error}").context("vehicles cannot be written"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_recent_failure_of_the_database_counts() {
        let status = WriteStatus::default();
        assert!(status.judge().is_ok());
        status.failed(&DatabaseError::Refused(anyhow!("a check constraint")));
        assert!(status.judge().is_ok());
        status.failed(&DatabaseError::Unavailable(anyhow!("the disk is full")));
        assert!(format!("{:#}", status.judge().unwrap_err()).contains("the disk is full"));
        status.written();
        assert!(status.judge().is_ok());
        *status.lock() = Instant::now().checked_sub(RECENT).map(|long_ago| (long_ago, String::new()));
        assert!(status.judge().is_ok());
    }
}
