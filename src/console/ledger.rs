//! Reconciles the vehicles that stock accepts with their ads, while the platform runs.
//!
//! A vehicle counts when stock accepted it after the console began to count. Whatever the console is about to report
//! as lost or doubled, it verifies first by asking ads for the vin. A vehicle that is only late is not lost: it is lost
//! when the platform has moved past it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::counts::Counts;
use super::sweep::Sweeper;

/// The maximum number of vehicles whose details are retained while they are on their way, and after.
const MAX_OPEN: usize = 50_000;
const MAX_DONE: usize = 50_000;
/// The maximum number of vehicles without details whose first ad is recognized.
const MAX_UNFOLLOWED: usize = 1_000_000;
/// The maximum number of vehicles that are known before stock's list shows them.
const MAX_EARLY: usize = 10_000;
/// The maximum length of a vin that stock accepts.
pub const MAX_VIN_CHARS: usize = 64;
/// The time that the last part of a transaction may take to become visible, in milliseconds.
pub const SETTLED: i64 = 10_000;

/// A position in a topic: partition and offset.
pub type Spot = (i32, i64);

/// The records about a vehicle. Those of several topics are read in any order.
#[derive(Clone, Copy, Debug, Default)]
struct Traces {
    created: Option<Spot>,
    processed: Option<Spot>,
    /// Whether its record is an unresolved dead letter.
    is_dead: bool,
}

impl Traces {
    /// Records an event about the created vehicle. One that is published or put back once more begins again.
    fn created(&mut self, spot: Spot) {
        if self.created.replace(spot).is_some_and(|known| known != spot) {
            self.processed = None;
            self.is_dead = false;
        }
    }

    /// Records an event about the priced vehicle, and returns whether it was priced before.
    fn processed(&mut self, spot: Spot) -> bool {
        let is_repeated = self.processed.replace(spot).is_some_and(|known| known != spot);
        self.is_dead &= !is_repeated;
        is_repeated
    }
}

/// A vehicle without an ad.
#[derive(Clone, Debug)]
struct OpenVehicle {
    vin: Box<str>,
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

/// What is known of a vehicle before stock's list shows it.
#[derive(Clone, Debug, Default)]
struct Early {
    traces: Traces,
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
    /// Returns whether the platform has passed the last known record of a vehicle, or `None` when none is known.
    fn is_past(&self, traces: &Traces) -> Option<bool> {
        let is_past = |committed: &BTreeMap<i32, i64>, (partition, offset): Spot| {
            committed.get(&partition).is_some_and(|next| *next > offset)
        };
        match (traces.processed, traces.created) {
            (Some(spot), _) => Some(is_past(&self.advertised, spot)),
            (None, Some(spot)) => Some(is_past(&self.estimated, spot)),
            (None, None) => None,
        }
    }
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
    sweeper: Sweeper,
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
    /// The vehicles that are not followed and have no ad.
    unadvertised: BTreeSet<i64>,
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
    pub fn list(&mut self, id: i64, vin: &str, accepted_at: i64) -> Option<AdOutcome> {
        if !self.counts(id) || id <= self.listed {
            return None;
        }
        self.listed = id;
        self.accepted += 1;
        let Early { traces, ad } = self.early.remove(&id).unwrap_or_default();
        if traces.created.is_some() {
            self.published = id;
        }
        if let Some((ad, at)) = ad {
            self.ads += 1;
            self.finish(id, &ad);
            return Some(AdOutcome::First((at - accepted_at).max(0)));
        }
        if self.open.len() >= MAX_OPEN {
            self.unfollowed += 1;
            if self.unadvertised.len() < MAX_UNFOLLOWED {
                self.unadvertised.insert(id);
            }
            return Some(AdOutcome::Known);
        }
        let vehicle = OpenVehicle {
            vin: vin.into(),
            accepted_at,
            traces,
            missed_since: None,
            passed_since: None,
            is_lost: false,
        };
        self.open.insert(id, vehicle);
        Some(AdOutcome::Known)
    }

    /// Returns what is known of a vehicle that stock's list has not shown yet. Anyone can write an event about a
    /// vehicle, but only the list proves that stock accepted it. The list shows the lowest ids first.
    fn early(&mut self, id: i64) -> Option<&mut Early> {
        if id <= self.listed {
            return None;
        }
        if self.early.len() >= MAX_EARLY && !self.early.contains_key(&id) {
            self.early.last_entry().filter(|last| *last.key() > id)?.remove();
        }
        Some(self.early.entry(id).or_default())
    }

    /// Records an event about a created vehicle.
    pub fn created(&mut self, id: i64, spot: Spot) {
        self.sweeper.created(spot);
        if !self.counts(id) {
            return;
        }
        if id <= self.listed {
            self.published = self.published.max(id);
        }
        if let Some(vehicle) = self.open.get_mut(&id) {
            if vehicle.traces.created != Some(spot) {
                vehicle.begin_again();
            }
            vehicle.traces.created(spot);
        } else if let Some(early) = self.early(id) {
            early.traces.created(spot);
        }
    }

    /// Records an event about a priced vehicle.
    pub fn processed(&mut self, id: i64, spot: Spot) {
        self.sweeper.processed(spot);
        if !self.counts(id) {
            return;
        }
        if let Some(vehicle) = self.open.get_mut(&id) {
            self.repeated += u64::from(vehicle.traces.processed(spot));
            vehicle.begin_again();
        } else if self.done.contains_key(&id) {
            self.repeated += 1;
        } else if let Some(early) = self.early(id) {
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
    pub fn dead(&mut self, id: i64, is_dead: bool) {
        if !self.counts(id) {
            return;
        }
        if let Some(vehicle) = self.open.get_mut(&id) {
            vehicle.traces.is_dead = is_dead;
            vehicle.begin_again();
        } else if let Some(early) = self.early(id) {
            early.traces.is_dead = is_dead;
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
            None if self.unadvertised.remove(&id) => {
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

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
