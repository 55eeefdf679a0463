//! Reads the constraints that belong to types.

use jsonschema::{Draft, Validator};
use referencing::Resolver;
use serde_json::{Map, Value, json};

use super::{InvalidSchema, Loader, invalid};
use crate::schema::{
    Additional, ArrayRules, Criterion, Kind, Node, NumberRules, ObjectRules, Pattern, StringRules,
};

impl<'r> Loader<'r> {
    /// Adds the constraints that belong to types, those of `type` first.
    pub(super) fn typed_parts(
        &mut self,
        keywords: &'r Map<String, Value>,
        resolver: &Resolver<'r>,
        parts: &mut Vec<Kind>,
    ) -> Result<(), InvalidSchema> {
        let mut constrained: Vec<&str> = Vec::new();
        match keywords.get("type") {
            Some(Value::String(name)) => {
                constrained.push(name);
                parts.push(self.of_type(name, keywords, resolver)?);
            }
            Some(Value::Array(names)) => {
                let mut nodes = Vec::new();
                for name in names.iter().filter_map(Value::as_str) {
                    constrained.push(name);
                    let kind = self.of_type(name, keywords, resolver)?;
                    nodes.push(self.add(Node { kind, ..Node::EMPTY }));
                }
                parts.push(Kind::Combined(Criterion::Any, nodes));
            }
            _ => {}
        }
        for (name, own) in [
            ("array", self.array_keywords()),
            ("object", self.object_keywords()),
            ("number", &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"][..]),
            ("string", self.string_keywords()),
        ] {
            let is_known =
                constrained.contains(&name) || (name == "number" && constrained.contains(&"integer"));
            if !is_known && own.iter().any(|keyword| keywords.contains_key(*keyword)) {
                parts.push(self.of_type(name, keywords, resolver)?);
            }
        }
        Ok(())
    }

    fn array_keywords(&self) -> &'static [&'static str] {
        match self.draft {
            Draft::Draft4 => &["items", "additionalItems", "minItems", "maxItems", "uniqueItems"],
            Draft::Draft202012 => &[
                "prefixItems",
                "items",
                "minItems",
                "maxItems",
                "uniqueItems",
                "contains",
                "unevaluatedItems",
            ],
            _ => &["items", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains"],
        }
    }

    fn object_keywords(&self) -> &'static [&'static str] {
        match self.draft {
            Draft::Draft201909 | Draft::Draft202012 => &[
                "properties",
                "required",
                "minProperties",
                "maxProperties",
                "patternProperties",
                "additionalProperties",
                "propertyNames",
                "dependentRequired",
                "dependentSchemas",
                "unevaluatedProperties",
            ],
            _ => &[
                "properties",
                "required",
                "minProperties",
                "maxProperties",
                "patternProperties",
                "additionalProperties",
                "propertyNames",
                "dependencies",
            ],
        }
    }

