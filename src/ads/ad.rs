//! Defines an ad and converts a processed vehicle to one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use uuid::{ContextV7, Timestamp, Uuid};

use crate::event::{VehicleCreated, VehicleProcessed};
use crate::vehicle::{PlainVehicle, Price};

/// The content of an ad. There is one ad per vin.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// `None` for vehicles of the original services.
    pub vehicle_id: Option<i64>,
    /// Its odometer reading is valid.
    pub vehicle: PlainVehicle,
    pub price: Price,
    pub price_unit: String,
}

impl TryFrom<VehicleProcessed> for Offer {
    type Error = String;

    /// Refuses only values that cannot be stored, since the record's schema has validated the rest.
    fn try_from(processed: VehicleProcessed) -> Result<Self, Self::Error> {
        let VehicleCreated { id, vehicle } = processed.created;
        Ok(Self {
            vehicle_id: id,
            vehicle: vehicle.checked()?,
            price: Price::parse(processed.price).map_err(|error| format!("price {error}"))?,
            price_unit: processed.price_unit,
        })
    }
}

/// A published offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Ad {
    /// A UUID of version 7 (RFC 9562), which grows with time. Ads are sorted by it.
    pub id: Uuid,
    /// Has millisecond precision.
    pub published_at: DateTime<Utc>,
    pub offer: Offer,
}

impl Ad {
    /// Publishes an offer now.
    pub fn publish(id: Uuid, offer: Offer) -> Self {
        let now = Utc::now();
        let published_at = now.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(now);
        Self { id, published_at, offer }
    }
}

/// The milliseconds since 1970 that a UUID of version 7 has no bits for.
const END_OF_TIME: u128 = 1 << 48;

/// Draws the ids of ads. Each one sorts after all earlier ones, also when the clock is set back.
#[derive(Debug)]
pub(super) struct AdIds(ContextV7);

impl AdIds {
    pub(super) fn new() -> Self {
        Self(ContextV7::new())
    }

    /// Makes all further ids sort after `id`, which a clock ahead of this one may have given.
    pub(super) fn continue_after(&mut self, id: Uuid) {
        let Some((seconds, nanos)) = id.get_timestamp().map(|time| time.to_unix()) else { return };
        // Two ids of the same millisecond are in the order of their random parts.
        let next = Duration::new(seconds, nanos).saturating_add(Duration::from_millis(1));
        if next.as_millis() < END_OF_TIME {
            let _ = self.at(next);
        }
    }

    pub(super) fn next(&mut self) -> Uuid {
        // A clock before 1970 counts as set back.
        self.at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    fn at(&self, time: Duration) -> Uuid {
        Uuid::new_v7(Timestamp::from_unix(&self.0, time.as_secs(), time.subsec_nanos()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_after_that_of_a_clock_that_is_ahead() {
        let mut ids = AdIds::new();
        let first = ids.next();
        let ahead = AdIds::new().at(Duration::from_secs(4_000_000_000));
        ids.continue_after(ahead);
        let mut last = ahead.max(first);
        for _ in 0..10_000 {
            let next = ids.next();
            assert!(next > last, "{next} after {last}");
            last = next;
        }
        ids.continue_after(first);
        assert!(ids.next() > last, "also after an older one");
    }

    #[test]
    fn an_id_without_a_time_or_at_the_end_of_time_is_no_obstacle() {
        let mut ids = AdIds::new();
        ids.continue_after(Uuid::from_u128(7));
        let first = ids.next();
        ids.continue_after(Uuid::from_u128((u128::MAX >> 80 << 80) | (0x7 << 76) | (0x2 << 62)));
        assert!(ids.next() > first);
    }
}
