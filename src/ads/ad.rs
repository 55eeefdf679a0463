//! An ad, and how a processed vehicle becomes one.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use uuid::Uuid;

use crate::event::VehicleProcessed;
use crate::vehicle::{Odometer, Price, Vin};

/// What an ad says; there is one for each vin.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The original services do not tell it.
    pub vehicle_id: Option<i64>,
    pub vin: Vin,
    pub model: String,
    pub manufacturer: String,
    pub year: i32,
    pub odometer: Odometer,
    pub odometer_unit: String,
    pub price: Price,
    pub price_unit: String,
}

impl TryFrom<VehicleProcessed> for Offer {
    type Error = String;

    /// Refuses only what cannot be kept: the schema of the record decided on the rest.
    fn try_from(processed: VehicleProcessed) -> Result<Self, Self::Error> {
        let vehicle = processed.vehicle;
        Ok(Self {
            vehicle_id: vehicle.id,
            vin: Vin::from_stored(vehicle.vin),
            model: vehicle.model,
            manufacturer: vehicle.manufacturer,
            year: vehicle.year,
            odometer: Odometer::parse(vehicle.odometer).map_err(|error| format!("odometer {error}"))?,
            odometer_unit: vehicle.odometer_unit,
            price: Price::parse(processed.price).map_err(|error| format!("price {error}"))?,
            price_unit: processed.price_unit,
        })
    }
}

/// An offer that is public.
#[derive(Clone, Debug, PartialEq)]
pub struct Ad {
    /// Grows with time (UUID version 7, RFC 9562), so that ads are sorted by it.
    pub id: Uuid,
    /// Millisecond precision.
    pub published_at: DateTime<Utc>,
    pub offer: Offer,
}

impl Ad {
    /// Each ad that is published in a process sorts after all that were published before.
    pub fn publish(offer: Offer) -> Self {
        let now = Utc::now();
        let published_at = now.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(now);
        Self { id: Uuid::now_v7(), published_at, offer }
    }
}
