//! Retains what is known of vehicles before stock's list shows them.
//!
//! Anyone can write an event about a vehicle, but only the list proves that stock accepted it.

use std::collections::BTreeMap;

use super::traces::Traces;
use super::vehicle_key::VehicleKey;

/// The maximum number of vehicles that are known before stock's list shows them.
pub const MAX_EARLY: usize = 10_000;

/// What is known of a vehicle.
#[derive(Clone, Debug, Default)]
pub struct Early {
    pub traces: Traces,
    /// The id of the first ad, and when it was published.
    pub ad: Option<(Box<str>, i64)>,
    /// Whether ads has more than one ad for the vehicle.
    pub is_doubled: bool,
}

impl Early {
    /// Records an ad, and returns whether it is another one than the first.
    pub fn ad(&mut self, ad: &str, at: i64) -> bool {
        let (first, _) = self.ad.get_or_insert_with(|| (ad.into(), at));
        **first != *ad
    }
}

/// The vehicles that stock's list has not shown.
#[derive(Debug, Default)]
pub struct EarlyVehicles(BTreeMap<VehicleKey, Early>);

impl EarlyVehicles {
    /// Returns what is known of a vehicle, or `None` when there is no room. The list shows the lowest ids first, so these
    /// displace others.
    pub fn entry(&mut self, vehicle: &VehicleKey) -> Option<&mut Early> {
        if self.0.len() >= MAX_EARLY && !self.0.contains_key(vehicle) {
            self.0.last_entry().filter(|last| last.key() > vehicle)?.remove();
        }
        Some(self.0.entry(vehicle.clone()).or_default())
    }

    /// Returns what is known of a vehicle, if anything is.
    pub fn get_mut(&mut self, vehicle: &VehicleKey) -> Option<&mut Early> {
        self.0.get_mut(vehicle)
    }

    /// Removes what is known of a vehicle that the list shows now. Other vehicles with its id or a lower one are of
    /// another database: they were not listed, and will not be.
    pub fn take(&mut self, vehicle: &VehicleKey) -> Early {
        let early = self.0.remove(vehicle).unwrap_or_default();
        while let Some(first) = self.0.first_entry().filter(|first| first.key().id <= vehicle.id) {
            first.remove();
        }
        early
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
