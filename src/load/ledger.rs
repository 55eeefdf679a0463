//! Records what became of each vehicle of a load, in a few bytes per vehicle.

use std::time::{Duration, Instant};

use super::counts::Counts;
use super::latencies::Latencies;

/// The maximum number of vehicles in a load. Each takes 8 bytes.
pub const MAX_VEHICLES: u32 = 10_000_000;

/// The result of posting a vehicle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stock answered 201, so an ad must follow.
    Accepted,
    /// Stock refused the vehicle, for a reason of this kind.
    Refused(String),
    /// Stock did not accept the vehicle in time; the last attempt failed for a reason of this kind. It may have been
    /// stored.
    GaveUp(String),
    /// The vehicle was not sent because too many others were waiting for an answer.
    Dropped,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    due: Due,
    stage: Stage,
    /// Whether an ad was seen while the list was followed.
    seen: bool,
    /// How often the last complete reading of the list contained it.
    listed: u8,
}

/// How far a vehicle has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Unknown,
    Offered,
    Accepted,
}

/// When a vehicle was to be sent: the number of ticks since the start. Five bytes suffice for more than three years.
#[derive(Clone, Copy, Debug, Default)]
struct Due([u8; 5]);

const TICK_MICROS: u64 = 100;

impl Due {
    fn new(after: Duration) -> Self {
        let ticks = u64::try_from(after.as_micros()).unwrap_or(u64::MAX) / TICK_MICROS;
        let [first, second, third, fourth, fifth, ..] = ticks.min((1 << 40) - 1).to_le_bytes();
        Self([first, second, third, fourth, fifth])
    }

    fn after(self) -> Duration {
        let [first, second, third, fourth, fifth] = self.0;
        let ticks = u64::from_le_bytes([first, second, third, fourth, fifth, 0, 0, 0]);
        Duration::from_micros(ticks * TICK_MICROS)
    }
}

/// What is known about the vehicles of a load.
#[derive(Debug)]
pub struct Ledger {
    started: Instant,
    processing_time: Duration,
    entries: Vec<Entry>,
    offered: u64,
    accepted: u64,
    refused: Counts,
    gave_up: Counts,
    dropped: u64,
    retried: Counts,
    last_accepted: Option<Instant>,
    /// The number of accepted vehicles that have an ad.
    advertised: u64,
    last_seen: Option<Instant>,
    post: Latencies,
    path: Latencies,
}

/// The counts of a load that change while it runs.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub offered: u64,
    pub accepted: u64,
    pub refused: u64,
    pub gave_up: u64,
    pub dropped: u64,
    pub retried: u64,
    /// The number of accepted vehicles that have an ad.
    pub advertised: u64,
}

