//! References: within a document, to other documents, and recursive ones.

use std::collections::BTreeMap;

use json_schema_compatibility::Rule::*;
use json_schema_compatibility::{Schema, TooComplex, differences};
use serde_json::{Map, Value, json};

use crate::{assert_changes, assert_compatible, assert_incompatible, schema};

const MODERN: &str = "https://json-schema.org/draft/2020-12/schema";

#[test]
fn a_reference_is_equal_to_what_it_refers_to() {
    let direct = json!({ "properties": { "a": { "type": "string", "maxLength": 3 } } });
    let through = |target: Value| json!({ "definitions": { "text": target }, "properties": { "a": { "$ref": "#/definitions/text" } } });
    let same = through(json!({ "type": "string", "maxLength": 3 }));
    assert_changes(&direct, &same, &[]);
    assert_changes(&same, &direct, &[]);
    let looser = through(json!({ "type": "string" }));
    assert_changes(&direct, &looser, &[(MaxLengthRemoved, "#/properties/a/maxLength")]);
}

#[test]
fn references_by_anchor_id_and_pointer_are_resolved() {
    let of = |reference: &str, maximum: u32| {
        json!({
            "$schema": MODERN,
            "$defs": {
                "one": { "$anchor": "one", "type": "integer", "maximum": maximum },
                "two": { "$id": "https://example.com/two.json", "type": "integer", "maximum": maximum }
            },
            "properties": { "a": { "$ref": reference } }
        })
    };
    for reference in ["#one", "#/$defs/one", "https://example.com/two.json"] {
        let path = "#/properties/a/maximum";
        assert_changes(&of(reference, 1), &of(reference, 2), &[(MaximumIncreased, path)]);
    }
}

#[test]
fn only_the_newer_drafts_have_keywords_next_to_a_reference() {
    let of = |draft: &str, length: u32| {
        let text = json!({ "type": "string" });
        json!({ "$schema": draft, "definitions": { "t": text }, "$ref": "#/definitions/t", "maxLength": length })
    };
    let old_draft = "http://json-schema.org/draft-07/schema#";
    assert_changes(&of(old_draft, 5), &of(old_draft, 3), &[]);
    assert_incompatible(&of(MODERN, 5), &of(MODERN, 3));
    assert_compatible(&of(MODERN, 3), &of(MODERN, 5));
}

#[test]
fn other_documents_are_found_by_their_names() {
    let root = json!({ "properties": { "a": { "$ref": "types/text.json" }, "b": { "$ref": "number.json#/definitions/n" } } });
    let with = |length: u32, maximum: u32| {
        let references = BTreeMap::from([
            ("types/text.json".to_owned(), json!({ "type": "string", "maxLength": length })),
            ("number.json".to_owned(), json!({ "definitions": { "n": { "maximum": maximum } } })),
        ]);
        Schema::parse(&root, &references).unwrap()
    };
    let found = differences(&with(3, 8), &with(5, 7)).unwrap();
    let found: Vec<_> = found.iter().map(|difference| (difference.rule, difference.path())).collect();
    let expected =
        [(MaxLengthDecreased, "#/properties/a/maxLength"), (MaximumIncreased, "#/properties/b/maximum")];
    assert_eq!(found, expected.map(|(rule, path)| (rule, path.to_owned())));
    assert!(Schema::parse(&root, &BTreeMap::new()).is_err());
}

#[test]
fn the_names_of_other_documents_are_resolved_against_the_id() {
    let root = json!({ "$id": "https://example.com/root.json", "items": { "$ref": "text.json" } });
    let references = BTreeMap::from([("text.json".to_owned(), json!({ "type": "string" }))]);
    assert!(Schema::parse(&root, &references).is_ok());
}

