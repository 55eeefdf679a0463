//! Follows the list of ads.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use serde::Deserialize;
use uuid::{NoContext, Timestamp, Uuid};

use super::PAGES;
use crate::console::ledger::AdOutcome;
use crate::console::role_client::RoleClient;
use crate::console::state::{AdView, Console};
use crate::console::traces::Passed;
use crate::console::vehicle_key::VehicleKey;
use crate::excerpt::excerpt;
use crate::vehicle::Vin;

/// The time for which ads that sort before a known one are looked for at each reading: several inserts are in progress
/// at a time.
const SETTLED: Duration = Duration::from_secs(3);
/// How often the latest part of the list is read again, and how far back it reaches: an ad gets its id before it is
/// written, so one of an instance that was suspended, or whose clock is behind, appears there late.
const LOOK_BACK_EVERY: Duration = Duration::from_secs(15);
const LOOK_BACK: Duration = Duration::from_secs(60);
/// The maximum number of ads in that part, beyond which it is shorter.
const MAX_SEEN: usize = 200_000;
/// The number of suspects that are looked up at a time.
const LOOK_UPS: usize = 20;
/// The maximum number of vehicles that wait for a look at whether they have a second ad.
const MAX_DOUBTFUL: usize = 10_000;
/// The number of ads to begin with.
const FIRST_ADS: usize = 30;
const MAX_TEXT_CHARS: usize = 80;
/// The time beyond an estimate after which a vehicle is late, in milliseconds.
const MARGIN: i64 = 10_000;

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ad {
    id: String,
    published_at: DateTime<Utc>,
    vehicle_id: Option<i64>,
    vin: String,
    model: String,
    manufacturer: String,
    year: i64,
    price: f64,
    price_unit: String,
}

impl From<&Ad> for AdView {
    fn from(ad: &Ad) -> Self {
        let text = |text: &str| excerpt(text, MAX_TEXT_CHARS);
        Self {
            id: excerpt(&ad.id, MAX_TEXT_CHARS).into(),
            published: ad.published_at.timestamp_millis(),
            vehicle: ad.vehicle_id,
            vin: text(&ad.vin),
            name: text(&format!("{} {}", ad.manufacturer, ad.model)),
            year: ad.year,
            price: ad.price,
            unit: text(&ad.price_unit),
        }
    }
}

/// The list of ads, and how far it was read.
pub(super) struct AdList {
    console: Arc<Console>,
    ads: RoleClient,
    /// The positions in the list up to which it was read, and when. The first one is where looking back begins.
    reached: VecDeque<(Instant, String)>,
    /// The ads after the first position.
    seen: BTreeSet<String>,
    looked_back: Instant,
    /// The next page to be read again.
    looking_back: Option<String>,
    /// The last ad that was seen.
    newest: Option<String>,
    /// The vehicles that may have a second ad.
    doubtful: BTreeSet<VehicleKey>,
}

impl AdList {
    pub(super) fn new(console: Arc<Console>, ads: RoleClient) -> Self {
        Self {
            console,
            ads,
            reached: VecDeque::new(),
            seen: BTreeSet::new(),
            looked_back: Instant::now(),
            looking_back: None,
            newest: None,
            doubtful: BTreeSet::new(),
        }
    }

    /// Reads the ads that were added to the list.
    pub(super) async fn read(&mut self) -> anyhow::Result<()> {
        self.read_at(Instant::now()).await
    }

