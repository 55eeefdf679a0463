//! Posts vehicles at a steady rate and records the accepted ones outside the platform.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use crate::support::cluster::Platform;

/// The prefix of the vins of posted vehicles.
pub const VIN: &str = "vin-";

/// Records when each vehicle was accepted and the stalls that clients observed.
#[derive(Default)]
pub struct Ledger {
    entries: Mutex<Vec<(String, Instant)>>,
    longest_post: Mutex<Duration>,
    /// Closed while nothing may be posted or written by others.
    pub gate: RwLock<()>,
    by_twin: AtomicUsize,
}

/// A stock that clients may post a vehicle to.
pub struct Target {
    pub url: String,
    pub is_twin: bool,
}

impl Ledger {
    fn enter(&self, vin: String, first_try: Instant, by_twin: bool) {
        let now = Instant::now();
        self.by_twin.fetch_add(usize::from(by_twin), Ordering::Relaxed);
        self.entries.lock().unwrap().push((vin, now));
        let mut longest = self.longest_post.lock().unwrap();
        *longest = longest.max(now - first_try);
    }

    pub fn vins(&self) -> HashSet<String> {
        self.entries.lock().unwrap().iter().map(|(vin, _)| vin.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }

    /// Returns the vehicles that were accepted after the first `known`.
    pub fn after(&self, known: usize) -> Vec<String> {
        self.entries.lock().unwrap()[known..].iter().map(|(vin, _)| vin.clone()).collect()
    }

    /// Returns the number of vehicles that the second stock accepted.
    pub fn accepted_by_twin(&self) -> usize {
        self.by_twin.load(Ordering::Relaxed)
    }

    /// Returns the number of vehicles that were accepted before `time`.
    pub fn accepted_before(&self, time: Instant) -> usize {
        // Clients race for the lock, so the order is correct to within microseconds.
        self.entries.lock().unwrap().partition_point(|(_, accepted)| *accepted < time)
    }

    /// Returns the longest time from the first attempt of a client to the acceptance of its vehicle.
    pub fn longest_post(&self) -> Duration {
        *self.longest_post.lock().unwrap()
    }
}

/// Posts the vehicles that `next` numbers from several clients that pause for `pace` in between. Each attempt goes to
/// one of the current `targets`. Returns once every vehicle has been accepted.
pub async fn drive(
    platform: Arc<Platform>,
    ledger: Arc<Ledger>,
    clients: u32,
    pace: Duration,
    next: impl Fn() -> Option<u64> + Clone + Send + 'static,
    targets: impl Fn() -> Vec<Target> + Clone + Send + Sync + 'static,
) {
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (platform, ledger) = (Arc::clone(&platform), Arc::clone(&ledger));
        let (next, targets) = (next.clone(), targets.clone());
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval(pace);
            while let Some(number) = next() {
                ticks.tick().await;
                let _open = ledger.gate.read().await;
                let vin = format!("{VIN}{number}");
                let first_try = Instant::now();
                let by_twin = post_until_accepted(&platform, &vin, &targets).await;
                ledger.enter(vin, first_try, by_twin);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Returns whether the second stock accepted the vehicle.
async fn post_until_accepted(platform: &Platform, vin: &str, targets: &impl Fn() -> Vec<Target>) -> bool {
    loop {
        let mut targets = targets();
        let Target { url, is_twin } = targets.swap_remove(rand::random_range(0..targets.len()));
        match platform.post_to(&url, vin).await {
            // A previous attempt was accepted, but its response was lost.
            Some(answer) if answer.status() == StatusCode::CONFLICT => return is_twin,
            Some(answer) if answer.status() == StatusCode::CREATED => return is_twin,
            Some(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => {
                assert!(answer.headers().contains_key("retry-after"), "a 503 without Retry-After");
            }
            // The request was in progress when the process was paused (RFC 9110, section 15.5.9).
            Some(answer) if answer.status() == StatusCode::REQUEST_TIMEOUT => {}
            Some(answer) => panic!("{vin}: {} {:?}", answer.status(), answer.text().await),
            None => {}
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(100..400))).await;
    }
}
