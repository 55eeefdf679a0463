//! Recognises a schema of others that cannot be used: events do not conform to it, whatever the values of clients are.

use jsonschema::Validator;
use jsonschema::error::{ValidationError, ValidationErrorKind};
use serde_json::{Map, Value, json};

use crate::event::EventType;

/// The field that the product sets, not a client.
const ID: &str = "id";
/// The least and the largest id of an event that a schema must accept. Databases assign larger ids only after more than
/// two billion vehicles.
const IDS: [i32; 2] = [1, i32::MAX];

/// Returns why a schema cannot be used: it requires a field that events never have, refuses one that they always have, or
/// refuses ids that events will have. Fields inside alternatives are not looked at.
pub(super) fn misfit(validator: &Validator, event_type: EventType) -> Option<String> {
    let own: Value = serde_json::from_str(event_type.schema).ok()?;
    let all = own.get("properties")?.as_object()?.keys();
    let always: Vec<_> = own.get("required")?.as_array()?.iter().filter_map(Value::as_str).collect();
    let is_of_event = |error: &ValidationError<'_>| error.instance_path().as_str().is_empty();
    let missing = violation(validator, nulls(all.cloned()), |error| {
        is_of_event(error) && matches!(error.kind(), ValidationErrorKind::Required { .. })
    });
    let refused = violation(validator, nulls(always.iter().map(|name| (*name).to_owned())), |error| {
        is_of_event(error) && matches!(error.kind(), ValidationErrorKind::AdditionalProperties { .. })
    });
    if let Some(reason) = missing.or(refused) {
        return Some(format!("it refuses every event of this release: {reason}"));
    }
    // An event without an id is none that the product numbers.
    let ids = IDS.iter().filter(|_| always.contains(&ID));
    let refused = ids.map(|id| Map::from_iter([(ID.to_owned(), json!(id))])).find_map(|event| {
        violation(validator, event, |error| error.instance_path().as_str() == format!("/{ID}"))
    });
    refused.map(|reason| format!("it refuses ids from {} to {}: {reason}", IDS[0], IDS[1]))
}

fn nulls(names: impl Iterator<Item = String>) -> Map<String, Value> {
    names.map(|name| (name, Value::Null)).collect()
}

/// Describes the first violation of a kind by an event, without the event's values.
fn violation(
    validator: &Validator,
    event: Map<String, Value>,
    is_wanted: impl Fn(&ValidationError<'_>) -> bool,
) -> Option<String> {
    let event = Value::Object(event);
    let found = validator.iter_errors(&event).find(is_wanted);
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
            for id in [json!({ "type": "integer", "maximum": i32::MAX }), json!({ "minimum": 1 }), json!({})]
            {
                assert_eq!(reason(event_type, |schema| schema["properties"]["id"] = id), None);
            }
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

    #[test]
    fn ids_that_events_will_have_must_be_accepted() {
        for rule in [
            json!({ "maximum": 1000 }),
            json!({ "exclusiveMaximum": i32::MAX }),
            json!({ "minimum": 2 }),
            json!({ "multipleOf": 2 }),
            json!({ "enum": [1, 2, 3] }),
            json!({ "type": "string" }),
        ] {
            let limited = |schema: &mut Value| schema["properties"]["id"] = rule.clone();
            let refused = reason(VEHICLE_CREATED, limited).unwrap();
            assert!(refused.contains("ids from 1 to 2147483647: "), "{refused}");
            // The id of a processed vehicle is that of the record it was made of.
            assert_eq!(reason(VEHICLE_PROCESSED, limited), None);
        }
    }
}
