//! Reads a schema into nodes and resolves its references.

mod typed;

use std::collections::{BTreeMap, HashMap, HashSet};

use jsonschema::Draft;
use referencing::{Resolver, SPECIFICATIONS};
use serde_json::{Map, Value};

use crate::schema::{Annotations, Criterion, Kind, Node, NodeId, Schema};

/// The draft of a schema without a known `$schema`.
const DEFAULT_DRAFT: Draft = Draft::Draft7;
/// The address of a schema without an absolute `$id`, against which its references are resolved.
const ADDRESS: &str = "json-schema:///";

/// The reason why a document is not a usable JSON Schema.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSchema(String);

fn invalid(error: impl ToString) -> InvalidSchema {
    InvalidSchema(error.to_string())
}

impl Schema {
    /// Reads a schema of draft 4, 6, 7, 2019-09 or 2020-12. `references` holds the other documents that it refers to, by
    /// the names that `$ref` uses.
    ///
    /// # Errors
    /// Fails when the document violates the meta-schema of its draft, or a reference cannot be resolved.
    pub fn parse(document: &Value, references: &BTreeMap<String, Value>) -> Result<Self, InvalidSchema> {
        let draft = draft_of(document);
        let address = address_of(document, draft)?;
        let mut resources = Vec::new();
        for (name, reference) in references {
            let address = resolve(&address, name)?;
            resources.push((address, draft_of(reference).create_resource(reference.clone())));
        }
        let registry =
            SPECIFICATIONS.extend(resources).and_then(|registry| registry.prepare()).map_err(invalid)?;
        let options = jsonschema::options().with_draft(draft).with_base_uri(address.clone());
        options.with_registry(&registry).build(document).map_err(invalid)?;

        let root = draft.create_resource(document.clone());
        let registry =
            registry.add(address.as_str(), root).and_then(|registry| registry.prepare()).map_err(invalid)?;
        let resolver = registry.resolver(referencing::uri::from_str(&address).map_err(invalid)?);
        let (root, resolver, _) = resolver.lookup(&address).map_err(invalid)?.into_inner();
        let mut loader = Loader { draft, nodes: Vec::new(), known: HashMap::new(), referred: Vec::new() };
        let root = loader.load(root, &resolver)?;
        while let Some((id, value, resolver)) = loader.referred.pop() {
            loader.fill(id, value, &resolver)?;
        }
        Ok(Self { nodes: loader.nodes, root })
    }
}

fn draft_of(document: &Value) -> Draft {
    match DEFAULT_DRAFT.detect(document) {
        Draft::Unknown => DEFAULT_DRAFT,
        draft => draft,
    }
}

fn address_of(document: &Value, draft: Draft) -> Result<String, InvalidSchema> {
    let keyword = if draft == Draft::Draft4 { "id" } else { "$id" };
    let id = document.get(keyword).and_then(Value::as_str).unwrap_or_default();
    resolve(ADDRESS, id.split('#').next().unwrap_or_default())
}

fn resolve(base: &str, reference: &str) -> Result<String, InvalidSchema> {
    let base = referencing::uri::from_str(base).map_err(invalid)?;
    let resolved = referencing::uri::resolve_against(&base.borrow(), reference).map_err(invalid)?;
    Ok(resolved.as_str().to_owned())
}

/// The nodes that are read so far.
struct Loader<'r> {
    draft: Draft,
    nodes: Vec<Node>,
    /// The nodes of subschemas, by their places in memory.
    known: HashMap<*const Value, NodeId>,
    /// The targets of references that are still to be read. They are not read recursively, because chains of references
    /// may be long.
    referred: Vec<(NodeId, &'r Value, Resolver<'r>)>,
}

