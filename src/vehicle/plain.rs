//! Defines the fields of a vehicle as plain values.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::number::{integer, whole_as_integer};
use super::{Odometer, Vehicle};

/// The fields of a vehicle as they are serialized in events and in responses.
///
/// Less strict than [`Vehicle`]: a reader accepts every value that the schema of the event accepts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlainVehicle {
    pub vin: String,
    pub model: String,
    pub manufacturer: String,
    #[serde(deserialize_with = "integer")]
    pub year: i32,
    #[serde(serialize_with = "whole_as_integer")]
    pub odometer: f64,
    pub odometer_unit: String,
}

impl PlainVehicle {
    /// Checks the only field whose plain values cannot all be stored or serialized.
    ///
    /// # Errors
    /// Returns the reason when the odometer reading is negative or not finite.
    pub fn checked(mut self) -> Result<Self, String> {
        let odometer = Odometer::parse(self.odometer).map_err(|error| format!("odometer {error}"))?;
        self.odometer = odometer.get();
        Ok(self)
    }
}

impl From<&Vehicle> for PlainVehicle {
    fn from(vehicle: &Vehicle) -> Self {
        Self {
            vin: vehicle.vin.as_str().to_owned(),
            model: vehicle.model.as_str().to_owned(),
            manufacturer: vehicle.manufacturer.as_str().to_owned(),
            year: vehicle.year.get(),
            odometer: vehicle.odometer.get(),
            odometer_unit: vehicle.odometer_unit.as_str().to_owned(),
        }
    }
}
