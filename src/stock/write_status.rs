//! Whether vehicles can be written, as the writes themselves show.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::database::DatabaseError;

/// An older failure proves nothing: a balancer that took the instance out sends it no further request.
const RECENT: Duration = Duration::from_secs(10);

/// The failure of the newest write, if it failed. Some reasons show only there: a full disk, a trigger that takes too
/// long.
#[derive(Clone, Debug, Default)]
pub struct WriteStatus(Arc<Mutex<Option<(Instant, String)>>>);

impl WriteStatus {
    fn lock(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn written(&self) {
        *self.lock() = None;
    }

    /// Notes a failure, unless it is about the values of one vehicle.
    pub(super) fn failed(&self, error: &DatabaseError) {
        if !matches!(error, DatabaseError::Refused(_)) {
            *self.lock() = Some((Instant::now(), error.to_string()));
        }
    }

    /// Judges whether vehicles can be written.
    ///
    /// # Errors
    /// When the newest write failed within the last 10 s.
    pub fn judge(&self) -> anyhow::Result<()> {
        match &*self.lock() {
            Some((failed_at, error)) if failed_at.elapsed() < RECENT => {
                anyhow::bail!("vehicles cannot be written: {error}")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn only_a_recent_failure_of_the_database_counts() {
        let status = WriteStatus::default();
        assert!(status.judge().is_ok());
        status.failed(&DatabaseError::Refused(anyhow!("a check constraint")));
        assert!(status.judge().is_ok());
        status.failed(&DatabaseError::Unavailable(anyhow!("the disk is full")));
        assert!(status.judge().unwrap_err().to_string().contains("the disk is full"));
        status.written();
        assert!(status.judge().is_ok());
        *status.lock() = Instant::now().checked_sub(RECENT).map(|long_ago| (long_ago, String::new()));
        assert!(status.judge().is_ok());
    }
}
