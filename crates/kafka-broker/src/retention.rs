//! Deletes expired records and producers from time to time.

use std::sync::Arc;

use tokio::time::{Duration, sleep};

use crate::clock::now_ms;
use crate::shared::Shared;

/// `log.initial.task.delay.ms`
const INITIAL_DELAY: Duration = Duration::from_secs(30);
/// `log.retention.check.interval.ms`
const INTERVAL: Duration = Duration::from_secs(300);

/// `producer.id.expiration.check.interval.ms`
const PRODUCER_INTERVAL: Duration = Duration::from_secs(600);

/// Deletes expired records until the broker shuts down.
pub async fn delete_records(shared: Arc<Shared>) {
    let mut pause = INITIAL_DELAY;
    while shared.shutdown.run_until_cancelled(sleep(pause)).await.is_some() {
        // Logged where it fails. The next check tries again.
        let _ = shared.lock().delete_expired(now_ms());
        pause = INTERVAL;
    }
}

/// Forgets expired producers until the broker shuts down.
pub async fn expire_producers(shared: Arc<Shared>) {
    while shared.shutdown.run_until_cancelled(sleep(PRODUCER_INTERVAL)).await.is_some() {
        let _ = shared.lock().expire_producers(now_ms());
    }
}
