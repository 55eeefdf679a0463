//! Tracks the vehicles that the estimators hold, with the time at which each is expected to be done.

use std::collections::{BTreeMap, HashMap};

use super::traces::Spot;
use super::vehicle_key::VehicleKey;

/// The maximum number of vehicles whose times are retained.
const MAX_VEHICLES: usize = 50_000;
/// The number of vehicles of a partition that are described.
const DESCRIBED: usize = 12;

/// The vehicles in the topic of created vehicles that the estimators have not finished.
#[derive(Debug, Default)]
pub struct Flight {
    /// When each vehicle was written, in milliseconds since the Unix epoch.
    written: BTreeMap<Spot, i64>,
    spots: HashMap<VehicleKey, Spot>,
    /// The committed offsets of the estimators.
    committed: BTreeMap<i32, i64>,
}

impl Flight {
    /// Adds a vehicle, which is known if its record has an id.
    pub fn begin(&mut self, vehicle: Option<&VehicleKey>, spot: Spot, written: i64) {
        let is_done = self.committed.get(&spot.0).is_some_and(|next| spot.1 < *next);
        if is_done || self.written.len() >= MAX_VEHICLES {
            return;
        }
        self.written.insert(spot, written);
        if let Some(vehicle) = vehicle {
            self.spots.insert(vehicle.clone(), spot);
        }
    }

    /// Removes a vehicle.
    pub fn end(&mut self, vehicle: &VehicleKey) {
        if let Some(spot) = self.spots.remove(vehicle) {
            self.written.remove(&spot);
        }
    }

    /// Removes the vehicles before the committed offsets: offsets move only past finished work.
    pub fn committed(&mut self, committed: &BTreeMap<i32, i64>) {
        self.committed.clone_from(committed);
        let is_open = |(partition, offset): &Spot| committed.get(partition).is_none_or(|next| offset >= next);
        self.written.retain(|spot, _| is_open(spot));
        self.spots.retain(|_, spot| is_open(spot));
    }

    /// Forgets everything, because the topic was created again.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the number of vehicles in these partitions, and when the oldest ones were written.
    pub fn in_partitions(&self, partitions: &[i32]) -> (usize, Vec<i64>) {
        let of = |partition: &i32| self.written.range((*partition, 0)..(partition.saturating_add(1), 0));
        let count = partitions.iter().map(|partition| of(partition).count()).sum();
        let mut oldest: Vec<_> = partitions
            .iter()
            .flat_map(|partition| of(partition).take(DESCRIBED).map(|(_, at)| *at))
            .collect();
        oldest.sort_unstable();
        oldest.truncate(DESCRIBED);
        (count, oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vehicle_is_in_flight_until_it_is_done_or_its_offset_is_committed() {
        let mut flight = Flight::default();
        for (id, spot) in [(1, (0, 0)), (2, (0, 1)), (3, (1, 0)), (4, (2, 0))] {
            flight.begin(Some(&VehicleKey::new(id, "v")), spot, 100 + id);
        }
        flight.begin(None, (0, 2), 105);
        assert_eq!(flight.in_partitions(&[0, 1]), (4, vec![101, 102, 103, 105]));
        flight.end(&VehicleKey::new(2, "other"));
        flight.end(&VehicleKey::new(2, "v"));
        assert_eq!(flight.in_partitions(&[0]), (2, vec![101, 105]));
        flight.committed(&[(0, 3), (1, 0)].into());
        assert_eq!(flight.in_partitions(&[0, 1, 2]), (2, vec![103, 104]));
        flight.begin(Some(&VehicleKey::new(2, "v")), (0, 1), 102);
        assert_eq!(flight.in_partitions(&[0]), (0, vec![]));
    }
}
