//! Rules about objects: the content model decides about properties.

use json_schema_compatibility::{ContentModel, Rule::*};
use serde_json::{Value, json};

use crate::{assert_changes, assert_compatible, assert_incompatible, changes};

/// Returns a schema of an object with these properties and other keywords.
fn object(properties: Value, others: Value) -> Value {
    let mut schema = json!({ "type": "object", "properties": properties });
    schema.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
    schema
}

fn open(properties: Value) -> Value {
    object(properties, json!({}))
}

fn closed(properties: Value) -> Value {
    object(properties, json!({ "additionalProperties": false }))
}

#[test]
fn a_property_may_be_added_to_a_closed_object_and_removed_from_an_open_one() {
    let (one, two) = (json!({ "a": {} }), json!({ "a": {}, "b": { "type": "string" } }));
    let path = "#/properties/b";
    assert_changes(&open(one.clone()), &open(two.clone()), &[(PropertyAddedToOpenContentModel, path)]);
    assert_changes(&open(two.clone()), &open(one.clone()), &[(PropertyRemovedFromOpenContentModel, path)]);
    assert_changes(
        &closed(one.clone()),
        &closed(two.clone()),
        &[(OptionalPropertyAddedToUnopenContentModel, path)],
    );
    assert_changes(
        &closed(two.clone()),
        &closed(one.clone()),
        &[(PropertyRemovedFromClosedContentModel, path)],
    );
    assert_incompatible(&open(one.clone()), &open(two.clone()));
    assert_compatible(&open(two.clone()), &open(one.clone()));
    assert_compatible(&closed(one.clone()), &closed(two.clone()));
    assert_incompatible(&closed(two), &closed(one));
}

#[test]
fn the_content_model_is_named() {
    let (one, two) = (json!({}), json!({ "b": { "type": "string" } }));
    let models = |old: Value, new: Value| {
        changes(&old, &new).iter().map(|found| found.content_model).collect::<Vec<_>>()
    };
    assert_eq!(models(open(one.clone()), open(two.clone())), [Some(ContentModel::Open)]);
    assert_eq!(models(closed(two.clone()), closed(one.clone())), [Some(ContentModel::Closed)]);
    let partially = |properties: Value| {
        object(properties, json!({ "patternProperties": { "^b": { "type": "string" } } }))
    };
    assert_eq!(models(partially(two), partially(one)), [Some(ContentModel::PartiallyOpen)]);
}

#[test]
fn an_empty_schema_may_be_added_to_an_open_object_and_false_removed_from_a_closed_one() {
    let path = "#/properties/a";
    for empty in [json!({}), json!(true)] {
        let added = open(json!({ "a": empty }));
        assert_changes(&open(json!({})), &added, &[(PropertyWithEmptySchemaAddedToOpenContentModel, path)]);
    }
    let with_false = closed(json!({ "a": false }));
    assert_changes(
        &with_false,
        &closed(json!({})),
        &[(PropertyWithFalseRemovedFromClosedContentModel, path)],
    );
}

#[test]
fn a_required_property_may_be_added_only_with_a_default_and_to_a_closed_object() {
    let required = |property: Value| {
        object(json!({ "a": property }), json!({ "additionalProperties": false, "required": ["a"] }))
    };
    let path = "#/properties/a";
    let plain = json!({ "type": "string" });
    assert_changes(
        &closed(json!({})),
        &required(plain),
        &[(RequiredPropertyAddedToUnopenContentModel, path)],
    );
    let default = json!({ "type": "string", "default": "x" });
    assert_changes(
        &closed(json!({})),
        &required(default),
        &[(RequiredPropertyWithDefaultAddedToUnopenContentModel, path)],
    );
    let open_required =
        object(json!({ "a": { "type": "string", "default": "x" } }), json!({ "required": ["a"] }));
    assert_incompatible(&open(json!({})), &open_required);
}

#[test]
fn a_listed_property_may_become_optional_or_required_with_a_default() {
    let of =
        |property: Value, required: Value| object(json!({ "a": property }), json!({ "required": required }));
    let (plain, default) = (json!({ "type": "string" }), json!({ "type": "string", "default": "x" }));
    let path = "#/required/a";
    assert_changes(
        &of(plain.clone(), json!(["a"])),
        &of(plain.clone(), json!([])),
        &[(RequiredAttributeRemoved, path)],
    );
    assert_changes(
        &of(plain.clone(), json!([])),
        &of(plain, json!(["a"])),
        &[(RequiredAttributeAdded, path)],
    );
    assert_changes(
        &of(default.clone(), json!([])),
        &of(default, json!(["a"])),
        &[(RequiredAttributeWithDefaultAdded, path)],
    );
}

