//! Collects the unresolved dead letters.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::vehicle_key::VehicleKey;
use crate::dlq::LetterId;
use crate::event::EventType;
use crate::excerpt::excerpt;
use crate::kafka::{DeadLetter, Position};

/// The maximum number of dead letters whose details are retained, and that a page shows.
const MAX_LETTERS: usize = 2_000;
const MAX_SHOWN: usize = 100;
/// The maximum number of other dead letters whose vehicles are remembered.
const MAX_DROPPED: usize = 100_000;
/// The maximum number of resolutions that were read before their dead letters: those of all letters that are known.
const MAX_EARLY: usize = MAX_LETTERS + MAX_DROPPED;
const MAX_REASON_CHARS: usize = 400;
const MAX_TEXT_CHARS: usize = 80;

/// An unresolved dead letter.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterView {
    id: String,
    reason: String,
    topic: &'static str,
    /// The partition and the offset of the record in its own topic.
    origin: Option<Position>,
    group: Option<String>,
    /// When the dead letter was written, in milliseconds since the Unix epoch.
    died: Option<i64>,
    key: Option<String>,
    /// How often the record was replayed and came back.
    replays: u32,
    /// The parts that the brokers refused. Such a dead letter cannot be replayed.
    left_out: Option<String>,
    #[serde(skip)]
    vehicle: Option<VehicleKey>,
}

impl LetterView {
    /// Describes a dead letter of a vehicle, if its record names one.
    fn new(id: LetterId, letter: &DeadLetter, vehicle: Option<VehicleKey>) -> Self {
        let text = |text: String| excerpt(&text, MAX_TEXT_CHARS);
        let record = letter.record();
        Self {
            id: id.to_string(),
            reason: excerpt(&letter.reason(), MAX_REASON_CHARS),
            topic: id.event.topic,
            origin: letter.origin(),
            group: letter.group().map(text),
            died: record.timestamp,
            key: record.key().map(|key| text(String::from_utf8_lossy(key).into_owned())),
            replays: letter.replays(),
            left_out: letter.left_out().map(|left_out| excerpt(&left_out, MAX_REASON_CHARS)),
            vehicle,
        }
    }
}

/// The unresolved dead letters, the newest of them with details.
#[derive(Debug, Default)]
pub struct Letters {
    letters: BTreeMap<LetterId, LetterView>,
    /// The ones with details by the times at which they were written.
    by_time: BTreeSet<(Option<i64>, LetterId)>,
    /// The vehicles of older ones.
    dropped: BTreeMap<LetterId, Option<VehicleKey>>,
    /// The number of dead letters of each vehicle, with and without details.
    vehicles: HashMap<VehicleKey, usize>,
    /// The number of further ones.
    uncounted: BTreeMap<EventType, u64>,
    /// The next offset to be read in each partition.
    read: BTreeMap<(EventType, i32), i64>,
    early: BTreeSet<LetterId>,
}

/// What a page shows of the dead letters.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LettersView<'a> {
    waiting: u64,
    /// Newest first.
    shown: Vec<&'a LetterView>,
}

impl Letters {
    /// Adds a dead letter of a vehicle, if its record names one. Returns whether it is unresolved.
    pub fn add(&mut self, id: LetterId, letter: &DeadLetter, vehicle: Option<VehicleKey>) -> bool {
        self.advance(id.event, id.position);
        if self.early.remove(&id) {
            return false;
        }
        self.remove(id);
        if let Some(vehicle) = &vehicle {
            *self.vehicles.entry(vehicle.clone()).or_default() += 1;
        }
        let letter = LetterView::new(id, letter, vehicle);
        self.by_time.insert((letter.died, id));
        self.letters.insert(id, letter);
        if self.letters.len() > MAX_LETTERS
            && let Some((_, oldest)) = self.by_time.first().copied()
        {
            self.drop_details(oldest);
        }
        true
    }

    fn drop_details(&mut self, id: LetterId) {
        let Some(vehicle) = self.remove(id) else { return };
        if self.dropped.len() < MAX_DROPPED {
            if let Some(vehicle) = &vehicle {
                *self.vehicles.entry(vehicle.clone()).or_default() += 1;
            }
            self.dropped.insert(id, vehicle);
        } else {
            *self.uncounted.entry(id.event).or_default() += 1;
        }
    }

    /// Removes a dead letter and returns its vehicle, or `None` when the letter is not known.
    fn remove(&mut self, id: LetterId) -> Option<Option<VehicleKey>> {
        let vehicle = if let Some(letter) = self.letters.remove(&id) {
            self.by_time.remove(&(letter.died, id));
            letter.vehicle
        } else {
            self.dropped.remove(&id)?
        };
        if let Some(vehicle) = &vehicle
            && let Some(count) = self.vehicles.get_mut(vehicle)
        {
            *count -= 1;
            if *count == 0 {
                self.vehicles.remove(vehicle);
            }
        }
        Some(vehicle)
    }

    /// Records that the record at `position` resolves a dead letter. Returns its vehicle, if it is known.
    pub fn resolve(&mut self, position: Position, resolved: LetterId) -> Option<VehicleKey> {
        self.advance(resolved.event, position);
        if let Some(vehicle) = self.remove(resolved) {
            return vehicle;
        }
        let (partition, offset) = resolved.position;
        let was_read = self.read.get(&(resolved.event, partition)).is_some_and(|next| offset < *next);
        if was_read {
            let uncounted = self.uncounted.entry(resolved.event).or_default();
            *uncounted = uncounted.saturating_sub(1);
        } else if self.early.len() < MAX_EARLY {
            self.early.insert(resolved);
        }
        None
    }

