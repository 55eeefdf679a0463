//! Rules about types, arrays, combined schemas and annotations.

use json_schema_compatibility::Rule::*;
use serde_json::{Value, json};

use crate::{assert_changes, assert_compatible, assert_incompatible, changes};

const MODERN: &str = "https://json-schema.org/draft/2020-12/schema";

#[test]
fn a_type_may_be_widened_but_not_changed() {
    let of = |kind: Value| json!({ "type": kind });
    assert_changes(&of(json!("integer")), &of(json!("number")), &[(TypeExtended, "#/")]);
    assert_changes(&of(json!("number")), &of(json!("integer")), &[(TypeNarrowed, "#/")]);
    assert_changes(&of(json!("string")), &of(json!("null")), &[(TypeChanged, "#/")]);
    assert_changes(&of(json!("string")), &of(json!(["string", "null"])), &[(SumTypeExtended, "#/")]);
    assert_compatible(&of(json!(["string", "null"])), &of(json!(["null", "string", "boolean"])));
    assert_incompatible(&of(json!(["string", "null"])), &of(json!("string")));
    assert_compatible(&of(json!("string")), &json!({}));
    assert_compatible(&of(json!("string")), &json!(true));
    assert_compatible(&json!(false), &of(json!("string")));
    assert_incompatible(&json!({}), &of(json!("string")));
}

#[test]
fn types_of_kafka_connect_that_both_hold_bytes_are_equal() {
    let of = |kind: &str| json!({ "type": kind, "connect.type": "bytes" });
    assert_changes(&of("number"), &of("string"), &[]);
}

#[test]
fn annotations_may_change() {
    let old = json!({ "type": "string", "$id": "a.json", "title": "a", "description": "a", "default": "a" });
    let new = json!({ "type": "string", "$id": "b.json", "title": "b", "description": "b", "default": "b" });
    let root = "#/";
    assert_changes(
        &old,
        &new,
        &[(IdChanged, root), (TitleChanged, root), (DescriptionChanged, root), (DefaultChanged, root)],
    );
    assert_compatible(&old, &new);
}

#[test]
fn items_follow_the_content_model_of_the_array() {
    let text = json!({ "type": "string" });
    let array = |items: Value, additional: Value| json!({ "type": "array", "items": items, "additionalItems": additional });
    let one = json!([{ "type": "string" }]);
    let two = json!([{ "type": "string" }, { "type": "null" }]);
    let (open, closed) = (json!(true), json!(false));
    let path = "#/items/1";
    for (old, new, additional, rule) in [
        (&one, &two, &open, ItemAddedToOpenContentModel),
        (&two, &one, &open, ItemRemovedFromOpenContentModel),
        (&one, &two, &closed, ItemAddedToClosedContentModel),
        (&two, &one, &closed, ItemRemovedFromClosedContentModel),
        (&one, &json!([text, {}]), &open, ItemWithEmptySchemaAddedToOpenContentModel),
        (&json!([text, false]), &one, &closed, ItemWithFalseRemovedFromClosedContentModel),
    ] {
        assert_changes(
            &array(old.clone(), additional.clone()),
            &array(new.clone(), additional.clone()),
            &[(rule, path)],
        );
    }
    let partially = |items: Value| array(items, json!({ "type": "integer" }));
    assert_changes(
        &partially(one.clone()),
        &partially(json!([text, { "type": "number" }])),
        &[(TypeExtended, path), (ItemAddedIsCoveredByPartiallyOpenContentModel, path)],
    );
    assert_changes(
        &partially(one.clone()),
        &partially(two.clone()),
        &[(TypeChanged, path), (ItemAddedNotCoveredByPartiallyOpenContentModel, path)],
    );
    assert_changes(
        &partially(json!([text, { "type": "integer", "minimum": 1 }])),
        &partially(one.clone()),
        &[(MinimumRemoved, "#/items/1/minimum"), (ItemRemovedIsCoveredByPartiallyOpenContentModel, path)],
    );
    assert_changes(
        &partially(two),
        &partially(one),
        &[(TypeChanged, path), (ItemRemovedNotCoveredByPartiallyOpenContentModel, path)],
    );
}

#[test]
fn additional_items_may_be_permitted_but_not_refused() {
    let of = |additional: Value| json!({ "type": "array", "items": [{}], "additionalItems": additional });
    let text = json!({ "type": "string" });
    for (old, new, rule) in [
        (json!(false), json!(true), AdditionalItemsAdded),
        (json!(true), json!(false), AdditionalItemsRemoved),
        (json!(true), text.clone(), AdditionalItemsNarrowed),
        (text.clone(), json!(true), AdditionalItemsExtended),
    ] {
        assert_changes(&of(old), &of(new), &[(rule, "#/additionalItems")]);
    }
    let all = json!({ "type": "array", "items": text });
    assert_changes(&json!({ "type": "array" }), &all, &[(SchemaAdded, "#/items")]);
    assert_changes(&all, &json!({ "type": "array" }), &[(SchemaRemoved, "#/items")]);
}

