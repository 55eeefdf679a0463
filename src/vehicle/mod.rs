//! The domain: a vehicle, its fields, and the rules that make them valid.

mod fields;
mod number;
mod plain;
mod price;
#[cfg(test)]
pub mod sample;
mod schema;
mod text;
mod validation;

pub use fields::{Manufacturer, Model, Odometer, OdometerUnit, Vin, Year};
pub use number::optional_integer;
pub use plain::PlainVehicle;
pub use price::Price;
pub use validation::{FieldError, parse_vehicle};

use std::fmt;

use chrono::{DateTime, Utc};
use utoipa::ToSchema;

/// A vehicle as a client submits it, without the fields that stock adds.
#[derive(Clone, Debug, PartialEq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Vehicle {
    pub vin: Vin,
    pub model: Model,
    pub manufacturer: Manufacturer,
    pub year: Year,
    pub odometer: Odometer,
    pub odometer_unit: OdometerUnit,
}

/// The id of a vehicle in stock. Ids grow with every accepted vehicle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VehicleId(pub i64);

impl fmt::Display for VehicleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A vehicle that stock has accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct StockedVehicle {
    pub id: VehicleId,
    /// Has millisecond precision.
    pub created_at: DateTime<Utc>,
    pub vehicle: Vehicle,
}