impl<'r> Loader<'r> {
    fn is_modern(&self) -> bool {
        matches!(self.draft, Draft::Draft201909 | Draft::Draft202012)
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Returns the node of a subschema.
    fn load(&mut self, value: &'r Value, resolver: &Resolver<'r>) -> Result<NodeId, InvalidSchema> {
        if let Some(id) = self.known.get(&std::ptr::from_ref(value)) {
            return Ok(*id);
        }
        let id = self.add(Node::EMPTY);
        self.known.insert(value, id);
        self.fill(id, value, resolver)?;
        Ok(id)
    }

    fn fill(&mut self, id: NodeId, value: &'r Value, resolver: &Resolver<'r>) -> Result<(), InvalidSchema> {
        let node = self.read(value, resolver)?;
        if let Some(place) = self.nodes.get_mut(id) {
            *place = node;
        }
        Ok(())
    }

    fn read(&mut self, value: &'r Value, resolver: &Resolver<'r>) -> Result<Node, InvalidSchema> {
        let keywords = match value {
            Value::Bool(accepts) => {
                return Ok(Node { kind: if *accepts { Kind::True } else { Kind::False }, ..Node::EMPTY });
            }
            Value::Object(keywords) => keywords,
            _ => return Err(invalid("a schema must be an object or a boolean")),
        };
        let resolver = resolver.in_subresource(self.draft.create_resource_ref(value)).map_err(invalid)?;
        let mut parts = self.parts(keywords, &resolver)?;
        let kind = match (parts.pop(), parts.is_empty()) {
            (None, _) => Kind::Empty,
            (Some(only), true) => only,
            (Some(last), false) => {
                parts.push(last);
                let nodes = parts.into_iter().map(|kind| self.add(Node { kind, ..Node::EMPTY }));
                Kind::Combined(Criterion::All, nodes.collect())
            }
        };
        Ok(Node { annotations: self.annotations(keywords), kind })
    }

    fn annotations(&self, keywords: &Map<String, Value>) -> Annotations {
        let text = |name: &str| keywords.get(name).and_then(Value::as_str).map(str::to_owned);
        Annotations {
            id: text(if self.draft == Draft::Draft4 { "id" } else { "$id" }),
            title: text("title"),
            description: text("description"),
            default: keywords.get("default").cloned(),
            connect_type: text("connect.type"),
        }
    }

    /// Returns the constraints of a subschema, each of one kind.
    fn parts(
        &mut self,
        keywords: &'r Map<String, Value>,
        resolver: &Resolver<'r>,
    ) -> Result<Vec<Kind>, InvalidSchema> {
        let mut parts = Vec::new();
        let references: &[&str] =
            if self.is_modern() { &["$ref", "$dynamicRef", "$recursiveRef"] } else { &["$ref"] };
        for keyword in references {
            if let Some(reference) = keywords.get(*keyword).and_then(Value::as_str) {
                parts.push(Kind::Reference(self.refer(reference, resolver)?));
            }
        }
        // Up to draft 7, `$ref` replaces everything next to it.
        if !self.is_modern() && !parts.is_empty() {
            return Ok(parts);
        }
        if let Some(Value::Array(values)) = keywords.get("enum") {
            parts.push(Kind::Enum(values.iter().map(Value::to_string).collect()));
        }
        for criterion in [Criterion::All, Criterion::Any, Criterion::One] {
            if let Some(Value::Array(subschemas)) = keywords.get(criterion.keyword()) {
                // Equal subschemas count once.
                let mut seen = HashSet::new();
                let mut nodes = Vec::new();
                for subschema in subschemas {
                    if seen.insert(subschema.to_string()) {
                        nodes.push(self.load(subschema, resolver)?);
                    }
                }
                parts.push(Kind::Combined(criterion, nodes));
            }
        }
        if let Some(not) = keywords.get("not") {
            parts.push(Kind::Not(self.load(not, resolver)?));
        }
        if let Some(value) = keywords.get("const").filter(|_| self.draft != Draft::Draft4) {
            parts.push(Kind::Const(value.clone()));
        }
        self.typed_parts(keywords, resolver, &mut parts)?;
        if self.draft >= Draft::Draft7
            && ["if", "then", "else"].iter().any(|name| keywords.contains_key(*name))
        {
            parts.push(Kind::Conditional);
        }
        Ok(parts)
    }

    fn refer(&mut self, reference: &str, resolver: &Resolver<'r>) -> Result<NodeId, InvalidSchema> {
        let (target, resolver, _) = resolver.lookup(reference).map_err(invalid)?.into_inner();
        if let Some(id) = self.known.get(&std::ptr::from_ref(target)) {
            return Ok(*id);
        }
        let id = self.add(Node::EMPTY);
        self.known.insert(target, id);
        self.referred.push((id, target, resolver));
        Ok(id)
    }
}