#[test]
fn tuples_of_the_newest_draft_are_compared_like_older_ones() {
    let of = |prefix: Value, items: Value| json!({ "$schema": MODERN, "type": "array", "prefixItems": prefix, "items": items });
    let (one, two) = (json!([{ "type": "string" }]), json!([{ "type": "string" }, { "type": "null" }]));
    let path = "#/items/1";
    assert_changes(
        &of(one.clone(), json!(true)),
        &of(two.clone(), json!(true)),
        &[(ItemAddedToOpenContentModel, path)],
    );
    assert_changes(
        &of(one.clone(), json!(false)),
        &of(two.clone(), json!(false)),
        &[(ItemAddedToClosedContentModel, path)],
    );
    assert_changes(
        &of(two, json!(false)),
        &of(one, json!(false)),
        &[(ItemRemovedFromClosedContentModel, path)],
    );
}

#[test]
fn alternatives_may_be_added_and_constraints_removed() {
    for (keyword, added, removed) in [
        ("oneOf", SumTypeExtended, SumTypeNarrowed),
        ("anyOf", SumTypeExtended, SumTypeNarrowed),
        ("allOf", ProductTypeExtended, ProductTypeNarrowed),
    ] {
        let one = json!({ keyword: [{ "type": "string" }, { "type": "number" }] });
        let two = json!({ keyword: [{ "type": "number" }, { "type": "string" }, { "type": "boolean" }] });
        assert_changes(&one, &two, &[(added, "#/")]);
        assert_changes(&two, &one, &[(removed, "#/")]);
        assert_changes(&one, &one, &[]);
    }
    assert!(SumTypeExtended.is_compatible() && ProductTypeNarrowed.is_compatible());
    assert!(!SumTypeNarrowed.is_compatible() && !ProductTypeExtended.is_compatible());
}

#[test]
fn a_schema_may_become_an_alternative_and_one_of_several_constraints_may_remain() {
    let text = json!({ "type": "string" });
    assert_changes(&text, &json!({ "oneOf": [{ "type": "null" }, text] }), &[(SumTypeExtended, "#/")]);
    assert_changes(&text, &json!({ "anyOf": [text] }), &[]);
    assert_changes(&json!({ "allOf": [text, { "minLength": 1 }] }), &text, &[(ProductTypeNarrowed, "#/")]);
    assert_changes(&json!({ "oneOf": [text] }), &text, &[]);
    assert_changes(&json!({ "oneOf": [text, { "type": "null" }] }), &text, &[(TypeChanged, "#/")]);
}

#[test]
fn any_of_accepts_more_than_one_of_and_all_of() {
    let branches = json!([{ "type": "string" }, { "minLength": 1 }]);
    let of = |keyword: &str| json!({ keyword: branches });
    assert_changes(&of("oneOf"), &of("anyOf"), &[(CombinedTypeExtended, "#/")]);
    assert_changes(&of("allOf"), &of("anyOf"), &[(CombinedTypeExtended, "#/")]);
    assert_changes(&of("anyOf"), &of("oneOf"), &[(CombinedTypeChanged, "#/")]);
    assert_changes(&of("anyOf"), &of("allOf"), &[(CombinedTypeChanged, "#/")]);
}

#[test]
fn each_alternative_needs_a_partner_of_its_own() {
    let wide = json!({ "oneOf": [{ "type": "number" }, { "type": "integer", "minimum": 5 }] });
    let narrow =
        json!({ "oneOf": [{ "type": "integer", "minimum": 7 }, { "type": "integer", "minimum": 9 }] });
    // Each of the narrow ones fits the first wide one, but they can also be paired one to one.
    assert_compatible(&narrow, &wide);
    let both_need_one =
        json!({ "oneOf": [{ "type": "integer", "minimum": 1 }, { "type": "integer", "minimum": 2 }] });
    let found = changes(&both_need_one, &wide);
    assert_eq!(found.last().unwrap().rule, CombinedTypeSubschemasChanged, "{found:?}");
}

#[test]
fn the_closest_alternative_explains_why_none_fits() {
    let of = |values: Value| json!({ "properties": { "unit": { "type": "string", "enum": values } } });
    let found = changes(&of(json!(["km", "mi"])), &of(json!(["km"])));
    let [difference] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (difference.rule, difference.path().as_str()),
        (CombinedTypeSubschemasChanged, "#/properties/unit")
    );
    let [cause] = &difference.causes[..] else { panic!("{difference:?}") };
    assert_eq!((cause.rule, cause.path().as_str()), (EnumArrayNarrowed, "#/properties/unit/enum"));
}

#[test]
fn what_is_excluded_may_shrink() {
    let of = |schema: Value| json!({ "not": schema });
    assert_changes(
        &of(json!({ "type": "number" })),
        &of(json!({ "type": "integer" })),
        &[(NotTypeNarrowed, "#/not")],
    );
    assert_changes(
        &of(json!({ "type": "integer" })),
        &of(json!({ "type": "number" })),
        &[(NotTypeExtended, "#/not")],
    );
}
