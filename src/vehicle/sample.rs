//! The sample vehicle of the unit tests.

use serde_json::{Value, json};

use super::{Vehicle, parse_vehicle};

/// Returns the body of a request, as documented.
pub fn body(vin: &str) -> Value {
    json!({
        "vin": vin, "model": "model", "manufacturer": "manufacturer",
        "year": 2022, "odometer": 1000, "odometerUnit": "odometerUnit"
    })
}

/// Returns the vehicle of such a request.
pub fn vehicle(vin: &str) -> Vehicle {
    parse_vehicle(&body(vin), 2022).unwrap()
}
