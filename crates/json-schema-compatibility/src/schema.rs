//! A parsed schema: a graph of nodes, one for each subschema.
//!
//! A subschema with constraints on several types, or with `enum` next to `type`, becomes an `allOf` of one node for each
//! constraint, because the rules compare schemas of one kind at a time.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::Validator;
use serde_json::Value;

pub(crate) type NodeId = usize;

/// A JSON Schema, prepared for comparisons.
#[derive(Debug)]
pub struct Schema {
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: NodeId,
}

impl Schema {
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id).unwrap_or(&Node::EMPTY)
    }
}

/// A subschema.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) annotations: Annotations,
    pub(crate) kind: Kind,
}

impl Node {
    pub(crate) const EMPTY: Self = Self { annotations: Annotations::NONE, kind: Kind::Empty };
}

/// The keywords that describe a subschema and constrain nothing.
#[derive(Debug)]
pub(crate) struct Annotations {
    pub(crate) id: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) default: Option<Value>,
    /// The type that Kafka Connect assigns.
    pub(crate) connect_type: Option<String>,
}

impl Annotations {
    const NONE: Self = Self { id: None, title: None, description: None, default: None, connect_type: None };
}

/// The constraint of a subschema.
#[derive(Debug)]
pub(crate) enum Kind {
    /// `{}`, which accepts everything.
    Empty,
    True,
    False,
    Boolean,
    Null,
    Number(NumberRules),
    String(StringRules),
    /// The values as JSON texts, whose order does not matter.
    Enum(BTreeSet<String>),
    Const(Value),
    Combined(Criterion, Vec<NodeId>),
    Not(NodeId),
    /// `if`, `then`, `else`, which the rules do not compare.
    Conditional,
    Object(ObjectRules),
    Array(ArrayRules),
    Reference(NodeId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Criterion {
    All,
    Any,
    One,
}

impl Criterion {
    pub(crate) fn keyword(self) -> &'static str {
        match self {
            Self::All => "allOf",
            Self::Any => "anyOf",
            Self::One => "oneOf",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct NumberRules {
    pub(crate) maximum: Option<f64>,
    pub(crate) minimum: Option<f64>,
    pub(crate) exclusive_maximum: Option<f64>,
    pub(crate) exclusive_minimum: Option<f64>,
    /// The number as it is written, because binary fractions cannot express most decimal ones.
    pub(crate) multiple_of: Option<String>,
    pub(crate) is_integer: bool,
}

#[derive(Debug, Default)]
pub(crate) struct StringRules {
    pub(crate) max_length: Option<f64>,
    pub(crate) min_length: Option<f64>,
    pub(crate) pattern: Option<String>,
}

/// What an object or an array may contain besides its listed properties or items.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Additional {
    #[default]
    Anything,
    Nothing,
    Conforming(NodeId),
}

#[derive(Debug, Default)]
pub(crate) struct ObjectRules {
    pub(crate) properties: BTreeMap<String, NodeId>,
    pub(crate) required: BTreeSet<String>,
    pub(crate) patterns: Vec<(Pattern, NodeId)>,
    pub(crate) additional: Additional,
    pub(crate) required_with: BTreeMap<String, BTreeSet<String>>,
    pub(crate) schemas_with: BTreeMap<String, NodeId>,
    pub(crate) max_properties: Option<f64>,
    pub(crate) min_properties: Option<f64>,
}

#[derive(Debug, Default)]
pub(crate) struct ArrayRules {
    /// The schema of all items.
    pub(crate) all: Option<NodeId>,
    /// The schemas of the first items, by position.
    pub(crate) tuple: Vec<NodeId>,
    pub(crate) additional: Additional,
    pub(crate) max_items: Option<f64>,
    pub(crate) min_items: Option<f64>,
    pub(crate) are_unique: bool,
}

/// A regular expression of `patternProperties`, with the syntax that JSON Schema prescribes.
#[derive(Debug)]
pub(crate) struct Pattern(pub(crate) Validator);

impl Pattern {
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.is_valid(&Value::String(name.to_owned()))
    }
}