#[test]
fn a_property_that_a_partially_open_object_covers_is_compared_with_the_covering_schema() {
    let partially = |properties: Value| {
        object(
            properties,
            json!({ "patternProperties": { "^n_": { "type": "integer" } }, "additionalProperties": { "type": "string" } }),
        )
    };
    let (old, path) = (partially(json!({})), "#/properties/n_a");
    assert_changes(
        &old,
        &partially(json!({ "n_a": { "type": "number" } })),
        &[
            (TypeExtended, path),
            (PropertyAddedIsCoveredByPartiallyOpenContentModel, path),
            (OptionalPropertyAddedToUnopenContentModel, path),
        ],
    );
    let path = "#/properties/b";
    assert_changes(
        &old,
        &partially(json!({ "b": { "type": "number" } })),
        &[
            (TypeChanged, path),
            (PropertyAddedNotCoveredByPartiallyOpenContentModel, path),
            (OptionalPropertyAddedToUnopenContentModel, path),
        ],
    );
    assert_changes(
        &partially(json!({ "b": { "type": "string", "maxLength": 3 } })),
        &old,
        &[
            (MaxLengthRemoved, "#/properties/b/maxLength"),
            (PropertyRemovedIsCoveredByPartiallyOpenContentModel, path),
        ],
    );
    assert_changes(
        &partially(json!({ "b": { "type": "null" } })),
        &old,
        &[(TypeChanged, path), (PropertyRemovedNotCoveredByPartiallyOpenContentModel, path)],
    );
}

#[test]
fn an_object_may_be_opened_but_not_closed() {
    let of = |additional: Value| json!({ "type": "object", "additionalProperties": additional });
    let (text, path) = (json!({ "type": "string" }), "#/additionalProperties");
    for (old, new, rule) in [
        (json!(false), json!(true), AdditionalPropertiesAdded),
        (json!(false), text.clone(), AdditionalPropertiesAdded),
        (json!(true), json!(false), AdditionalPropertiesRemoved),
        (text.clone(), json!(false), AdditionalPropertiesRemoved),
        (json!(true), text.clone(), AdditionalPropertiesNarrowed),
        (text.clone(), json!(true), AdditionalPropertiesExtended),
        (text.clone(), json!({ "type": "null" }), TypeChanged),
    ] {
        assert_changes(&of(old), &of(new), &[(rule, path)]);
    }
    assert!(AdditionalPropertiesExtended.is_compatible() && AdditionalPropertiesAdded.is_compatible());
    assert!(!AdditionalPropertiesNarrowed.is_compatible() && !AdditionalPropertiesRemoved.is_compatible());
    assert_changes(&json!({ "type": "object" }), &of(json!(true)), &[]);
}

#[test]
fn dependencies_may_be_removed_or_shortened_in_every_draft() {
    for (names, schemas, draft) in [
        ("dependencies", "dependencies", "http://json-schema.org/draft-07/schema#"),
        ("dependentRequired", "dependentSchemas", "https://json-schema.org/draft/2020-12/schema"),
        ("dependentRequired", "dependentSchemas", "https://json-schema.org/draft/2019-09/schema"),
    ] {
        let of = |keyword: &str, value: Value| json!({ "$schema": draft, "type": "object", keyword: { "a": value } });
        let (plain, path) = (json!({ "$schema": draft, "type": "object" }), "#/dependencies/a");
        for (old, new, rule) in [
            (json!(["b"]), json!(["b", "c"]), DependencyArrayExtended),
            (json!(["b", "c"]), json!(["b"]), DependencyArrayNarrowed),
            (json!(["b"]), json!(["c"]), DependencyArrayChanged),
        ] {
            assert_changes(&of(names, old), &of(names, new), &[(rule, path)]);
        }
        assert_changes(&plain, &of(names, json!(["b"])), &[(DependencyArrayAdded, path)]);
        assert_changes(&of(names, json!(["b"])), &plain, &[(DependencyArrayRemoved, path)]);
        let schema = json!({ "properties": { "b": { "type": "string" } } });
        assert_changes(&plain, &of(schemas, schema.clone()), &[(DependencySchemaAdded, path)]);
        assert_changes(&of(schemas, schema.clone()), &plain, &[(DependencySchemaRemoved, path)]);
        let other = json!({ "properties": { "b": { "type": "null" } } });
        let path = "#/dependencies/a/properties/b";
        assert_changes(&of(schemas, schema), &of(schemas, other), &[(TypeChanged, path)]);
    }
}
