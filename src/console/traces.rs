//! Judges by the positions of a vehicle's records whether the platform has passed the vehicle.

use std::collections::BTreeMap;

/// A position in a topic: partition and offset.
pub type Spot = (i32, i64);

/// The records about a vehicle. Those of several topics are read in any order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traces {
    pub created: Option<Spot>,
    pub processed: Option<Spot>,
    /// Whether its record is an unresolved dead letter.
    pub is_dead: bool,
}

impl Traces {
    /// Records an event about the created vehicle. One that is published or put back once more begins again.
    pub fn created(&mut self, spot: Spot) {
        if self.created.replace(spot).is_some_and(|known| known != spot) {
            self.processed = None;
            self.is_dead = false;
        }
    }

    /// Records an event about the priced vehicle, and returns whether it was priced before.
    pub fn processed(&mut self, spot: Spot) -> bool {
        let is_repeated = self.processed.replace(spot).is_some_and(|known| known != spot);
        self.is_dead &= !is_repeated;
        is_repeated
    }
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
    pub fn is_past(&self, traces: &Traces) -> Option<bool> {
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
