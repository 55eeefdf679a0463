//! Defines the two events: their topics, their schemas, and how one is derived from the other.
//!
//! The services share nothing else.

use serde::{Deserialize, Serialize};

use crate::vehicle::{PlainVehicle, Price, StockedVehicle, Vehicle, optional_integer};

/// The header that marks an event that an audit published again.
pub const REANNOUNCED_HEADER: &str = "audit.reannounced";

/// A kind of event: its topic and the JSON Schema of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventType {
    /// The topic's name without the prefix that separates platforms on a shared cluster.
    pub topic: &'static str,
    /// The JSON Schema (draft 7) of the values.
    pub schema: &'static str,
}

impl EventType {
    pub const ALL: [Self; 2] = [VEHICLE_CREATED, VEHICLE_PROCESSED];
}

/// The event that stock publishes when it accepts a vehicle.
pub const VEHICLE_CREATED: EventType = EventType {
    topic: "stock.vehicle-created",
    schema: include_str!("../../schemas/stock.vehicle-created.json"),
};

/// The event that estimate publishes when it has priced a vehicle.
pub const VEHICLE_PROCESSED: EventType = EventType {
    topic: "stock.vehicle-processed",
    schema: include_str!("../../schemas/stock.vehicle-processed.json"),
};

/// A vehicle that stock accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VehicleCreated {
    /// `None` in the records of the original services.
    #[serde(default, deserialize_with = "optional_integer", skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    #[serde(flatten)]
    pub vehicle: PlainVehicle,
}

/// A vehicle with its estimated price.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VehicleProcessed {
    #[serde(flatten)]
    pub created: VehicleCreated,
    pub price: f64,
    pub price_unit: String,
}

/// Leaves out the id, which only stock assigns.
impl From<&Vehicle> for VehicleCreated {
    fn from(vehicle: &Vehicle) -> Self {
        Self { id: None, vehicle: vehicle.into() }
    }
}

impl From<&StockedVehicle> for VehicleCreated {
    fn from(stocked: &StockedVehicle) -> Self {
        Self { id: Some(stocked.id.0), ..Self::from(&stocked.vehicle) }
    }
}

impl VehicleCreated {
    pub fn priced(self, price: Price) -> VehicleProcessed {
        VehicleProcessed { created: self, price: price.amount(), price_unit: Price::UNIT.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::vehicle::{VehicleId, parse_vehicle, sample};

    fn validator(event: EventType) -> jsonschema::Validator {
        jsonschema::validator_for(&serde_json::from_str(event.schema).unwrap()).unwrap()
    }

    prop_compose! {
        fn accepted_vehicle()(
            vin in "\\PC{1,64}", model in "\\PC{1,255}", manufacturer in "\\PC{1,255}",
            year in 1886..=2027, odometer in 0.0..f64::MAX, unit in "\\PC{1,64}",
        ) -> Option<StockedVehicle> {
            let body = json!({
                "vin": vin, "model": model, "manufacturer": manufacturer,
                "year": year, "odometer": odometer, "odometerUnit": unit
            });
            let vehicle = parse_vehicle(&body, 2026).ok()?;
            Some(StockedVehicle { id: VehicleId(7), created_at: chrono::Utc::now(), vehicle })
        }
    }

    proptest! {
        #[test]
        fn every_vehicle_that_stock_accepts_makes_events_that_conform_to_their_schemas(
            stocked in accepted_vehicle(), cents in 1i64..1_000_000_000
        ) {
            prop_assume!(stocked.is_some());
            let created = VehicleCreated::from(&stocked.unwrap());
            let value = serde_json::to_value(&created).unwrap();
            prop_assert!(validator(VEHICLE_CREATED).is_valid(&value), "{}", value);
            prop_assert_eq!(&serde_json::from_value::<VehicleCreated>(value).unwrap(), &created);

            let processed = created.priced(Price::from_cents(cents));
            let value = serde_json::to_value(&processed).unwrap();
            prop_assert!(validator(VEHICLE_PROCESSED).is_valid(&value), "{}", value);
            prop_assert_eq!(serde_json::from_value::<VehicleProcessed>(value).unwrap(), processed);
        }
    }

    /// Generates any number that JSON can express and that an `f64` or a 64-bit integer holds.
    fn json_number() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<i64>().prop_map(|integer| integer.to_string()),
            any::<i32>().prop_map(|integer| format!("{integer}.0")),
            (1i64..10_000, 0..6).prop_map(|(integer, exponent)| format!("{integer}e{exponent}")),
            any::<f64>()
                .prop_filter("finite", |float| float.is_finite())
                .prop_map(|float| format!("{float:e}")),
            Just("-0.0".to_owned()),
            Just("1e300".to_owned()),
            Just("1e-400".to_owned()),
            Just("123456789012345678901234567890".to_owned()),
        ]
    }