    fn advance(&mut self, event: EventType, (partition, offset): Position) {
        self.read.insert((event, partition), offset + 1);
    }

    /// Forgets the dead letters of `event`, because their topic was created again. Returns their vehicles, as far as
    /// they are known.
    pub fn clear(&mut self, event: EventType) -> Vec<VehicleKey> {
        let ids = self.letters.keys().chain(self.dropped.keys());
        let cleared: Vec<_> = ids.filter(|id| id.event == event).copied().collect();
        let vehicles = cleared.into_iter().filter_map(|id| self.remove(id).flatten()).collect();
        self.early.retain(|id| id.event != event);
        self.read.retain(|(other, _), _| *other != event);
        self.uncounted.remove(&event);
        vehicles
    }

    /// Returns whether a record of the vehicle is an unresolved dead letter, as far as it is known.
    pub fn holds(&self, vehicle: &VehicleKey) -> bool {
        self.vehicles.contains_key(vehicle)
    }

    pub fn view(&self) -> LettersView<'_> {
        let newest = self.by_time.iter().rev().take(MAX_SHOWN);
        let shown = newest.filter_map(|(_, id)| self.letters.get(id)).collect();
        let waiting = (self.letters.len() + self.dropped.len()) as u64 + self.uncounted.values().sum::<u64>();
        LettersView { waiting, shown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::VEHICLE_CREATED;
    use crate::kafka::{OutgoingRecord, Record};

    fn id(offset: i64) -> LetterId {
        LetterId { event: VEHICLE_CREATED, position: (0, offset) }
    }

    fn vehicle(id: i64) -> VehicleKey {
        VehicleKey::new(id, "v")
    }

    fn letter(offset: i64) -> DeadLetter {
        let written =
            OutgoingRecord { topic: "t.dlq".to_owned(), key: None, value: None, headers: Vec::new() };
        DeadLetter::read(Record::of(&written, 0, offset, Some(offset))).unwrap()
    }

    /// Adds the dead letter at `offset`, about the vehicle with this id.
    fn add(letters: &mut Letters, offset: i64, of: i64) {
        assert!(letters.add(id(offset), &letter(offset), Some(vehicle(of))));
    }

    #[test]
    fn a_vehicle_with_two_dead_letters_has_one_until_both_are_resolved() {
        let mut letters = Letters::default();
        add(&mut letters, 0, 7);
        add(&mut letters, 1, 7);
        assert_eq!(letters.resolve((0, 2), id(0)), Some(vehicle(7)));
        assert!(letters.holds(&vehicle(7)));
        assert!(!letters.holds(&VehicleKey::new(7, "other")));
        assert_eq!(letters.resolve((0, 3), id(1)), Some(vehicle(7)));
        assert!(!letters.holds(&vehicle(7)));
        assert_eq!(letters.view().waiting, 0);
    }

    #[test]
    fn letters_that_were_resolved_before_they_are_read_do_not_wait() {
        let mut letters = Letters::default();
        let count = 10_001;
        for offset in 0..count {
            // The resolutions are in another partition than the letters.
            assert_eq!(letters.resolve((1, offset), id(offset)), None);
        }
        for offset in 0..count {
            assert!(!letters.add(id(offset), &letter(offset), Some(vehicle(offset))), "{offset}");
        }
        assert_eq!((letters.view().waiting, letters.view().shown.len()), (0, 0));
        assert!(letters.vehicles.is_empty());
    }

    #[test]
    fn nothing_is_left_of_letters_that_are_resolved_read_again_or_cleared() {
        let mut letters = Letters::default();
        let count = MAX_LETTERS as i64 + 500;
        // Those with an even offset are of one vehicle, and all are read twice.
        let of = |offset: i64| if offset % 2 == 0 { 0 } else { offset };
        for offset in (0..count).chain(0..count) {
            add(&mut letters, offset, of(offset));
        }
        assert_eq!(letters.view().waiting, count.unsigned_abs());
        for offset in 0..count - 2 {
            assert_eq!(letters.resolve((0, count + offset), id(offset)), Some(vehicle(of(offset))));
            assert_eq!(letters.holds(&vehicle(of(offset))), offset % 2 == 0);
        }
        assert_eq!(letters.clear(VEHICLE_CREATED), [vehicle(0), vehicle(count - 1)]);
        assert!(letters.vehicles.is_empty() && letters.by_time.is_empty());
    }

    #[test]
    fn the_newest_letters_are_shown_first() {
        let mut letters = Letters::default();
        for offset in 0..5_000 {
            add(&mut letters, offset, offset);
        }
        let view = letters.view();
        let shown: Vec<_> = view.shown.iter().map(|letter| letter.died).collect();
        assert_eq!(shown, (4_900..5_000).rev().map(Some).collect::<Vec<_>>());
    }

    #[test]
    fn the_vehicle_of_a_dead_letter_without_details_is_known() {
        let mut letters = Letters::default();
        let count = 2 * MAX_LETTERS as i64;
        for offset in 0..count {
            add(&mut letters, offset, offset);
        }
        assert_eq!(letters.view().waiting, 2 * MAX_LETTERS as u64);
        assert!(letters.holds(&vehicle(0)));
        assert_eq!(letters.resolve((0, count), id(0)), Some(vehicle(0)));
        assert!(!letters.holds(&vehicle(0)));
        assert_eq!(letters.clear(VEHICLE_CREATED).len(), 2 * MAX_LETTERS - 1);
        assert_eq!(letters.view().waiting, 0);
    }
}
