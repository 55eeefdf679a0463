//! Ends sessions, rebalances and transactions at their deadlines.

use std::sync::Arc;

use tokio::time::{Duration, Instant};

use crate::clock::now_ms;
use crate::core::Core;
use crate::shared::Shared;

/// Acts on deadlines until the broker shuts down.
pub async fn keep(shared: Arc<Shared>) {
    loop {
        let next = expire(&mut shared.lock(), Instant::now(), now_ms());
        let due = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            () = shared.deadlines.notified() => {}
            () = due => {}
        }
    }
}

/// Ends what is past its deadline, and returns the next deadline.
fn expire(core: &mut Core, now: Instant, now_ms: i64) -> Option<Instant> {
    core.coordinate(|groups| groups.expire(now));
    let transactions = core.expire_transactions(now_ms).map(|wait| now + wait.max(Duration::from_millis(1)));
    core.groups.next_deadline().into_iter().chain(transactions).min()
}
