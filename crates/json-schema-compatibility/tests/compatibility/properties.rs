//! Properties that hold for all schemas.

use json_schema_compatibility::{Level, differences, incompatibilities};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::schema;

fn leaf() -> impl Strategy<Value = Value> {
    let limit = 0u32..4;
    prop_oneof![
        Just(json!({})),
        any::<bool>().prop_map(|accepts| json!(accepts)),
        Just(json!({ "type": "boolean" })),
        Just(json!({ "$ref": "#" })),
        Just(json!({ "$ref": "#/definitions/shared" })),
        (limit.clone(), limit.clone())
            .prop_map(|(min, max)| json!({ "type": "string", "minLength": min, "maxLength": max })),
        (any::<bool>(), limit.clone()).prop_map(|(integer, max)| {
            json!({ "type": if integer { "integer" } else { "number" }, "maximum": max })
        }),
        prop::collection::btree_set("[a-c]", 1..4)
            .prop_map(|values| json!({ "type": "string", "enum": values })),
        prop::sample::subsequence(vec!["string", "null", "integer"], 1..3)
            .prop_map(|types| json!({ "type": types })),
        limit.prop_map(|value| json!({ "const": value, "default": value, "title": value.to_string() })),
    ]
}

fn subschema() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 16, 3, |inner| {
        let names = || prop::collection::btree_map("[a-d]", inner.clone(), 0..3);
        prop_oneof![
            (names(), any::<bool>(), prop::collection::vec("[a-d]", 0..2), inner.clone()).prop_map(
                |(properties, is_closed, mut required, additional)| {
                    required.dedup();
                    let additional = if is_closed { json!(false) } else { additional };
                    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": additional })
                }
            ),
            names().prop_map(|properties| json!({ "properties": properties })),
            (names(), inner.clone()).prop_map(|(properties, pattern)| {
                json!({ "properties": properties, "patternProperties": { "^[ab]": pattern } })
            }),
            inner.clone().prop_map(|items| json!({ "type": "array", "items": items })),
            (prop::collection::vec(inner.clone(), 1..3), any::<bool>()).prop_map(|(items, additional)| {
                json!({ "type": "array", "items": items, "additionalItems": additional })
            }),
            (prop::sample::select(vec!["oneOf", "anyOf", "allOf"]), prop::collection::vec(inner.clone(), 1..3))
                .prop_map(|(keyword, branches)| json!({ keyword: branches })),
            inner.prop_map(|excluded| json!({ "not": excluded })),
        ]
    })
}

