//! Reconciles the vehicles that stock accepts with their ads, while the platform runs.
//!
//! A vehicle counts when stock accepted it after the console began to count. Whatever the console is about to report
//! as lost or doubled, it verifies first by asking ads for the vin. A vehicle that is only late is not lost: it is lost
//! when the platform has moved past it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use super::counts::Counts;
use super::early::{Early, EarlyVehicles};
use super::sweep::Sweeper;
use super::traces::{Passed, Spot, Traces};
use super::vehicle_key::VehicleKey;

/// The maximum number of vehicles whose details are retained while they are on their way, and after.
const MAX_OPEN: usize = 50_000;
const MAX_DONE: usize = 50_000;
/// The maximum number of vehicles without details whose first ad is recognized.
const MAX_UNFOLLOWED: usize = 1_000_000;
/// The maximum length of a vin that stock accepts.
pub const MAX_VIN_CHARS: usize = 64;
/// The time that the last part of a transaction may take to become visible, in milliseconds.
pub const SETTLED: i64 = 10_000;

/// A vehicle without an ad.
#[derive(Clone, Debug)]
struct OpenVehicle {
    vin: Arc<str>,
    accepted_at: i64,
    traces: Traces,
    /// Since when a later vehicle has been published although no record of this one was read.
    missed_since: Option<i64>,
    /// Since when the platform has been past the vehicle.
    passed_since: Option<i64>,
    is_lost: bool,
}

impl OpenVehicle {
    /// Judges the vehicle again, because more is known of it.
    fn begin_again(&mut self) {
        self.missed_since = None;
        self.passed_since = None;
        self.is_lost = false;
    }
}

/// A vehicle with an ad.
#[derive(Debug)]
struct DoneVehicle {
    vin: Arc<str>,
    /// The id of its first ad.
    ad: Box<str>,
}

/// What happened to an ad.
#[derive(Debug, PartialEq, Eq)]
pub enum AdOutcome {
    /// It is the first ad of the vehicle, which took this number of milliseconds since stock accepted it.
    First(i64),
    /// There is no ad, it is known already, or its vehicle does not count, or not yet.
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
    sweeper: Sweeper,
    open: BTreeMap<i64, OpenVehicle>,
    /// The vehicles after `listed`.
    early: EarlyVehicles,
    /// The latest vehicles with an ad.
    done: HashMap<i64, DoneVehicle>,
    done_order: VecDeque<i64>,
    accepted: u64,
    ads: u64,
    /// The vehicles with more than one ad.
    doubled: BTreeSet<i64>,
    repeated: u64,
    unfollowed: u64,
    /// The vehicles that are not followed and have no ad, with the hashes of their vins, which take less memory.
    unadvertised: BTreeMap<i64, u64>,
    late: u64,
}

