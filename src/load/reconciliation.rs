//! Compares the vehicles that stock accepted with the ads.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use super::ads_client::ListedAd;
use super::fleet::Fleet;
use super::follower::{Follower, read_to_end};
use super::offer::SharedLedger;
use crate::backoff::Backoff;

/// The interval at which the list of ads is followed, and the resolution of the latencies of the whole path.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The time without a further ad, although one is due, after which the whole list is read again.
const STALLED: Duration = Duration::from_secs(3);
/// The number of vehicles without an ad that are looked up at the same time.
const LOOKUPS: usize = 16;
/// The maximum number of VINs that a finding names.
const EXAMPLES: usize = 10;

/// Vehicles with the same finding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub count: u64,
    /// The VINs of some of them.
    pub examples: Vec<String>,
}

impl Finding {
    fn add(&mut self, vin: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(vin());
        }
    }
}

/// The result of a reconciliation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciliation {
    /// Accepted vehicles without an ad.
    pub lost: Finding,
    /// Vehicles with more than one ad.
    pub doubled: Finding,
}

/// Follows the ads of a load.
pub struct Reconciler {
    pub fleet: Fleet,
    pub ledger: SharedLedger,
    pub follower: Follower,
}

impl Reconciler {
    /// Follows the list of ads until `work` is done. An unavailable ads is followed again when it is back.
    pub async fn follow_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                () = self.look() => {}
            }
        }
    }

    /// Follows the list of ads until each accepted vehicle has an ad, or none of them has appeared for `patience`
    /// although one was due. Returns whether all have.
    pub async fn await_ads(&mut self, patience: Duration) -> bool {
        let mut read_all_at = Instant::now();
        loop {
            let (is_complete, last_news) = {
                let ledger = self.ledger.lock();
                (ledger.is_complete(), ledger.last_news())
            };
            let now = Instant::now();
            let silence = now.saturating_duration_since(last_news);
            if is_complete || silence > patience {
                return is_complete;
            }
            if silence >= STALLED.min(patience / 2) && now >= read_all_at {
                self.look_at_all().await;
                // A long list is read rarely, because ads works for it.
                read_all_at = Instant::now() + STALLED.max(10 * now.elapsed());
            }
            self.look().await;
        }
    }

    /// Follows the list of ads for `duration`, in which second ads may appear.
    pub async fn settle(&mut self, duration: Duration) {
        self.follow_during(tokio::time::sleep(duration)).await;
    }

    async fn look(&mut self) {
        let started = Instant::now();
        let (fleet, ledger) = (self.fleet, &self.ledger);
        let looked = self.follower.look(|ad| see(fleet, ledger, ad));
        let pause = match looked.await {
            Ok(()) => LOOK_EVERY,
            Err(error) => {
                tracing::debug!(%error, "cannot follow the list of ads, will retry");
                10 * LOOK_EVERY
            }
        };
        tokio::time::sleep_until((started + pause).into()).await;
    }

    /// Looks at all ads since the start of the load. One that was written late may be where the follower has passed.
    async fn look_at_all(&self) {
        let client = self.follower.client();
        let page = async |after: Option<&str>| client.page(after).await;
        let looked = read_to_end(page, self.follower.start(), |ad| see(self.fleet, &self.ledger, ad));
        if let Err(error) = looked.await {
            tracing::debug!(%error, "cannot read the list of ads again, will retry");
        }
    }

    /// Reads all ads since the start of the load once more and finds what is lost and what is doubled. A vehicle counts
    /// as lost only when ads, asked for its VIN, does not know it.
    ///
    /// # Errors
    /// Fails when ads does not answer a request for `patience`.
    pub async fn reconcile(&self, patience: Duration) -> anyhow::Result<Reconciliation> {
        let (fleet, ledger) = (self.fleet, &self.ledger);
        ledger.lock().begin_count();
        let see = |ad: &ListedAd| {
            if let Some(number) = fleet.number_of(&ad.vin) {
                ledger.lock().count(number);
            }
        };
        let client = self.follower.client();
        let page =
            async |after: Option<&str>| with_patience(patience, async || client.page(after).await).await;
        read_to_end(page, self.follower.start(), see).await?;
        let (uncounted, doubled): (Vec<_>, Vec<_>) = {
            let ledger = ledger.lock();
            (ledger.uncounted().collect(), ledger.doubled().collect())
        };
        let mut found = Reconciliation::default();
        for number in doubled {
            found.doubled.add(|| fleet.vehicle(number).vin);
        }
        let lookups = stream::iter(uncounted).map(async |number| {
            let vin = fleet.vehicle(number).vin;
            let ads = with_patience(patience, async || client.count(&vin).await).await?;
            anyhow::Ok((vin, ads))
        });
        let mut lookups = lookups.buffered(LOOKUPS);
        while let Some((vin, ads)) = lookups.try_next().await? {
            match ads {
                0 => found.lost.add(|| vin),
                1 => {}
                _ => found.doubled.add(|| vin),
            }
        }
        Ok(found)
    }
}

fn see(fleet: Fleet, ledger: &SharedLedger, ad: &ListedAd) {
    if let Some(number) = fleet.number_of(&ad.vin) {
        ledger.lock().see(number, Instant::now());
    }
}

/// Retries `request` until it succeeds, for at most `patience`.
async fn with_patience<T>(
    patience: Duration,
    request: impl AsyncFn() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let (started, mut backoff) = (Instant::now(), Backoff::new());
    loop {
        match request().await {
            Ok(answer) => return Ok(answer),
            Err(error) if started.elapsed() > patience => {
                return Err(error.context("cannot compare the vehicles with the ads"));
            }
            Err(_) => tokio::time::sleep(backoff.next_pause()).await,
        }
    }
}