fn document() -> impl Strategy<Value = Value> {
    (subschema(), subschema()).prop_map(|(root, shared)| {
        let mut root = match root {
            Value::Object(keywords) if !keywords.contains_key("$ref") => keywords,
            other => Map::from_iter([("properties".to_owned(), json!({ "x": other }))]),
        };
        root.insert("definitions".to_owned(), json!({ "shared": shared }));
        Value::Object(root)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_schema_is_compatible_with_itself(document in document()) {
        let found = differences(&schema(&document), &schema(&document)).unwrap();
        prop_assert!(found.iter().all(|difference| difference.rule.is_compatible()), "{:?}", found);
    }

    #[test]
    fn forward_is_backward_with_the_schemas_exchanged(one in document(), other in document()) {
        let (one, other) = (schema(&one), schema(&other));
        let found = |level, new, old| {
            let found = incompatibilities(level, new, old).unwrap();
            found.into_iter().map(|found| found.difference).collect::<Vec<_>>()
        };
        let (backward, forward) = (found(Level::Backward, &one, &other), found(Level::Forward, &other, &one));
        prop_assert_eq!(&backward, &forward);
        let full = found(Level::Full, &one, &other);
        prop_assert_eq!(full.len(), backward.len() + found(Level::Forward, &one, &other).len());
        prop_assert!(found(Level::None, &one, &other).is_empty());
    }

    #[test]
    fn annotations_and_the_order_of_alternatives_do_not_matter(document in document(), title in ".{0,5}") {
        let mut described = document.clone();
        described["title"] = json!(title);
        described["description"] = json!(title);
        for keyword in ["oneOf", "anyOf", "allOf"] {
            if let Some(branches) = described.get_mut(keyword).and_then(Value::as_array_mut) {
                branches.reverse();
            }
        }
        for (reader, writer) in [(&document, &described), (&described, &document)] {
            let found = differences(&schema(reader), &schema(writer)).unwrap();
            prop_assert!(found.iter().all(|difference| difference.rule.is_compatible()), "{:?}", found);
        }
    }
}

/// Generates schemas of closed objects and of values without defaults and alternatives, for which the rules are exact
/// enough to promise something about values.
fn plain() -> impl Strategy<Value = Value> {
    let limit = 0u32..4;
    let leaf = prop_oneof![
        Just(json!({ "type": "boolean" })),
        limit.clone().prop_map(|min| json!({ "type": "string", "minLength": min })),
        limit.clone().prop_map(|max| json!({ "type": "string", "maxLength": max })),
        (any::<bool>(), limit.clone()).prop_map(
            |(integer, max)| json!({ "type": if integer { "integer" } else { "number" }, "maximum": max })
        ),
        limit.prop_map(|min| json!({ "type": "number", "exclusiveMinimum": min })),
        prop::collection::btree_set("[a-c]", 1..4).prop_map(|values| json!({ "enum": values })),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let properties = prop::collection::btree_map("[a-c]", (inner.clone(), any::<bool>()), 0..3);
        prop_oneof![
            properties.prop_map(|properties| {
                let required: Vec<_> =
                    properties.iter().filter(|(_, (_, required))| *required).map(|(name, _)| name.clone()).collect();
                let properties: Map<_, _> =
                    properties.into_iter().map(|(name, (schema, _))| (name, schema)).collect();
                json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
            }),
            inner.prop_map(|items| json!({ "type": "array", "items": items })),
        ]
    })
}

/// Changes a schema at each place as the next edit says.
fn edited(schema: &Value, edits: &mut impl Iterator<Item = u8>) -> Value {
    let mut schema = schema.clone();
    let mut next = || edits.next().unwrap_or_default();
    let keywords = schema.as_object_mut().unwrap();
    for limit in ["minLength", "maxLength", "maximum", "exclusiveMinimum"] {
        if let Some(value) = keywords.get_mut(limit) {
            *value = json!((value.as_i64().unwrap() + i64::from(next() % 3) - 1).max(0));
        }
    }
    if let Some(Value::Array(values)) = keywords.get_mut("enum") {
        match next() % 3 {
            0 => values.push(json!("d")),
            1 if values.len() > 1 => drop(values.pop()),
            _ => {}
        }
    }
    if keywords.get("type") == Some(&json!("integer")) && next() % 2 == 0 {
        keywords.insert("type".to_owned(), json!("number"));
    }
    if let Some(Value::Array(required)) = keywords.get_mut("required")
        && next() % 3 == 0
    {
        required.pop();
    }
    let edit = next();
    if let Some(Value::Object(properties)) = keywords.get_mut("properties") {
        for property in properties.values_mut() {
            *property = edited(property, edits);
        }
        if edit % 3 == 0 {
            properties.insert("d".to_owned(), json!({ "type": "boolean" }));
        }
    }
    if let Some(items) = keywords.get_mut("items") {
        *items = edited(items, edits);
    }
    schema
}

/// Returns values that a schema may accept.
fn candidates(schema: &Value) -> Vec<Value> {
    let leaves = json!([
        null, true, "", "a", "b", "c", "d", "aa", "aaa", "aaaa", "aaaaa", 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4,
        5
    ]);
    let leaves = leaves.as_array().unwrap().clone();
    if let Some(items) = schema.get("items") {
        let items = candidates(items).into_iter().map(|item| json!([item]));
        return [json!([])].into_iter().chain(items).collect();
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return leaves };
    // Each candidate of each property, together with one that is accepted for each other property.
    let good = |schema: &Value| {
        let validator = jsonschema::validator_for(schema).unwrap();
        candidates(schema).into_iter().find(|value| validator.is_valid(value))
    };
    let base: Map<_, _> =
        properties.iter().filter_map(|(name, schema)| Some((name.clone(), good(schema)?))).collect();
    let mut found = vec![json!({}), json!(base)];
    for (name, schema) in properties {
        let mut without = base.clone();
        without.remove(name);
        found.push(json!(without));
        for value in candidates(schema) {
            let mut object = base.clone();
            object.insert(name.clone(), value);
            found.push(json!(object));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_compatible_reader_accepts_what_the_writer_accepts(
        old in plain(), edits in prop::collection::vec(any::<u8>(), 12),
    ) {
        let new = edited(&old, &mut edits.into_iter());
        let found = differences(&schema(&new), &schema(&old)).unwrap();
        if found.iter().all(|difference| difference.rule.is_compatible()) {
            let (writer, reader) = (jsonschema::validator_for(&old).unwrap(), jsonschema::validator_for(&new).unwrap());
            for value in candidates(&old).iter().filter(|value| writer.is_valid(value)) {
                prop_assert!(reader.is_valid(value), "{} {} {}", old, new, value);
            }
        }
    }
}