impl Ledger {
    /// Begins to count the vehicles after the one with the id `base`.
    pub fn begin(&mut self, base: i64, now: i64) {
        let sweeper = std::mem::take(&mut self.sweeper);
        *self = Self { since: Some(now), base, listed: base, sweeper, ..Self::default() };
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
    pub fn list(&mut self, vehicle: &VehicleKey, accepted_at: i64) -> Option<AdOutcome> {
        let id = vehicle.id;
        if !self.counts(id) || id <= self.listed {
            return None;
        }
        self.listed = id;
        self.accepted += 1;
        let Early { traces, ad, is_doubled } = self.early.take(vehicle);
        if traces.created.is_some() {
            self.published = id;
        }
        if let Some((ad, at)) = ad {
            self.finish(vehicle, &ad);
            if is_doubled {
                self.doubled(vehicle);
            }
            return Some(AdOutcome::First((at - accepted_at).max(0)));
        }
        if self.open.len() >= MAX_OPEN {
            self.unfollowed += 1;
            if self.unadvertised.len() < MAX_UNFOLLOWED {
                self.unadvertised.insert(id, hash(vehicle));
            }
            return Some(AdOutcome::Known);
        }
        let vehicle = OpenVehicle {
            vin: Arc::clone(&vehicle.vin),
            accepted_at,
            traces,
            missed_since: None,
            passed_since: None,
            is_lost: false,
        };
        self.open.insert(id, vehicle);
        Some(AdOutcome::Known)
    }

    /// Returns what is known of a vehicle that counts and that stock's list has not shown yet.
    fn early(&mut self, vehicle: &VehicleKey) -> Option<&mut Early> {
        if self.counts(vehicle.id) && vehicle.id > self.listed { self.early.entry(vehicle) } else { None }
    }

    fn open(&mut self, vehicle: &VehicleKey) -> Option<&mut OpenVehicle> {
        self.open.get_mut(&vehicle.id).filter(|open| open.vin == vehicle.vin)
    }

    fn is_done(&self, vehicle: &VehicleKey) -> bool {
        self.done.get(&vehicle.id).is_some_and(|done| done.vin == vehicle.vin)
    }

    fn is_unadvertised(&self, vehicle: &VehicleKey) -> bool {
        self.unadvertised.get(&vehicle.id) == Some(&hash(vehicle))
    }

    /// Records an event about a created vehicle.
    pub fn created(&mut self, vehicle: &VehicleKey, spot: Spot) {
        self.sweeper.created(spot);
        if let Some(early) = self.early(vehicle) {
            early.traces.created(spot);
            return;
        }
        if let Some(open) = self.open(vehicle) {
            if open.traces.created != Some(spot) {
                open.begin_again();
            }
            open.traces.created(spot);
        } else if !self.is_done(vehicle) && !self.is_unadvertised(vehicle) {
            return;
        }
        self.published = self.published.max(vehicle.id);
    }

    /// Records an event about a priced vehicle.
    pub fn processed(&mut self, vehicle: &VehicleKey, spot: Spot) {
        self.sweeper.processed(spot);
        if let Some(open) = self.open(vehicle) {
            let is_repeated = open.traces.processed(spot);
            open.begin_again();
            self.repeated += u64::from(is_repeated);
        } else if self.is_done(vehicle) {
            self.repeated += 1;
        } else if let Some(early) = self.early(vehicle) {
            early.traces.processed(spot);
        }
    }

    /// Forgets the positions in the topic of created vehicles, or else in that of priced vehicles, because it was
    /// created again.
    pub fn forget_positions(&mut self, created: bool) {
        self.sweeper.forget(created);
        for vehicle in self.open.values_mut() {
            if created {
                vehicle.traces.created = None;
            } else {
                vehicle.traces.processed = None;
            }
        }
    }

    /// Records that the record of a vehicle is, or is no longer, an unresolved dead letter.
    pub fn dead(&mut self, vehicle: &VehicleKey, is_dead: bool) {
        if let Some(open) = self.open(vehicle) {
            open.traces.is_dead = is_dead;
            open.begin_again();
        } else if let Some(early) = self.early(vehicle) {
            early.traces.is_dead = is_dead;
        }
    }

    /// Records an ad of a vehicle.
    pub fn ad(&mut self, vehicle: &VehicleKey, ad: &str, at: i64) -> AdOutcome {
        let id = vehicle.id;
        if !self.counts(id) {
            return AdOutcome::Known;
        }
        if id > self.listed {
            let is_other = self.early(vehicle).is_some_and(|early| early.ad(ad, at));
            return if is_other { AdOutcome::Doubtful } else { AdOutcome::Known };
        }
        if let Some(accepted_at) = self.open(vehicle).map(|open| open.accepted_at) {
            self.open.remove(&id);
            self.finish(vehicle, ad);
            return AdOutcome::First((at - accepted_at).max(0));
        }
        if self.is_unadvertised(vehicle) {
            self.unadvertised.remove(&id);
            self.finish(vehicle, ad);
            return AdOutcome::Known;
        }
        // The ad of another vehicle with the same id does not count.
        let is_other = self.open.contains_key(&id) || self.unadvertised.contains_key(&id);
        match self.done.get(&id) {
            Some(done) if done.vin != vehicle.vin || *done.ad == *ad => AdOutcome::Known,
            None if is_other => AdOutcome::Known,
            Some(_) | None => AdOutcome::Doubtful,
        }
    }

    /// Records the first ad of a vehicle.
    fn finish(&mut self, vehicle: &VehicleKey, ad: &str) {
        self.ads += 1;
        self.done.insert(vehicle.id, DoneVehicle { vin: Arc::clone(&vehicle.vin), ad: ad.into() });
        self.done_order.push_back(vehicle.id);
        if self.done_order.len() > MAX_DONE
            && let Some(oldest) = self.done_order.pop_front()
        {
            self.done.remove(&oldest);
        }
    }

    /// Records that ads has more than one ad for a vehicle. Counting may have begun again since that was in doubt.
    pub fn doubled(&mut self, vehicle: &VehicleKey) {
        if vehicle.id > self.listed {
            if let Some(early) = self.early.get_mut(vehicle) {
                early.is_doubled = true;
            }
        } else if self.counts(vehicle.id) && self.doubled.len() < MAX_DONE {
            self.doubled.insert(vehicle.id);
        }
    }

    /// Returns at most `limit` vehicles that are past their time and that the platform has passed, to ask ads for.
    pub fn suspects(&mut self, now: i64, allowed: i64, passed: &Passed, limit: usize) -> Vec<VehicleKey> {
        let mut suspects = Vec::new();
        self.late = 0;
        self.sweeper.advance(now, passed);
        for (id, vehicle) in &mut self.open {
            if vehicle.traces.is_dead || vehicle.is_lost || now - vehicle.accepted_at <= allowed {
                continue;
            }
            self.late += 1;
            let is_past = passed.is_past(&vehicle.traces).unwrap_or_else(|| {
                self.published > *id && self.sweeper.is_past(*vehicle.missed_since.get_or_insert(now), now)
            });
            if !is_past {
                vehicle.passed_since = None;
                continue;
            }
            let since = *vehicle.passed_since.get_or_insert(now);
            if now - since >= SETTLED && suspects.len() < limit {
                suspects.push(VehicleKey { id: *id, vin: Arc::clone(&vehicle.vin) });
            }
        }
        suspects
    }

    /// Records that ads has no ad for a suspect.
    pub fn lost(&mut self, vehicle: &VehicleKey) {
        if let Some(open) = self.open(vehicle) {
            open.is_lost = true;
        }
    }

    pub fn summary(&self) -> Counts {
        let count = |is: fn(&&OpenVehicle) -> bool| self.open.values().filter(is).count() as u64;
        let dead = count(|vehicle| vehicle.traces.is_dead);
        let lost = count(|vehicle| vehicle.is_lost && !vehicle.traces.is_dead);
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

fn hash(vehicle: &VehicleKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    vehicle.vin.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
