//! Reconciles the vehicles that stock accepts with their ads, while the platform runs.
//!
//! A vehicle counts when stock accepted it after the console began to count. Whatever the console is about to report
//! as lost or doubled, it verifies first by asking ads for the vin. A vehicle that is only late is not lost: it is lost
//! when the platform has moved past it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde::Serialize;

/// The maximum number of vehicles whose details are retained while they are on their way, and after.
const MAX_OPEN: usize = 50_000;
const MAX_DONE: usize = 50_000;
/// The maximum number of vehicles that are known before stock's list shows them.
const MAX_EARLY: usize = 10_000;
/// The maximum length of a vin that stock accepts.
pub const MAX_VIN_CHARS: usize = 64;
/// The time that the last part of a transaction may take to become visible, in milliseconds.
const SETTLED: i64 = 10_000;

/// A position in a topic: partition and offset.
pub type Spot = (i32, i64);

/// A vehicle without an ad.
#[derive(Clone, Debug)]
pub struct OpenVehicle {
    pub vin: Box<str>,
    accepted_at: i64,
    created: Option<Spot>,
    processed: Option<Spot>,
    is_dead: bool,
    /// Since when the platform has been past the vehicle.
    passed_since: Option<i64>,
    is_lost: bool,
}

/// What is known of a vehicle before stock's list shows it.
#[derive(Clone, Debug, Default)]
struct Early {
    created: Option<Spot>,
    processed: Option<Spot>,
    /// The id of the ad, and when it was published.
    ad: Option<(Box<str>, i64)>,
}

/// What the platform has finished.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// The committed offsets of the estimators.
    pub estimated: BTreeMap<i32, i64>,
    /// The committed offsets of ads.
    pub advertised: BTreeMap<i32, i64>,
}

impl Passed {
    /// Returns whether a vehicle is behind the platform. `published` is whether stock has published a later one.
    fn is_past(&self, vehicle: &OpenVehicle, published: bool) -> bool {
        let is_past = |committed: &BTreeMap<i32, i64>, (partition, offset): Spot| {
            committed.get(&partition).is_some_and(|next| *next > offset)
        };
        match (vehicle.processed, vehicle.created) {
            (Some(spot), _) => is_past(&self.advertised, spot),
            (None, Some(spot)) => is_past(&self.estimated, spot),
            (None, None) => published,
        }
    }
}

/// The reconciliation since the console began to count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Since when vehicles count, in milliseconds since the Unix epoch.
    pub since: Option<i64>,
    pub accepted: u64,
    /// Vehicles without an ad that are neither in a dead letter nor lost.
    pub on_their_way: u64,
    /// Vehicles on their way that have taken longer than expected.
    pub late: u64,
    /// Vehicles with at least one ad.
    pub ads: u64,
    /// Vehicles whose record is an unresolved dead letter.
    pub dead: u64,
    pub lost: u64,
    /// Vehicles with more than one ad.
    pub doubled: u64,
    /// Records about a vehicle that was priced before; ads makes one ad of all.
    pub repeated: u64,
    /// Vehicles that are counted but not followed, because too many were on their way at the same time.
    pub unfollowed: u64,
}

/// What happened to an ad.
#[derive(Debug, PartialEq, Eq)]
pub enum AdOutcome {
    /// It is the first ad of the vehicle, which took this number of milliseconds since stock accepted it.
    First(i64),
    /// There is no ad, it is known already, or its vehicle does not count yet.
    Known,
    /// The vehicle may have another ad: ask ads for the vin.
    Doubtful,
}

#[derive(Debug, Default)]
pub struct Ledger {
    since: Option<i64>,
    /// The highest id that existed when the console began to count.
    base: i64,
    /// The highest id in stock's list.
    listed: i64,
    /// The highest id in the list that has an event. Stock publishes events in the order of the ids.
    published: i64,
    open: BTreeMap<i64, OpenVehicle>,
    /// The vehicles after `listed`.
    early: BTreeMap<i64, Early>,
    /// The ids of the ads of the latest vehicles with an ad, by the id of the vehicle.
    done: HashMap<i64, Box<str>>,
    done_order: VecDeque<i64>,
    accepted: u64,
    ads: u64,
    /// The vehicles with more than one ad.
    doubled: BTreeSet<i64>,
    repeated: u64,
    unfollowed: u64,
    late: u64,
}

impl Ledger {
    /// Begins to count the vehicles after the one with the id `base`.
    pub fn begin(&mut self, base: i64, now: i64) {
        *self = Self { since: Some(now), base, listed: base, ..Self::default() };
    }

    pub fn has_begun(&self) -> bool {
        self.since.is_some()
    }

    /// Returns since when vehicles count, in milliseconds since the Unix epoch.
    pub fn since(&self) -> Option<i64> {
        self.since
    }

    /// Returns the highest id in stock's list.
    pub fn listed(&self) -> i64 {
        self.listed
    }

    fn counts(&self, id: i64) -> bool {
        self.has_begun() && id > self.base
    }

    /// Records a vehicle in stock's list, which contains every vehicle once, in the order of the ids. Returns `None`
    /// when the vehicle does not count.
    pub fn list(&mut self, id: i64, vin: &str, accepted_at: i64) -> Option<AdOutcome> {
        if !self.counts(id) || id <= self.listed {
            return None;
        }
        self.listed = id;
        self.accepted += 1;
        let Early { created, processed, ad } = self.early.remove(&id).unwrap_or_default();
        if created.is_some() {
            self.published = id;
        }
        if let Some((ad, at)) = ad {
            self.ads += 1;
            self.finish(id, &ad);
            return Some(AdOutcome::First((at - accepted_at).max(0)));
        }
        if self.open.len() >= MAX_OPEN {
            self.unfollowed += 1;
            return Some(AdOutcome::Known);
        }
        let vehicle = OpenVehicle {
            vin: vin.into(),
            accepted_at,
            created,
            processed,
            is_dead: false,
            passed_since: None,
            is_lost: false,
        };
        self.open.insert(id, vehicle);
        Some(AdOutcome::Known)
    }

