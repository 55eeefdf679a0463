//! Offers vehicles to stock, on a schedule or from a fixed number of connections.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::ledger::{Ledger, Outcome};
use super::stock_client::{Attempt, StockClient};
use crate::backoff::Backoff;

/// How vehicles are timed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A schedule: the vehicle with number n is due n / `per_second` seconds after the start, no matter how fast stock
    /// answers. A vehicle that is due while `max_outstanding` others wait for an answer is dropped.
    Open { per_second: f64, max_outstanding: usize },
    /// Each connection sends its next vehicle when the previous one is settled.
    Closed { connections: u32 },
}

/// A load to offer.
pub struct Offer {
    pub fleet: Fleet,
    pub stock: StockClient,
    pub ledger: SharedLedger,
    pub pace: Pace,
    pub started: Instant,
    /// No vehicle is due after this time.
    pub length: Option<Duration>,
    pub max_vehicles: u32,
    /// The time for a vehicle to be accepted, retries included.
    pub deadline: Duration,
}

/// The ledger of a load that is running.
#[derive(Clone, Debug)]
pub struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    pub fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(ledger)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Offer {
    /// Offers the vehicles. Returns when each is settled: accepted, refused, given up or dropped. After `stop`, no
    /// further vehicle is offered.
    ///
    /// # Errors
    /// Fails only because of a defect.
    pub async fn run(self, stop: &CancellationToken) -> anyhow::Result<()> {
        let offer = Arc::new(self);
        match offer.pace {
            Pace::Open { per_second, max_outstanding } => offer.open(per_second, max_outstanding, stop).await,
            Pace::Closed { connections } => offer.closed(connections, stop).await,
        }
    }

    async fn open(
        self: &Arc<Self>,
        per_second: f64,
        max_outstanding: usize,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut outstanding = JoinSet::new();
        for number in 0..self.max_vehicles {
            let due = self.started + due_after(number, per_second);
            if self.is_over(due) {
                break;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep_until(due.into()) => {}
            }
            while let Some(ended) = outstanding.try_join_next() {
                settled(ended)?;
            }
            self.ledger.lock().offer(number, due);
            if outstanding.len() < max_outstanding {
                outstanding.spawn(Arc::clone(self).submit(number));
            } else {
                self.ledger.lock().settle(number, Outcome::Dropped, Instant::now());
            }
        }
        while let Some(ended) = outstanding.join_next().await {
            settled(ended)?;
        }
        Ok(())
    }

    async fn closed(self: &Arc<Self>, connections: u32, stop: &CancellationToken) -> anyhow::Result<()> {
        let next = Arc::new(AtomicU32::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..connections {
            let (offer, next, stop) = (Arc::clone(self), Arc::clone(&next), stop.clone());
            clients.spawn(async move {
                loop {
                    let due = Instant::now();
                    if stop.is_cancelled() || offer.is_over(due) {
                        return;
                    }
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= offer.max_vehicles {
                        return;
                    }
                    offer.ledger.lock().offer(number, due);
                    Arc::clone(&offer).submit(number).await;
                }
            });
        }
        while let Some(ended) = clients.join_next().await {
            settled(ended)?;
        }
        Ok(())
    }

    fn is_over(&self, due: Instant) -> bool {
        self.length.is_some_and(|length| due >= self.started + length)
    }

    /// Posts a vehicle until stock accepts or refuses it, or the deadline is over.
    async fn submit(self: Arc<Self>, number: u32) {
        let vehicle = self.fleet.vehicle(number);
        let idempotency_key = format!("load-{}", vehicle.vin);
        let give_up = Instant::now() + self.deadline;
        let mut backoff = Backoff::new();
        let outcome = loop {
            let (kind, retry_after) = match self.stock.post(&vehicle, &idempotency_key).await {
                Attempt::Accepted => break Outcome::Accepted,
                Attempt::Refused(kind) => break Outcome::Refused(kind),
                Attempt::Unknown { kind, retry_after } => (kind, retry_after),
            };
            // The backoff spreads the clients that got the same time.
            let pause = retry_after.unwrap_or_default() + backoff.next_pause();
            if Instant::now() + pause > give_up {
                break Outcome::GaveUp(kind);
            }
            self.ledger.lock().retry(&kind);
            sleep(pause).await;
        };
        self.ledger.lock().settle(number, outcome, Instant::now());
    }
}

/// Returns when a vehicle is due, from the start of the load.
fn due_after(number: u32, per_second: f64) -> Duration {
    Duration::try_from_secs_f64(f64::from(number) / per_second).unwrap_or(Duration::MAX)
}

fn settled(ended: Result<(), JoinError>) -> anyhow::Result<()> {
    ended.context("posting a vehicle panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_does_not_drift() {
        assert_eq!(due_after(0, 500.0), Duration::ZERO);
        assert_eq!(due_after(1, 500.0), Duration::from_millis(2));
        assert_eq!(due_after(1_800_000, 500.0), Duration::from_secs(3_600));
        assert_eq!(due_after(1, 0.1), Duration::from_secs(10));
        assert_eq!(due_after(7, 3.0), Duration::from_secs_f64(7.0 / 3.0));
    }
}