impl Ledger {
    /// Creates the ledger of a load that starts at `started`.
    ///
    /// # Errors
    /// Never fails in practice, see [`Latencies::new`].
    pub fn new(started: Instant, processing_time: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            started,
            processing_time,
            entries: Vec::new(),
            offered: 0,
            accepted: 0,
            refused: Counts::default(),
            gave_up: Counts::default(),
            dropped: 0,
            retried: Counts::default(),
            last_accepted: None,
            advertised: 0,
            last_seen: None,
            post: Latencies::new()?,
            path: Latencies::new()?,
        })
    }

    /// Records that a vehicle is to be sent at `due`.
    pub fn offer(&mut self, number: u32, due: Instant) {
        let due = Due::new(due.saturating_duration_since(self.started));
        if let Some(entry) = self.entry(number) {
            entry.due = due;
            entry.stage = Stage::Offered;
            self.offered += 1;
        }
    }

    fn entry(&mut self, number: u32) -> Option<&mut Entry> {
        let index = number as usize;
        if self.entries.len() <= index && number < MAX_VEHICLES {
            self.entries.resize(index + 1, Entry::default());
        }
        self.entries.get_mut(index)
    }

    pub fn retry(&mut self, kind: &str) {
        self.retried.add(kind);
    }

    /// Records the result of posting a vehicle.
    pub fn settle(&mut self, number: u32, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Accepted => {
                let Some(entry) = self.entries.get_mut(number as usize) else { return };
                entry.stage = Stage::Accepted;
                let Entry { due, seen, .. } = *entry;
                self.accepted += 1;
                self.advertised += u64::from(seen);
                self.last_accepted = Some(now);
                self.post.record(now.saturating_duration_since(self.started + due.after()));
            }
            Outcome::Refused(kind) => self.refused.add(&kind),
            Outcome::GaveUp(kind) => self.gave_up.add(&kind),
            Outcome::Dropped => self.dropped += 1,
        }
    }

    /// Records that an ad of the vehicle is visible. In a run that is repeated, it may be visible before the vehicle is
    /// offered.
    pub fn see(&mut self, number: u32, now: Instant) {
        let Some(entry) = self.entry(number).filter(|entry| !entry.seen) else { return };
        entry.seen = true;
        let Entry { due, stage, .. } = *entry;
        self.advertised += u64::from(stage == Stage::Accepted);
        self.last_seen = Some(now);
        if stage != Stage::Unknown {
            let path = now.saturating_duration_since(self.started + due.after());
            self.path.record(path.saturating_sub(self.processing_time));
        }
    }

    /// Returns whether each accepted vehicle has an ad.
    pub fn is_complete(&self) -> bool {
        self.advertised == self.accepted
    }

    /// Returns when the next ad is due or was seen: the later one of the last ad, and the last 201 plus the processing
    /// time.
    pub fn last_news(&self) -> Instant {
        let due = self.last_accepted.map(|accepted| accepted + self.processing_time);
        due.into_iter().chain(self.last_seen).fold(self.started, Instant::max)
    }

    /// Begins to count how often each vehicle is in the list of ads.
    pub fn begin_count(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.listed = 0);
    }

    pub fn count(&mut self, number: u32) {
        if let Some(entry) = self.entries.get_mut(number as usize) {
            entry.listed = entry.listed.saturating_add(1);
        }
    }

    /// Returns the accepted vehicles that the count did not contain.
    pub fn uncounted(&self) -> impl Iterator<Item = u32> {
        self.numbers(|entry| entry.stage == Stage::Accepted && entry.listed == 0)
    }

    /// Returns the vehicles that the count contained more than once.
    pub fn doubled(&self) -> impl Iterator<Item = u32> {
        self.numbers(|entry| entry.listed > 1)
    }

    fn numbers(&self, has: impl Fn(&Entry) -> bool) -> impl Iterator<Item = u32> {
        (0..).zip(&self.entries).filter(move |(_, entry)| has(entry)).map(|(number, _)| number)
    }

    pub fn standing(&self) -> Standing {
        Standing {
            offered: self.offered,
            accepted: self.accepted,
            refused: self.refused.total(),
            gave_up: self.gave_up.total(),
            dropped: self.dropped,
            retried: self.retried.total(),
            advertised: self.advertised,
        }
    }

    /// Returns the time from the start of the load to the last 201.
    pub fn accepting_for(&self) -> Duration {
        self.last_accepted.map_or(Duration::ZERO, |last| last.saturating_duration_since(self.started))
    }

    pub fn refused(&self) -> &Counts {
        &self.refused
    }

    pub fn gave_up(&self) -> &Counts {
        &self.gave_up
    }

    pub fn retried(&self) -> &Counts {
        &self.retried
    }

    /// Returns the latencies from the scheduled time of a vehicle to its 201.
    pub fn post(&self) -> &Latencies {
        &self.post
    }

    /// Returns the latencies from the scheduled time of a vehicle until its ad was seen, without the processing time.
    pub fn path(&self) -> &Latencies {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn latencies_count_from_the_scheduled_time_and_the_path_without_the_processing_time() {
        let started = Instant::now();
        let mut ledger = Ledger::new(started, 1_000 * MS).unwrap();
        ledger.offer(0, started + 100 * MS);
        ledger.settle(0, Outcome::Accepted, started + 350 * MS);
        ledger.see(0, started + 1_500 * MS);
        // It may be seen before the 201 arrives, and again later.
        ledger.offer(1, started + 200 * MS);
        ledger.see(1, started + 1_300 * MS);
        ledger.see(1, started + 9_000 * MS);
        ledger.settle(1, Outcome::Accepted, started + 1_400 * MS);
        assert!(ledger.is_complete());
        let around = |latencies: &Latencies, expected: [Duration; 2]| {
            let is_near = |at: f64, expected: Duration| latencies.at(at).abs_diff(expected) <= MS;
            is_near(0.5, expected[0]) && is_near(1.0, expected[1])
        };
        assert!(around(ledger.post(), [250 * MS, 1_200 * MS]), "{:?}", ledger.post().quantiles());
        assert!(around(ledger.path(), [100 * MS, 400 * MS]), "{:?}", ledger.path().quantiles());
        assert_eq!(ledger.accepting_for(), 1_400 * MS);
        assert_eq!(ledger.last_news(), started + 2_400 * MS);
    }

    #[test]
    fn a_load_may_take_years() {
        let started = Instant::now();
        let mut ledger = Ledger::new(started, Duration::ZERO).unwrap();
        for (number, days) in [(0, 5), (1, 1_000)] {
            let due = started + Duration::from_hours(24 * days);
            ledger.offer(number, due);
            ledger.settle(number, Outcome::Accepted, due + 20 * MS);
            ledger.see(number, due + 30 * MS);
        }
        assert!(ledger.post().at(1.0).abs_diff(20 * MS) <= MS, "{:?}", ledger.post().quantiles());
        assert!(ledger.path().at(1.0).abs_diff(30 * MS) <= MS, "{:?}", ledger.path().quantiles());
    }

    #[test]
    fn lost_and_doubled_vehicles_are_those_of_the_last_count() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now, Duration::ZERO).unwrap();
        for number in 0..5 {
            ledger.offer(number, now);
        }
        for number in [0, 1, 2] {
            ledger.settle(number, Outcome::Accepted, now);
        }
        ledger.settle(3, Outcome::GaveUp("503".to_owned()), now);
        ledger.settle(4, Outcome::Refused("400".to_owned()), now);
        ledger.count(7);
        ledger.count(1);
        ledger.begin_count();
        // A vehicle without an answer may have an ad.
        for number in [0, 2, 2, 3] {
            ledger.count(number);
        }
        assert_eq!(ledger.uncounted().collect::<Vec<_>>(), [1]);
        assert_eq!(ledger.doubled().collect::<Vec<_>>(), [2]);
        assert!(!ledger.is_complete());
    }

    #[test]
    fn an_ad_that_is_visible_before_its_vehicle_is_offered_has_no_latency() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now, Duration::ZERO).unwrap();
        ledger.see(3, now);
        ledger.see(MAX_VEHICLES, now);
        ledger.offer(3, now);
        ledger.settle(3, Outcome::Accepted, now);
        assert!(ledger.is_complete());
        assert_eq!(ledger.path().quantiles(), None);
        assert_eq!((ledger.standing().offered, ledger.standing().advertised), (1, 1));
    }

    #[test]
    fn a_vehicle_takes_eight_bytes() {
        assert_eq!(size_of::<Entry>(), 8);
    }
}
