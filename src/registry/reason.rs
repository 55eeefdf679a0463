//! Describes why a value violates its schema: first the locations and the errors, then an excerpt of the value.

use jsonschema::ValidationError;

use crate::excerpt::excerpt;

/// The maximum number of errors that are described. The others are counted.
const MAX_ERRORS: usize = 5;
/// The maximum number of characters of the location of an error, which may come from the value.
const MAX_POINTER_CHARS: usize = 60;
/// The maximum number of characters of the description of an error, which may come from the value.
const MAX_CAUSE_CHARS: usize = 120;
/// The maximum number of characters quoted from the value at the first error.
const MAX_QUOTE_CHARS: usize = 200;
/// The maximum number of characters of a deserialization error.
const MAX_READING_CHARS: usize = 400;

/// Describes the errors of a validator.
pub(super) fn of_errors<'a>(mut errors: impl Iterator<Item = ValidationError<'a>>) -> String {
    let Some(first) = errors.next() else { return "the value violates its schema".to_owned() };
    let mut causes = vec![cause(&first)];
    causes.extend(errors.by_ref().take(MAX_ERRORS - 1).map(|error| cause(&error)));
    let more = match errors.count() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    let quote = excerpt(&first.instance().to_string(), MAX_QUOTE_CHARS);
    format!("{}{more}; the value at the first error is {quote}", causes.join(", "))
}

/// Describes why a value that conforms to its schema cannot be deserialized. The excerpt keeps both ends of the error,
/// because serde quotes the value before it names the expected type.
pub(super) fn of_reading(error: &serde_json::Error) -> String {
    format!("the value cannot be read: {}", excerpt(&error.to_string(), MAX_READING_CHARS))
}

/// Describes one error by its JSON pointer and its cause, without the value.
fn cause(error: &ValidationError<'_>) -> String {
    let cause = excerpt(&error.masked().to_string(), MAX_CAUSE_CHARS);
    match error.instance_path().as_str() {
        "" => cause,
        pointer => format!("{}: {cause}", excerpt(pointer, MAX_POINTER_CHARS)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn reason(schema: &Value, value: &Value) -> String {
        of_errors(jsonschema::validator_for(schema).unwrap().iter_errors(value))
    }

    #[test]
    fn every_wrong_field_is_named_before_a_value_is_quoted() {
        let schema = json!({
            "required": ["vin"],
            "properties": { "year": { "type": "integer" }, "odometer": { "minimum": 0 } }
        });
        let value = json!({ "model": "m".repeat(3_000), "year": "x".repeat(3_000), "odometer": -1 });
        let reason = reason(&schema, &value);
        let (causes, quote) = reason.split_once("; the value at the first error is ").unwrap();
        for cause in [
            "/year: value is not of type \"integer\"",
            "/odometer: value is less than",
            "\"vin\" is a required",
        ] {
            assert!(causes.contains(cause), "{reason}");
        }
        assert!(quote.chars().count() <= MAX_QUOTE_CHARS, "{reason}");
    }

    #[test]
    fn the_reason_of_an_unreadable_value_quotes_the_value_and_the_expected_type() {
        let error = serde_json::from_value::<i32>(json!("x".repeat(3_000))).unwrap_err();
        let reason = of_reading(&error);
        assert!(reason.starts_with("the value cannot be read: invalid type: string \"xxx"), "{reason}");
        assert!(reason.ends_with("expected i32") && reason.chars().count() < 500, "{reason}");
    }

    proptest! {
        #[test]
        fn a_reason_begins_with_the_location_and_the_cause_for_any_value(text in "\\PC{0,3000}", names in 0usize..20) {
            let schema = json!({ "properties": { "year": { "type": "integer" } }, "additionalProperties": false });
            let mut value = json!({ "year": text });
            for name in 0..names {
                value[format!("{text}{name}")] = json!(text);
            }
            let reason = reason(&schema, &value);
            prop_assert!(reason.chars().count() <= 1_000, "{}", reason);
            prop_assert!(reason.contains("/year: value is not of type \"integer\""), "{}", reason);
        }
    }
}
