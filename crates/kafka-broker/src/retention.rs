//! Deletes expired records from time to time.

use std::sync::Arc;

use tokio::time::{Duration, sleep};

use crate::clock::now_ms;
use crate::shared::Shared;

/// `log.initial.task.delay.ms`
const INITIAL_DELAY: Duration = Duration::from_secs(30);
/// `log.retention.check.interval.ms`
const INTERVAL: Duration = Duration::from_secs(300);

/// Deletes expired records until the broker shuts down.
pub async fn keep(shared: Arc<Shared>) {
    let mut pause = INITIAL_DELAY;
    while shared.shutdown.run_until_cancelled(sleep(pause)).await.is_some() {
        // Logged where it fails. The next check tries again.
        let _ = shared.lock().delete_expired(now_ms());
        pause = INTERVAL;
    }
}