#[test]
fn the_meta_schemas_and_ids_of_any_form_are_known() {
    for document in [
        json!({ "$ref": "http://json-schema.org/draft-07/schema#" }),
        json!({ "$schema": MODERN, "$ref": "http://json-schema.org/draft-04/schema#" }),
        json!({ "$id": "#root", "items": { "$ref": "#" } }),
        json!({ "$id": "relative/root.json", "items": { "$ref": "#" } }),
        json!({ "$id": "urn:uuid:ee564b8a-7a87-4125-8c96-e9f123d6766f", "items": { "$ref": "#" } }),
        json!({ "$schema": "http://json-schema.org/draft-04/schema#", "id": "http://a/b", "items": { "$ref": "#" } }),
        json!({ "$schema": "https://example.com/unknown", "items": { "$ref": "#" } }),
    ] {
        assert_compatible(&document, &document);
    }
}

#[test]
fn recursive_schemas_are_compared() {
    let tree = |leaf: Value| {
        json!({
            "additionalProperties": false,
            "properties": { "value": leaf, "children": { "type": "array", "items": { "$ref": "#" } } }
        })
    };
    let (number, integer) = (json!({ "type": "number" }), json!({ "type": "integer" }));
    assert_changes(&tree(integer.clone()), &tree(number.clone()), &[(TypeExtended, "#/properties/value")]);
    assert_changes(
        &tree(number.clone()),
        &tree(integer.clone()),
        &[
            (TypeNarrowed, "#/properties/children/items/properties/value"),
            (TypeNarrowed, "#/properties/value"),
        ],
    );
    // One that is recursive through alternatives.
    let list = |leaf: &Value| json!({ "oneOf": [{ "type": "array", "items": { "$ref": "#" } }, leaf] });
    assert_compatible(&list(&integer), &list(&number));
    assert_incompatible(&list(&number), &list(&integer));
}

#[test]
fn references_that_refer_only_to_each_other_are_compared() {
    let circle = json!({ "definitions": { "a": { "$ref": "#/definitions/b" }, "b": { "$ref": "#/definitions/a" } }, "properties": { "x": { "$ref": "#/definitions/a" } } });
    assert_changes(&circle, &circle, &[]);
}

#[test]
fn schemas_of_any_size_are_compared_or_refused_within_bounds() {
    // Every definition refers twice to the next one: 2^100 paths.
    let doubling = |leaf: &str| {
        let mut definitions = Map::new();
        for index in 0..100 {
            let next = json!({ "$ref": format!("#/definitions/d{}", index + 1) });
            definitions.insert(format!("d{index}"), json!({ "properties": { "x": next, "y": next } }));
        }
        definitions.insert("d100".to_owned(), json!({ "type": leaf }));
        json!({ "definitions": definitions, "$ref": "#/definitions/d0" })
    };
    assert_incompatible(&doubling("number"), &doubling("integer"));
    assert_compatible(&doubling("integer"), &doubling("number"));

    let chain = |length: usize| {
        let mut definitions = Map::new();
        for index in 0..length {
            let next = json!({ "$ref": format!("#/definitions/d{}", index + 1) });
            definitions.insert(format!("d{index}"), json!({ "properties": { "x": next } }));
        }
        definitions.insert(format!("d{length}"), json!({ "type": "number" }));
        schema(&json!({ "definitions": definitions, "$ref": "#/definitions/d0" }))
    };
    assert_eq!(differences(&chain(5_000), &chain(5_000)), Err(TooComplex));

    let branches = |from: usize| {
        let branches: Vec<_> = (from..from + 400).map(|index| json!({ "const": index })).collect();
        schema(&json!({ "oneOf": branches }))
    };
    assert_eq!(differences(&branches(0), &branches(1)), Err(TooComplex));
}

#[test]
fn what_is_no_schema_is_refused() {
    for document in [
        json!([]),
        json!("text"),
        json!({ "type": "unknown" }),
        json!({ "type": 3 }),
        json!({ "minLength": "x" }),
        json!({ "pattern": "(" }),
        json!({ "patternProperties": { "(": {} } }),
        json!({ "$ref": "#/definitions/missing" }),
        json!({ "$ref": "https://example.com/missing.json" }),
    ] {
        assert!(Schema::parse(&document, &BTreeMap::new()).is_err(), "{document}");
    }
}
