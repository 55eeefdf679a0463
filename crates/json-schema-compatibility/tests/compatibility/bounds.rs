//! Rules about one keyword with a limit. A looser limit is compatible, a tighter one is not.

use json_schema_compatibility::Rule::{self, *};
use serde_json::{Value, json};

use crate::{assert_changes, assert_compatible, assert_incompatible};

/// A keyword, the type it constrains, a tight and a loose limit, and the rules when the limit is added, removed, made
/// looser and made tighter.
type Limit = (&'static str, &'static str, f64, f64, [Rule; 4]);

const LIMITS: [Limit; 10] = [
    (
        "maxLength",
        "string",
        3.0,
        5.0,
        [MaxLengthAdded, MaxLengthRemoved, MaxLengthIncreased, MaxLengthDecreased],
    ),
    (
        "minLength",
        "string",
        5.0,
        3.0,
        [MinLengthAdded, MinLengthRemoved, MinLengthDecreased, MinLengthIncreased],
    ),
    ("maximum", "number", 1.5, 2.5, [MaximumAdded, MaximumRemoved, MaximumIncreased, MaximumDecreased]),
    ("minimum", "number", 2.5, 1.5, [MinimumAdded, MinimumRemoved, MinimumDecreased, MinimumIncreased]),
    (
        "exclusiveMaximum",
        "number",
        1.0,
        2.0,
        [
            ExclusiveMaximumAdded,
            ExclusiveMaximumRemoved,
            ExclusiveMaximumIncreased,
            ExclusiveMaximumDecreased,
        ],
    ),
    (
        "exclusiveMinimum",
        "number",
        2.0,
        1.0,
        [
            ExclusiveMinimumAdded,
            ExclusiveMinimumRemoved,
            ExclusiveMinimumDecreased,
            ExclusiveMinimumIncreased,
        ],
    ),
    ("maxItems", "array", 3.0, 5.0, [MaxItemsAdded, MaxItemsRemoved, MaxItemsIncreased, MaxItemsDecreased]),
    ("minItems", "array", 5.0, 3.0, [MinItemsAdded, MinItemsRemoved, MinItemsDecreased, MinItemsIncreased]),
    (
        "maxProperties",
        "object",
        3.0,
        5.0,
        [MaxPropertiesAdded, MaxPropertiesRemoved, MaxPropertiesIncreased, MaxPropertiesDecreased],
    ),
    (
        "minProperties",
        "object",
        5.0,
        3.0,
        [MinPropertiesAdded, MinPropertiesRemoved, MinPropertiesDecreased, MinPropertiesIncreased],
    ),
];

#[test]
fn a_limit_may_be_removed_or_become_looser() {
    for (keyword, kind, tight, loose, [added, removed, looser, tighter]) in LIMITS {
        let with = |limit: f64| json!({ "type": kind, keyword: limit });
        let without = json!({ "type": kind });
        let path = format!("#/{keyword}");
        for (old, new, rule) in [
            (&without, &with(tight), added),
            (&with(tight), &without, removed),
            (&with(tight), &with(loose), looser),
            (&with(loose), &with(tight), tighter),
        ] {
            assert_changes(old, new, &[(rule, &path)]);
        }
        assert!(removed.is_compatible() && looser.is_compatible(), "{keyword}");
        assert!(!added.is_compatible() && !tighter.is_compatible(), "{keyword}");
        assert_changes(&with(tight), &with(tight), &[]);
    }
}

#[test]
fn limits_without_a_type_are_compared_as_well() {
    assert_changes(&json!({ "minimum": 1 }), &json!({ "minimum": 2 }), &[(MinimumIncreased, "#/minimum")]);
    assert_changes(
        &json!({ "minLength": 2 }),
        &json!({ "minLength": 1 }),
        &[(MinLengthDecreased, "#/minLength")],
    );
}

#[test]
fn a_multiple_is_compared_as_a_decimal_number() {
    let of = |divisor: Value| json!({ "type": "number", "multipleOf": divisor });
    for (old, new, rule) in [
        (0.1, 0.3, MultipleOfExpanded),
        (0.3, 0.1, MultipleOfReduced),
        (0.2, 0.3, MultipleOfChanged),
        (0.01, 1.0, MultipleOfExpanded),
    ] {
        assert_changes(&of(json!(old)), &of(json!(new)), &[(rule, "#/multipleOf")]);
    }
    assert_changes(&of(json!(1)), &of(json!(1.0)), &[]);
    let plain = json!({ "type": "number" });
    assert_changes(&plain, &of(json!(2)), &[(MultipleOfAdded, "#/multipleOf")]);
    assert_changes(&of(json!(2)), &plain, &[(MultipleOfRemoved, "#/multipleOf")]);
}

#[test]
fn a_pattern_may_only_be_removed() {
    let of = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    let plain = json!({ "type": "string" });
    assert_changes(&plain, &of("a"), &[(PatternAdded, "#/pattern")]);
    assert_changes(&of("a"), &plain, &[(PatternRemoved, "#/pattern")]);
    assert_changes(&of("a"), &of("b"), &[(PatternChanged, "#/pattern")]);
    assert!(
        PatternRemoved.is_compatible() && !PatternAdded.is_compatible() && !PatternChanged.is_compatible()
    );
}

#[test]
fn values_of_an_enumeration_may_be_added_in_any_order() {
    let of = |values: Value| json!({ "enum": values });
    assert_changes(&of(json!(["a", "b"])), &of(json!(["b", "a"])), &[]);
    assert_changes(&of(json!(["a"])), &of(json!(["b", "a"])), &[(EnumArrayExtended, "#/enum")]);
    assert_changes(&of(json!(["b", "a"])), &of(json!(["a"])), &[(EnumArrayNarrowed, "#/enum")]);
    assert_changes(&of(json!(["a"])), &of(json!(["b"])), &[(EnumArrayChanged, "#/enum")]);
    assert_changes(&json!({ "const": 1 }), &json!({ "const": 2 }), &[(EnumArrayChanged, "#/const")]);
    assert_compatible(&of(json!(["a"])), &of(json!(["b", "a"])));
}

#[test]
fn an_enumeration_next_to_a_type_follows_the_same_rules() {
    let of = |values: Value| json!({ "type": "string", "enum": values });
    assert_compatible(&of(json!(["a"])), &of(json!(["a", "b"])));
    assert_incompatible(&of(json!(["a", "b"])), &of(json!(["a"])));
    let free = json!({ "type": "string" });
    assert_compatible(&of(json!(["a"])), &free);
    assert_incompatible(&free, &of(json!(["a"])));
}

#[test]
fn unique_items_may_be_given_up() {
    let (unique, plain) = (json!({ "type": "array", "uniqueItems": true }), json!({ "type": "array" }));
    assert_changes(&unique, &plain, &[(UniqueItemsRemoved, "#/uniqueItems")]);
    assert_changes(&plain, &unique, &[(UniqueItemsAdded, "#/uniqueItems")]);
    assert!(UniqueItemsRemoved.is_compatible() && !UniqueItemsAdded.is_compatible());
}
