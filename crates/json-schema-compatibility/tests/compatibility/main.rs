//! Tests the rules with pairs of schemas, the levels, and properties that hold for all schemas.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod explanations;
mod levels;
mod objects;
mod others;
mod properties;
mod references;

use std::collections::BTreeMap;

use json_schema_compatibility::{Difference, Rule, Schema, differences};
use serde_json::Value;

fn schema(document: &Value) -> Schema {
    Schema::parse(document, &BTreeMap::new()).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// Returns the differences of a new schema that reads what an old one wrote.
fn changes(old: &Value, new: &Value) -> Vec<Difference> {
    differences(&schema(new), &schema(old)).unwrap()
}

fn found(old: &Value, new: &Value) -> Vec<(Rule, String)> {
    changes(old, new).iter().map(|difference| (difference.rule, difference.path())).collect()
}

/// Asserts that a change has exactly these differences, by rule and path.
#[track_caller]
fn assert_changes(old: &Value, new: &Value, expected: &[(Rule, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(rule, path)| (*rule, (*path).to_owned())).collect();
    assert_eq!(found(old, new), expected, "{old} -> {new}");
}

#[track_caller]
fn assert_compatible(old: &Value, new: &Value) {
    let incompatible: Vec<_> =
        found(old, new).into_iter().filter(|(rule, _)| !rule.is_compatible()).collect();
    assert!(incompatible.is_empty(), "{old} -> {new}: {incompatible:?}");
}

#[track_caller]
fn assert_incompatible(old: &Value, new: &Value) {
    assert!(found(old, new).iter().any(|(rule, _)| !rule.is_compatible()), "{old} -> {new}");
}
