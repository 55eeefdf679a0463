//! Converts an untrusted JSON document to a [`Vehicle`] and reports every invalid field at once.

use serde_json::Value;

use super::number::as_integer;
use super::{Manufacturer, Model, Odometer, OdometerUnit, Vehicle, Vin, Year};

/// An invalid field of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The JSON pointer (RFC 6901) to the field.
    pub pointer: &'static str,
    pub detail: String,
}

/// Reads a vehicle and ignores unknown fields.
///
/// # Errors
/// Returns every invalid field, in the order in which the documentation lists them.
pub fn parse_vehicle(document: &Value, this_year: i32) -> Result<Vehicle, Vec<FieldError>> {
    let Value::Object(_) = document else {
        return Err(vec![FieldError { pointer: "", detail: "must be an object".to_owned() }]);
    };
    let mut errors = Vec::new();
    let vin = field(document, "/vin", text(Vin::parse), &mut errors);
    let model = field(document, "/model", text(Model::parse), &mut errors);
    let manufacturer = field(document, "/manufacturer", text(Manufacturer::parse), &mut errors);
    let year = field(document, "/year", |value| integer(value, this_year), &mut errors);
    let odometer = field(document, "/odometer", number, &mut errors);
    let odometer_unit = field(document, "/odometerUnit", text(OdometerUnit::parse), &mut errors);
    match (vin, model, manufacturer, year, odometer, odometer_unit) {
        (Some(vin), Some(model), Some(manufacturer), Some(year), Some(odometer), Some(odometer_unit)) => {
            Ok(Vehicle { vin, model, manufacturer, year, odometer, odometer_unit })
        }
        _ => Err(errors),
    }
}

fn field<T>(
    document: &Value,
    pointer: &'static str,
    parse: impl Fn(&Value) -> Result<T, String>,
    errors: &mut Vec<FieldError>,
) -> Option<T> {
    let parsed = match document.pointer(pointer) {
        None | Some(Value::Null) => Err("is required".to_owned()),
        Some(value) => parse(value),
    };
    parsed.map_err(|detail| errors.push(FieldError { pointer, detail })).ok()
}

fn text<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&Value) -> Result<T, String> {
    move |value| match value {
        Value::String(text) => parse(text),
        _ => Err("must be a string".to_owned()),
    }
}

fn integer(value: &Value, this_year: i32) -> Result<Year, String> {
    match value {
        Value::Number(number) if number.as_f64().is_some_and(|float| float.fract() == 0.0) => {
            // An integer that does not fit an `i64` is too large for a year as well.
            Year::parse(as_integer(number).unwrap_or(i64::MAX), this_year)
        }
        _ => Err("must be an integer".to_owned()),
    }
}

fn number(value: &Value) -> Result<Odometer, String> {
    match value.as_f64() {
        Some(number) => Odometer::parse(number),
        None => Err("must be a number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::vehicle::sample;

    #[test]
    fn the_documented_body_is_accepted_unchanged() {
        let vehicle = parse_vehicle(&sample::body("vin"), 2026).unwrap();
        assert_eq!(vehicle.vin.as_str(), "vin");
        assert_eq!(vehicle.year.get(), 2022);
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let mut document = sample::body("vin");
        document["colour"] = json!("red");
        assert!(parse_vehicle(&document, 2026).is_ok());
    }

    #[test]
    fn every_invalid_field_is_reported_at_once() {
        let document = json!({
            "vin": " ", "model": 7, "year": "2022", "odometer": -1, "odometerUnit": null
        });
        let errors = parse_vehicle(&document, 2026).unwrap_err();
        let named: Vec<_> = errors.iter().map(|error| (error.pointer, error.detail.as_str())).collect();
        assert_eq!(
            named,
            [
                ("/vin", "must not be blank"),
                ("/model", "must be a string"),
                ("/manufacturer", "is required"),
                ("/year", "must be an integer"),
                ("/odometer", "must be a finite number, 0 or more"),
                ("/odometerUnit", "is required"),
            ]
        );
    }

    #[test]
    fn a_year_may_be_written_with_a_fraction_of_zero() {
        for (json, year) in
            [("2022.0", Ok(2022)), ("2.022e3", Ok(2022)), ("2022.5", Err("must be an integer"))]
        {
            let mut document = sample::body("vin");
            document["year"] = serde_json::from_str(json).unwrap();
            let parsed = parse_vehicle(&document, 2026).map(|vehicle| vehicle.year.get());
            assert_eq!(
                parsed.as_ref().map_err(|errors| errors[0].detail.as_str()),
                year.as_ref().map_err(|error| *error),
                "{json}"
            );
        }
    }

    #[test]
    fn a_document_that_is_not_an_object_is_one_error_at_the_root() {
        for document in [json!([]), json!("vin"), json!(null), json!(1)] {
            let errors = parse_vehicle(&document, 2026).unwrap_err();
            assert_eq!(errors.len(), 1);
            assert_eq!(errors[0].pointer, "");
        }
    }

    proptest! {
        #[test]
        fn a_year_is_an_integer_within_its_bounds(year in any::<i64>()) {
            let mut document = sample::body("vin");
            document["year"] = json!(year);
            prop_assert_eq!(parse_vehicle(&document, 2026).is_ok(), (1886..=2027).contains(&year));
        }
    }
}
