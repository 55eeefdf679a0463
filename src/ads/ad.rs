//! Defines an ad and converts a processed vehicle to one.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use uuid::Uuid;

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
    /// Publishes an offer. Within a process, each ad sorts after all earlier ones.
    pub fn publish(offer: Offer) -> Self {
        let now = Utc::now();
        let published_at = now.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(now);
        Self { id: Uuid::now_v7(), published_at, offer }
    }
}