    /// Returns whether the integers are within the range that a reader holds; it may refuse others although the
    /// schema accepts them.
    fn is_held(json: &Value) -> bool {
        let below = |pointer: &str, limit: f64| {
            json.pointer(pointer).and_then(Value::as_f64).is_none_or(|number| number.abs() < limit)
        };
        below("/id", 2f64.powi(53)) && below("/year", 2f64.powi(31))
    }

    proptest! {
        #[test]
        fn a_value_that_its_schema_accepts_is_read_as_it_was_written(
            id in json_number(), year in json_number(), odometer in json_number(), price in json_number(),
            vin in any::<String>(), model in any::<String>(), twice in any::<bool>(),
        ) {
            let (vin, model) = (json!(vin), json!(model));
            let first = if twice { "\"vin\":null," } else { "" };
            let text = format!(
                r#"{{{first}"id":{id},"vin":{vin},"model":{model},"manufacturer":"","year":{year},"odometer":{odometer},"odometerUnit":"","price":{price},"priceUnit":""}}"#
            );
            let value: Value = serde_json::from_str(&text).unwrap();
            let read = serde_json::from_value::<VehicleProcessed>(value.clone());
            if validator(VEHICLE_PROCESSED).is_valid(&value) && is_held(&value) {
                let read = read.unwrap();
                prop_assert_eq!(json!(read.created.id).as_f64(), value["id"].as_f64());
                prop_assert_eq!(Some(f64::from(read.created.vehicle.year)), value["year"].as_f64());
                prop_assert_eq!(Some(read.price), value["price"].as_f64());
                prop_assert_eq!(&json!(read.created.vehicle.vin), &value["vin"]);
            } else if let Ok(read) = read {
                // A value that is read although the schema refuses it still has the same numbers.
                prop_assert_eq!(json!(read.created.id).as_f64(), value["id"].as_f64());
                prop_assert_eq!(Some(f64::from(read.created.vehicle.year)), value["year"].as_f64());
            }
        }
    }

    #[test]
    fn an_integer_that_cannot_be_held_is_refused_with_its_range() {
        let mut value = sample::body("vin");
        value["id"] = json!(1e300);
        let error = serde_json::from_value::<VehicleCreated>(value.clone()).unwrap_err().to_string();
        assert!(error.contains("1e+300") && error.contains("64 bits"), "{error}");
        value["id"] = json!(1);
        value["year"] = json!(3_000_000_000u32);
        let error = serde_json::from_value::<VehicleCreated>(value).unwrap_err().to_string();
        assert!(error.contains("3000000000") && error.contains("32 bits"), "{error}");
    }

    #[test]
    fn the_schemas_are_closed_and_refer_to_nothing_outside() {
        for event in EventType::ALL {
            let schema: Value = serde_json::from_str(event.schema).unwrap();
            assert_eq!(schema["additionalProperties"], json!(false), "{}", event.topic);
            assert!(!event.schema.contains("$ref"), "{}", event.topic);
            // Clients cache a compiled schema by its $id, so two versions with the same $id would be confused.
            assert!(schema.get("$id").is_none(), "{}", event.topic);
        }
    }

    #[test]
    fn the_records_of_the_original_services_are_read() {
        let original = json!({
            "vin": "v", "model": "m", "manufacturer": "f", "year": 2020, "odometer": 12.5,
            "odometerUnit": "km", "price": 1234.5, "priceUnit": "USD", "extra": true
        });
        let processed: VehicleProcessed = serde_json::from_value(original).unwrap();
        assert_eq!(processed.created.id, None);
    }

    #[test]
    fn both_schemas_describe_the_fields_of_a_vehicle_in_the_same_way() {
        let properties = |event: EventType| {
            let mut schema: Value = serde_json::from_str(event.schema).unwrap();
            schema["properties"].take().as_object().unwrap().clone()
        };
        let mut processed = properties(VEHICLE_PROCESSED);
        for own in ["price", "priceUnit"] {
            assert!(processed.remove(own).is_some(), "{own}");
        }
        assert_eq!(processed, properties(VEHICLE_CREATED));
    }
}
