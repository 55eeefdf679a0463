//! The levels: which schema has to read what the other one wrote.

use json_schema_compatibility::{Level, Schema, incompatibilities};
use serde_json::json;

use crate::schema;

fn closed(names: &[&str]) -> Schema {
    let properties: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
    schema(&json!({ "properties": properties, "additionalProperties": false }))
}

#[test]
fn each_level_requires_its_directions() {
    let (small, large) = (closed(&["a"]), closed(&["a", "b"]));
    for (level, may_grow, may_shrink) in [
        (Level::None, true, true),
        (Level::Backward, true, false),
        (Level::BackwardTransitive, true, false),
        (Level::Forward, false, true),
        (Level::ForwardTransitive, false, true),
        (Level::Full, false, false),
        (Level::FullTransitive, false, false),
    ] {
        let is_compatible = |new, old| incompatibilities(level, new, old).unwrap().is_empty();
        assert_eq!(is_compatible(&large, &small), may_grow, "{level}");
        assert_eq!(is_compatible(&small, &large), may_shrink, "{level}");
        assert_eq!(level.is_transitive(), level.name().ends_with("_TRANSITIVE"));
    }
}

#[test]
fn the_reader_is_named_in_each_direction() {
    let (small, large) = (closed(&["a"]), closed(&["a", "b"]));
    let reader = |level, new, old| incompatibilities(level, new, old).unwrap()[0].reader();
    assert_eq!(reader(Level::Backward, &small, &large), "new");
    assert_eq!(reader(Level::Forward, &large, &small), "old");
    assert_eq!(reader(Level::Full, &small, &large), "new");
    assert_eq!(reader(Level::Full, &large, &small), "old");
}

#[test]
fn levels_have_the_names_of_the_registry_in_any_case() {
    for level in Level::ALL {
        assert_eq!(level.name().parse(), Ok(level));
        assert_eq!(level.name().to_lowercase().parse(), Ok(level));
        assert_eq!(serde_json::to_value(level).unwrap(), json!(level.name()));
        assert_eq!(serde_json::from_value::<Level>(json!(level.name())).unwrap(), level);
    }
    assert!("BACKWARDS".parse::<Level>().unwrap_err().to_string().contains("FULL_TRANSITIVE"));
    assert_eq!(Level::default(), Level::Backward);
}