    /// Returns the keywords that imply a string. Up to draft 7, `format` does.
    fn string_keywords(&self) -> &'static [&'static str] {
        if self.is_modern() {
            &["minLength", "maxLength", "pattern"]
        } else {
            &["minLength", "maxLength", "pattern", "format"]
        }
    }

    fn of_type(
        &mut self,
        name: &str,
        keywords: &'r Map<String, Value>,
        resolver: &Resolver<'r>,
    ) -> Result<Kind, InvalidSchema> {
        let number = |keyword: &str| keywords.get(keyword).and_then(Value::as_f64);
        Ok(match name {
            "string" => Kind::String(StringRules {
                max_length: number("maxLength"),
                min_length: number("minLength"),
                pattern: keywords.get("pattern").and_then(Value::as_str).map(str::to_owned),
            }),
            "number" | "integer" => Kind::Number(NumberRules {
                maximum: number("maximum"),
                minimum: number("minimum"),
                exclusive_maximum: number("exclusiveMaximum"),
                exclusive_minimum: number("exclusiveMinimum"),
                multiple_of: keywords
                    .get("multipleOf")
                    .filter(|value| value.is_number())
                    .map(Value::to_string),
                is_integer: name == "integer",
            }),
            "boolean" => Kind::Boolean,
            "null" => Kind::Null,
            "array" => Kind::Array(self.array(keywords, resolver)?),
            "object" => Kind::Object(self.object(keywords, resolver)?),
            _ => return Err(invalid(format!("the type {name} is unknown"))),
        })
    }

    fn object(
        &mut self,
        keywords: &'r Map<String, Value>,
        resolver: &Resolver<'r>,
    ) -> Result<ObjectRules, InvalidSchema> {
        let number = |keyword: &str| keywords.get(keyword).and_then(Value::as_f64);
        let mut rules = ObjectRules {
            required: names(keywords.get("required")).collect(),
            additional: self.additional(keywords.get("additionalProperties"), resolver)?,
            max_properties: number("maxProperties"),
            min_properties: number("minProperties"),
            ..ObjectRules::default()
        };
        for (name, schema) in members(keywords.get("properties")) {
            rules.properties.insert(name.clone(), self.load(schema, resolver)?);
        }
        for (pattern, schema) in members(keywords.get("patternProperties")) {
            rules.patterns.push((Pattern(compile(pattern)?), self.load(schema, resolver)?));
        }
        let dependencies: &[&str] =
            if self.is_modern() { &["dependentRequired", "dependentSchemas"] } else { &["dependencies"] };
        for (name, needed) in dependencies.iter().flat_map(|keyword| members(keywords.get(*keyword))) {
            if needed.is_array() {
                rules.required_with.insert(name.clone(), names(Some(needed)).collect());
            } else {
                rules.schemas_with.insert(name.clone(), self.load(needed, resolver)?);
            }
        }
        Ok(rules)
    }

    fn array(
        &mut self,
        keywords: &'r Map<String, Value>,
        resolver: &Resolver<'r>,
    ) -> Result<ArrayRules, InvalidSchema> {
        let number = |keyword: &str| keywords.get(keyword).and_then(Value::as_f64);
        let mut rules = ArrayRules {
            max_items: number("maxItems"),
            min_items: number("minItems"),
            are_unique: keywords.get("uniqueItems").and_then(Value::as_bool).unwrap_or_default(),
            ..ArrayRules::default()
        };
        let is_newest = self.draft == Draft::Draft202012;
        let (tuple, additional) = match keywords.get("items") {
            items if is_newest && keywords.contains_key("prefixItems") => {
                (keywords.get("prefixItems"), items)
            }
            Some(tuple @ Value::Array(_)) => (Some(tuple), keywords.get("additionalItems")),
            // Only up to draft 7, a boolean counts as a schema of all items.
            Some(all @ Value::Bool(_)) if self.is_modern() => (None, Some(all)),
            Some(all) => {
                rules.all = Some(self.load(all, resolver)?);
                (None, keywords.get("additionalItems").filter(|_| !is_newest))
            }
            None => (None, keywords.get("additionalItems").filter(|_| !is_newest)),
        };
        for schema in tuple.and_then(Value::as_array).into_iter().flatten() {
            rules.tuple.push(self.load(schema, resolver)?);
        }
        rules.additional = self.additional(additional, resolver)?;
        Ok(rules)
    }

    fn additional(
        &mut self,
        value: Option<&'r Value>,
        resolver: &Resolver<'r>,
    ) -> Result<Additional, InvalidSchema> {
        Ok(match value {
            None | Some(Value::Bool(true)) => Additional::Anything,
            Some(Value::Bool(false)) => Additional::Nothing,
            Some(schema) => Additional::Conforming(self.load(schema, resolver)?),
        })
    }
}

fn members(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn names(value: Option<&Value>) -> impl Iterator<Item = String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned)
}

fn compile(pattern: &str) -> Result<Validator, InvalidSchema> {
    jsonschema::validator_for(&json!({ "pattern": pattern })).map_err(invalid)
}
