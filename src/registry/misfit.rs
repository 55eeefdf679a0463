//! Recognises a schema of others that no event can conform to, whatever its values.

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value};

use crate::event::EventType;

/// Returns why no event conforms to a schema: it requires a field that events never have, or refuses one that they
/// always have. Fields inside alternatives are not looked at.
pub(super) fn misfit(validator: &Validator, event_type: EventType) -> Option<String> {
    let own: Value = serde_json::from_str(event_type.schema).ok()?;
    let all = own.get("properties")?.as_object()?.keys();
    let always = own.get("required")?.as_array()?.iter().filter_map(Value::as_str);
    let missing =
        violations(validator, all.cloned(), |kind| matches!(kind, ValidationErrorKind::Required { .. }));
    let refused = violations(validator, always.map(str::to_owned), |kind| {
        matches!(kind, ValidationErrorKind::AdditionalProperties { .. })
    });
    missing.or(refused)
}

/// Describes the first violation of a kind by an object with these names, apart from the values.
fn violations(
    validator: &Validator,
    names: impl Iterator<Item = String>,
    is_wanted: impl Fn(&ValidationErrorKind) -> bool,
) -> Option<String> {
    let event = Value::Object(names.map(|name| (name, Value::Null)).collect::<Map<_, _>>());
    let mut errors = validator.iter_errors(&event);
    let found = errors.find(|error| error.instance_path().as_str().is_empty() && is_wanted(error.kind()));
    found.map(|error| error.masked().to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{VEHICLE_CREATED, VEHICLE_PROCESSED};

    fn reason(event_type: EventType, change: impl FnOnce(&mut Value)) -> Option<String> {
        let mut schema = serde_json::from_str(event_type.schema).unwrap();
        change(&mut schema);
        misfit(&jsonschema::validator_for(&schema).unwrap(), event_type)
    }

    #[test]
    fn only_names_make_a_misfit() {
        for event_type in EventType::ALL {
            assert_eq!(reason(event_type, |_| {}), None);
            assert_eq!(
                reason(event_type, |schema| schema["properties"]["year"] = json!({ "enum": [1] })),
                None
            );
            assert_eq!(reason(event_type, |schema| schema["required"] = json!([])), None);
            let required =
                reason(event_type, |schema| schema["required"] = json!(["vin", "colour"])).unwrap();
            assert!(required.contains("colour"), "{required}");
            let refused = |schema: &mut Value| {
                schema["properties"].as_object_mut().unwrap().remove("model");
            };
            let refused = reason(event_type, refused).unwrap();
            assert!(refused.contains("model"), "{refused}");
        }
    }

    #[test]
    fn a_field_that_events_have_only_sometimes_may_be_refused() {
        let without_id = |schema: &mut Value| {
            schema["properties"].as_object_mut().unwrap().remove("id");
            schema["required"].as_array_mut().unwrap().retain(|name| name != "id");
        };
        assert_eq!(reason(VEHICLE_PROCESSED, without_id), None);
        assert!(reason(VEHICLE_CREATED, without_id).is_some());
    }
}