    pub(super) async fn read_at(&mut self, now: Instant) -> anyhow::Result<()> {
        if let Some(newest) = &self.newest
            && self.ads.get(&format!("/ads/{newest}")).await?.0 == StatusCode::NOT_FOUND
        {
            tracing::warn!(
                "ads has another database or an earlier state of it, will count from here; audit finds vehicles without an ad"
            );
            *self = Self::new(Arc::clone(&self.console), self.ads.clone());
            let mut state = self.console.lock();
            if state.ledger.has_begun() {
                let listed = state.ledger.listed();
                state.ledger.begin(listed, Utc::now().timestamp_millis());
            }
        }
        if self.reached.is_empty() {
            self.reached.push_back((now, self.first_cursor().await?));
            self.looked_back = now;
        }
        let settled = self.reached.iter().rfind(|(at, _)| now.saturating_duration_since(*at) > SETTLED);
        let Some((_, from)) = settled.or(self.reached.front()).cloned() else { return Ok(()) };
        let mut end = from.clone();
        let mut path = Some(page_after(&from));
        for _ in 0..PAGES {
            let Some(page) = path.take() else { break };
            let (ads, next) = self.ads.page::<Ad>(&page).await?;
            path = next;
            self.see(&ads);
            end = ads.into_iter().next_back().map_or(end, |last| last.id);
        }
        self.reached.push_back((now, end));
        self.look_back(now, &from).await
    }

    /// Reads the latest part of the list again up to `until`, from time to time. A long part takes several calls.
    async fn look_back(&mut self, now: Instant, until: &str) -> anyhow::Result<()> {
        if self.looking_back.is_none() {
            self.forget(now);
            if now.saturating_duration_since(self.looked_back) < LOOK_BACK_EVERY {
                return Ok(());
            }
            self.looked_back = now;
            self.looking_back = self.reached.front().map(|(_, cursor)| page_after(cursor));
        }
        for _ in 0..PAGES {
            let Some(page) = &self.looking_back else { break };
            let (ads, next) = self.ads.page::<Ad>(page).await?;
            self.see(&ads);
            let is_over = ads.last().is_some_and(|last| *last.id >= *until);
            self.looking_back = next.filter(|_| !is_over);
        }
        Ok(())
    }

    /// Forgets the ads before the part of the list that is read again.
    fn forget(&mut self, now: Instant) {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > LOOK_BACK;
        while let Some((_, cursor)) = self.reached.front()
            && let Some((next, _)) = self.reached.get(1)
        {
            while self.seen.first().is_some_and(|first| first <= cursor) {
                self.seen.pop_first();
            }
            if !is_old(next) && self.seen.len() <= MAX_SEEN {
                return;
            }
            self.reached.pop_front();
        }
    }

    /// Records the ads that were not seen before.
    fn see(&mut self, ads: &[Ad]) {
        let mut state = self.console.lock();
        let now = Utc::now().timestamp_millis();
        let since = state.ledger.since();
        for ad in ads {
            if !self.seen.insert(ad.id.clone()) {
                continue;
            }
            self.newest = self.newest.take().max(Some(ad.id.clone()));
            let published = ad.published_at.timestamp_millis();
            // Stock does not accept another vin, and ads cannot be asked for it.
            let vehicle = ad.vehicle_id.filter(|_| Vin::parse(&ad.vin).is_ok());
            if let Some(vehicle) = vehicle.map(|id| VehicleKey::new(id, &ad.vin)) {
                match state.ledger.ad(&vehicle, &ad.id, published) {
                    AdOutcome::First(millis) => state.history.path(now, millis),
                    AdOutcome::Doubtful if self.doubtful.len() < MAX_DOUBTFUL => {
                        self.doubtful.insert(vehicle);
                    }
                    AdOutcome::Doubtful | AdOutcome::Known => {}
                }
            }
            if since.is_some_and(|since| published >= since) {
                state.totals.ads += 1;
            }
            state.ways.step(&ad.vin, |way| {
                way.ad = Some(ad.id.clone());
                way.published = Some(published);
            });
            state.show_ad(ad.into());
        }
    }

