//! The messages: the registry's form, and explanations that say what would pass.

use json_schema_compatibility::{Level, incompatibilities};
use serde_json::{Value, json};

use crate::schema;

fn only(old: &Value, new: &Value) -> (String, String, String) {
    let found = incompatibilities(Level::Backward, &schema(new), &schema(old)).unwrap();
    let [found] = &found[..] else { panic!("{found:?}") };
    let explanation = found.explanation();
    (found.message(), explanation.problem, explanation.remedy)
}

#[test]
fn a_message_has_the_form_of_the_registry() {
    let (message, ..) =
        only(&json!({ "properties": {} }), &json!({ "properties": { "a": { "type": "null" } } }));
    assert!(
        message
            .starts_with("{errorType:\"PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL\", description:\"the new schema")
    );
    assert!(message.ends_with("at path '#/properties/a'\"}"), "{message}");
}

#[test]
fn an_explanation_names_the_content_model_and_what_would_pass() {
    let open = json!({ "properties": {} });
    let with = |others: Value| {
        let mut schema = json!({ "properties": { "colour": { "type": "string" } } });
        schema.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
        schema
    };
    let (_, problem, remedy) = only(&open, &with(json!({})));
    assert!(problem.contains("colour") && problem.contains("open"), "{problem}");
    assert!(remedy.contains("additionalProperties") && remedy.contains("empty schema"), "{remedy}");

    let closed = json!({ "properties": {}, "additionalProperties": false });
    let required = with(json!({ "additionalProperties": false, "required": ["colour"] }));
    let (_, problem, remedy) = only(&closed, &required);
    assert!(problem.contains("requires the property colour") && problem.contains("closed"), "{problem}");
    assert!(remedy.contains("\"required\"") && remedy.contains("default"), "{remedy}");

    let (_, problem, remedy) = only(&required, &closed);
    assert!(problem.contains("closed") && problem.contains("refuses colour"), "{problem}");
    assert!(remedy.contains("keep colour"), "{remedy}");
}

#[test]
fn every_incompatible_rule_has_an_explanation_of_its_own() {
    let pairs = [
        (json!({ "type": "string" }), json!({ "type": "string", "maxLength": 3 }), "leave maxLength out"),
        (json!({ "minimum": 1 }), json!({ "minimum": 2 }), "at most as high"),
        (json!({ "maximum": 2 }), json!({ "maximum": 1 }), "at least as high"),
        (json!({ "pattern": "a" }), json!({ "pattern": "b" }), "keep pattern"),
        (json!({ "enum": ["a", "b"] }), json!({ "enum": ["a"] }), "values may be added"),
        (json!({ "type": "string" }), json!({ "type": "null" }), "keep the type"),
        (
            json!({ "anyOf": [{ "type": "null" }, { "type": "string" }] }),
            json!({ "anyOf": [{ "type": "null" }] }),
            "alternatives",
        ),
        (
            json!({ "type": "object" }),
            json!({ "type": "object", "additionalProperties": false }),
            "content model open",
        ),
        (json!({ "type": "array" }), json!({ "type": "array", "items": { "type": "null" } }), "restriction"),
        (
            json!({ "type": "string", "enum": ["a", "b"] }),
            json!({ "type": "string", "enum": ["a"] }),
            "values may be added",
        ),
    ];
    for (old, new, expected) in pairs {
        let (message, problem, remedy) = only(&old, &new);
        assert!(remedy.contains(expected), "{message}: {remedy}");
        assert!(!problem.contains("accepts everything") && problem.contains("the new schema"), "{problem}");
    }
}

#[test]
fn the_remedy_is_a_change_of_the_new_schema_in_both_directions() {
    let small = json!({ "properties": {}, "additionalProperties": false });
    let large = json!({ "properties": { "colour": {} }, "additionalProperties": false });
    let open = json!({ "type": "object" });
    let long = json!({ "type": "string", "maxLength": 5 });
    let short = json!({ "type": "string", "maxLength": 3 });
    for (old, new, expected) in [
        (&small, &large, "leave colour out"),
        (&small, &open, "keep the content model closed"),
        (&short, &long, "at most as high as in the old schema"),
    ] {
        let found = incompatibilities(Level::Forward, &schema(new), &schema(old)).unwrap();
        let remedies: Vec<_> = found.iter().map(|found| found.explanation().remedy).collect();
        assert!(remedies.iter().any(|remedy| remedy.contains(expected)), "{remedies:?}");
        assert!(found.iter().all(|found| found.reader() == "old"), "{found:?}");
    }
}