    /// Returns what is known of a vehicle that stock's list has not shown yet. Anyone can write an event about a
    /// vehicle, but only the list proves that stock accepted it.
    fn early(&mut self, id: i64) -> Option<&mut Early> {
        let has_room = self.early.len() < MAX_EARLY || self.early.contains_key(&id);
        (id > self.listed && has_room).then(|| self.early.entry(id).or_default())
    }

    /// Records an event about a created vehicle.
    pub fn created(&mut self, id: i64, spot: Spot) {
        if !self.counts(id) {
            return;
        }
        if id <= self.listed {
            self.published = self.published.max(id);
        }
        if let Some(vehicle) = self.open.get_mut(&id) {
            // A vehicle that is published or put back once more begins again.
            if vehicle.created.replace(spot).is_some_and(|known| known != spot) {
                vehicle.processed = None;
                vehicle.is_dead = false;
                vehicle.is_lost = false;
                vehicle.passed_since = None;
            }
        } else if let Some(early) = self.early(id) {
            early.created = Some(spot);
        }
    }

    /// Records an event about a priced vehicle.
    pub fn processed(&mut self, id: i64, spot: Spot) {
        if !self.counts(id) {
            return;
        }
        if let Some(vehicle) = self.open.get_mut(&id) {
            self.repeated += u64::from(vehicle.processed.is_some_and(|known| known != spot));
            vehicle.processed = Some(spot);
            vehicle.passed_since = None;
            vehicle.is_dead = false;
        } else if self.done.contains_key(&id) {
            self.repeated += 1;
        } else if let Some(early) = self.early(id) {
            early.processed = Some(spot);
        }
    }

    /// Forgets the positions in the topic of created vehicles, or else in that of priced vehicles, because it was
    /// created again.
    pub fn forget_positions(&mut self, created: bool) {
        for vehicle in self.open.values_mut() {
            if created {
                vehicle.created = None;
            } else {
                vehicle.processed = None;
            }
        }
    }

    /// Records that the record of a vehicle is, or is no longer, an unresolved dead letter.
    pub fn dead(&mut self, id: i64, is_dead: bool) {
        if let Some(vehicle) = self.open.get_mut(&id) {
            vehicle.is_dead = is_dead;
            vehicle.passed_since = None;
        }
    }

    /// Records an ad of the vehicle with this id.
    pub fn ad(&mut self, id: i64, ad: &str, at: i64) -> AdOutcome {
        if !self.counts(id) {
            return AdOutcome::Known;
        }
        if let Some(vehicle) = self.open.remove(&id) {
            self.ads += 1;
            self.finish(id, ad);
            return AdOutcome::First((at - vehicle.accepted_at).max(0));
        }
        match self.done.get(&id) {
            Some(known) if **known == *ad => AdOutcome::Known,
            Some(_) => AdOutcome::Doubtful,
            None if id > self.listed => {
                if let Some(early) = self.early(id) {
                    early.ad = Some((ad.into(), at));
                }
                AdOutcome::Known
            }
            None if self.unfollowed > 0 => {
                self.ads += 1;
                self.finish(id, ad);
                AdOutcome::Known
            }
            None => AdOutcome::Doubtful,
        }
    }

    fn finish(&mut self, id: i64, ad: &str) {
        self.done.insert(id, ad.into());
        self.done_order.push_back(id);
        if self.done_order.len() > MAX_DONE
            && let Some(oldest) = self.done_order.pop_front()
        {
            self.done.remove(&oldest);
        }
    }

    /// Records that ads has more than one ad for a vehicle.
    pub fn doubled(&mut self, id: i64) {
        if self.doubled.len() < MAX_DONE {
            self.doubled.insert(id);
        }
    }

    /// Returns at most `limit` vehicles that are past their time and that the platform has passed, to ask ads for.
    pub fn suspects(
        &mut self,
        now: i64,
        allowed: i64,
        passed: &Passed,
        limit: usize,
    ) -> Vec<(i64, Box<str>)> {
        let mut suspects = Vec::new();
        self.late = 0;
        for (id, vehicle) in &mut self.open {
            if vehicle.is_dead || vehicle.is_lost || now - vehicle.accepted_at <= allowed {
                continue;
            }
            self.late += 1;
            if !passed.is_past(vehicle, self.published > *id) {
                vehicle.passed_since = None;
                continue;
            }
            let since = *vehicle.passed_since.get_or_insert(now);
            if now - since >= SETTLED && suspects.len() < limit {
                suspects.push((*id, vehicle.vin.clone()));
            }
        }
        suspects
    }

    /// Records that ads has no ad for a suspect.
    pub fn lost(&mut self, id: i64) {
        if let Some(vehicle) = self.open.get_mut(&id) {
            vehicle.is_lost = true;
        }
    }

    pub fn summary(&self) -> Counts {
        let count = |is: fn(&&OpenVehicle) -> bool| self.open.values().filter(is).count() as u64;
        let dead = count(|vehicle| vehicle.is_dead);
        let lost = count(|vehicle| vehicle.is_lost && !vehicle.is_dead);
        Counts {
            since: self.since,
            accepted: self.accepted,
            on_their_way: self.accepted.saturating_sub(self.ads + dead + lost),
            late: self.late,
            ads: self.ads,
            dead,
            lost,
            doubled: self.doubled.len() as u64,
            repeated: self.repeated,
            unfollowed: self.unfollowed,
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