    /// Returns a cursor before about the last 30 ads, and before all of vehicles that count. An id begins with the time,
    /// which is searched for.
    async fn first_cursor(&self) -> anyhow::Result<String> {
        let (mut low, mut high) = (0, Utc::now().timestamp().unsigned_abs());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let path = format!("/ads?limit={FIRST_ADS}&after={}", cursor_at(middle));
            let (ads, next) = self.ads.page::<Ad>(&path).await?;
            if ads.len() >= FIRST_ADS || next.is_some() {
                low = middle;
            } else {
                high = middle;
            }
        }
        let since = self.console.lock().ledger.since();
        let since = since.and_then(|millis| u64::try_from(millis / 1_000).ok());
        Ok(cursor_at(since.map_or(low, |since| since.min(low))))
    }

    #[cfg(test)]
    pub(super) fn retained(&self) -> usize {
        self.seen.len()
    }

    async fn ads_of(&self, vin: &str) -> anyhow::Result<Vec<Ad>> {
        let vin = percent_encoding::utf8_percent_encode(vin, percent_encoding::NON_ALPHANUMERIC);
        Ok(self.ads.page::<Ad>(&format!("/ads?limit=10&vin={vin}")).await?.0)
    }

    /// Asks ads for the vehicles that seem to have a second ad or to be lost.
    pub(super) async fn look_up(&mut self) -> anyhow::Result<()> {
        let doubtful = self.look_up_doubtful().await;
        self.look_up_suspects().await.and(doubtful)
    }

    /// Asks ads for the vehicles that seem to have a second ad.
    async fn look_up_doubtful(&mut self) -> anyhow::Result<()> {
        for _ in 0..LOOK_UPS {
            let Some(vehicle) = self.doubtful.pop_first() else { break };
            let ads = match self.ads_of(&vehicle.vin).await {
                Ok(ads) => ads,
                Err(error) => {
                    self.doubtful.insert(vehicle);
                    return Err(error);
                }
            };
            // Other vehicles may have had the same vin before stock refused that.
            if ads.iter().filter(|ad| ad.vehicle_id.is_none_or(|of| of == vehicle.id)).count() > 1 {
                self.console.lock().ledger.doubled(&vehicle);
            }
        }
        Ok(())
    }

    /// Asks ads for the vehicles that seem to be lost.
    async fn look_up_suspects(&self) -> anyhow::Result<()> {
        let suspects = {
            let mut state = self.console.lock();
            let passed: Passed = state.passed.clone();
            let allowed = self.console.settings.processing + MARGIN;
            state.ledger.suspects(Utc::now().timestamp_millis(), allowed, &passed, LOOK_UPS)
        };
        for vehicle in suspects {
            let ads = self.ads_of(&vehicle.vin).await?;
            let mut state = self.console.lock();
            // Ads makes one ad of a vin, also when stock gives it a second id.
            match ads.first() {
                Some(ad) => {
                    let published = ad.published_at.timestamp_millis();
                    let _ = state.ledger.ad(&vehicle, &ad.id, published);
                    state.ways.step(&vehicle.vin, |way| {
                        way.ad = Some(ad.id.clone());
                        way.published = Some(published);
                    });
                }
                // Its record and the dead letter may have been read in any order.
                None if state.letters.holds(&vehicle) => state.ledger.dead(&vehicle, true),
                None => state.ledger.lost(&vehicle),
            }
        }
        Ok(())
    }
}

fn page_after(cursor: &str) -> String {
    format!("/ads?limit=1000&after={cursor}")
}

/// Returns the smallest id of an ad that is published at this time, in seconds since the Unix epoch.
fn cursor_at(seconds: u64) -> String {
    let first = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, 0)).as_u128();
    // The 74 bits after the time are random, except for the version and the variant.
    let time = first & !((1 << 80) - 1);
    Uuid::from_u128(time | (7 << 76) | (2 << 62)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_sorts_before_the_ads_of_its_second_and_after_earlier_ones() {
        let id = |seconds, nanos| Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, nanos)).to_string();
        let cursor = cursor_at(1_800_000_000);
        assert!(cursor < id(1_800_000_000, 0) && cursor > id(1_799_999_999, 999_000_000), "{cursor}");
        assert_eq!(cursor.parse::<Uuid>().unwrap().get_version_num(), 7);
    }
}
