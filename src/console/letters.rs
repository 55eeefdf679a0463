//! Collects the unresolved dead letters.

use std::collections::{BTreeMap, BTreeSet};

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
/// The maximum number of resolutions that were read before their dead letters.
const MAX_EARLY: usize = 10_000;
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
    /// The vehicles of older ones.
    dropped: BTreeMap<LetterId, Option<VehicleKey>>,
    /// The number of further ones.
    uncounted: u64,
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
        self.letters.insert(id, LetterView::new(id, letter, vehicle));
        if self.letters.len() > MAX_LETTERS {
            let oldest =
                self.letters.iter().min_by_key(|(id, letter)| (letter.died, **id)).map(|(id, _)| *id);
            if let Some((oldest, letter)) = oldest.and_then(|oldest| self.letters.remove_entry(&oldest)) {
                if self.dropped.len() < MAX_DROPPED {
                    self.dropped.insert(oldest, letter.vehicle);
                } else {
                    self.uncounted += 1;
                }
            }
        }
        true
    }

    /// Records that the record at `position` resolves a dead letter. Returns its vehicle, if it is known.
    pub fn resolve(&mut self, position: Position, resolved: LetterId) -> Option<VehicleKey> {
        self.advance(resolved.event, position);
        if let Some(letter) = self.letters.remove(&resolved) {
            return letter.vehicle;
        }
        if let Some(vehicle) = self.dropped.remove(&resolved) {
            return vehicle;
        }
        let (partition, offset) = resolved.position;
        let was_read = self.read.get(&(resolved.event, partition)).is_some_and(|next| offset < *next);
        if was_read {
            self.uncounted = self.uncounted.saturating_sub(1);
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
        let cleared = self.letters.extract_if(.., |id, _| id.event == event);
        let mut vehicles: Vec<_> = cleared.filter_map(|(_, letter)| letter.vehicle).collect();
        vehicles.extend(
            self.dropped.extract_if(.., |id, _| id.event == event).filter_map(|(_, vehicle)| vehicle),
        );
        self.early.retain(|id| id.event != event);
        self.read.retain(|(other, _), _| *other != event);
        self.uncounted = 0;
        vehicles
    }

    /// Returns whether a record of the vehicle is an unresolved dead letter, as far as it is known.
    pub fn holds(&self, vehicle: &VehicleKey) -> bool {
        let vehicles = self.letters.values().map(|letter| &letter.vehicle);
        vehicles.chain(self.dropped.values()).any(|held| held.as_ref() == Some(vehicle))
    }

    pub fn view(&self) -> LettersView<'_> {
        let mut shown: Vec<_> = self.letters.iter().collect();
        shown.sort_by_key(|(id, letter)| (letter.died, **id));
        let shown = shown.into_iter().rev().take(MAX_SHOWN).map(|(_, letter)| letter).collect();
        let waiting = (self.letters.len() + self.dropped.len()) as u64 + self.uncounted;
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

    /// Adds the dead letter at `offset`, about the vehicle with this id.
    fn add(letters: &mut Letters, offset: i64, of: i64) {
        let written =
            OutgoingRecord { topic: "t.dlq".to_owned(), key: None, value: None, headers: Vec::new() };
        let letter = DeadLetter::read(Record::of(&written, 0, offset, Some(offset))).unwrap();
        assert!(letters.add(id(offset), &letter, Some(vehicle(of))));
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
