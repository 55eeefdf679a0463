//! Compares pairs of subschemas.
//!
//! The result of each pair is kept, because combined schemas compare each branch with each other one. A pair that is
//! met again while it is compared belongs to a recursive schema and is assumed compatible. When this assumption turns
//! out wrong, the comparison is repeated with what is known.

mod array;
mod combined;
mod object;
mod scalar;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::difference::{Difference, Differences};
use crate::rule::Rule;
use crate::schema::{Additional, Criterion, Kind, Node, NodeId, Schema};

/// The maximum number of pairs of subschemas that a comparison looks at.
const MAX_PAIRS: usize = 100_000;
/// The maximum depth of nested subschemas, through references.
const MAX_DEPTH: usize = 150;

/// The error that schemas have too many combinations of subschemas, or are nested too deeply, to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the schemas are too complex to be compared")]
pub struct TooComplex;

/// Returns how the schema of a reader differs from that of a writer. The reader reads everything that the writer's
/// schema accepts if all differences are compatible.
///
/// # Errors
/// Fails when the schemas are too complex.
pub fn differences(reader: &Schema, writer: &Schema) -> Result<Vec<Difference>, TooComplex> {
    let original = At { schema: writer, id: writer.root, is_reader: false };
    let update = At { schema: reader, id: reader.root, is_reader: true };
    let mut known = HashMap::new();
    let mut pairs_left = MAX_PAIRS;
    loop {
        let mut comparison = Comparison { known, pairs_left, ..Comparison::default() };
        let found = comparison.pair(original, update)?;
        let incompatible: HashMap<_, _> =
            comparison.results.into_iter().filter(|(_, result)| !result.is_compatible()).collect();
        if !comparison.assumed || incompatible.len() == comparison.known.len() {
            return Ok(Rc::unwrap_or_clone(found).into_list());
        }
        (known, pairs_left) = (incompatible, comparison.pairs_left);
    }
}

/// A subschema of one of both schemas.
#[derive(Clone, Copy)]
struct At<'a> {
    schema: &'a Schema,
    id: NodeId,
    is_reader: bool,
}

impl<'a> At<'a> {
    fn node(self) -> &'a Node {
        self.schema.node(self.id)
    }

    fn with(self, id: NodeId) -> Self {
        Self { id, ..self }
    }

    /// Returns the subschema that a reference refers to, or this one. A reference that refers only to itself accepts
    /// everything.
    fn resolved(self) -> Self {
        let mut at = self;
        for _ in 0..=self.schema.nodes.len() {
            match at.node().kind {
                Kind::Reference(target) => at.id = target,
                _ => return at,
            }
        }
        at
    }
}

type Pair = (bool, NodeId, bool, NodeId);

#[derive(Default)]
struct Comparison {
    results: HashMap<Pair, Rc<Differences>>,
    running: HashSet<Pair>,
    /// The pairs that an earlier pass found incompatible.
    known: HashMap<Pair, Rc<Differences>>,
    /// Whether a pair was assumed compatible.
    assumed: bool,
    pairs_left: usize,
}

impl Comparison {
    /// Compares two subschemas. The paths in the result are relative to them.
    fn pair(&mut self, original: At<'_>, update: At<'_>) -> Result<Rc<Differences>, TooComplex> {
        let (original, update) = (original.resolved(), update.resolved());
        let pair = (original.is_reader, original.id, update.is_reader, update.id);
        if let Some(result) = self.results.get(&pair) {
            return Ok(Rc::clone(result));
        }
        if self.running.contains(&pair) {
            if let Some(result) = self.known.get(&pair) {
                return Ok(Rc::clone(result));
            }
            self.assumed = true;
            return Ok(Rc::new(Differences::new()));
        }
        self.pairs_left = self.pairs_left.checked_sub(1).ok_or(TooComplex)?;
        if self.running.len() >= MAX_DEPTH {
            return Err(TooComplex);
        }
        self.running.insert(pair);
        let mut found = Differences::new();
        self.kinds(original, update, &mut found)?;
        self.running.remove(&pair);
        let found = Rc::new(found);
        self.results.insert(pair, Rc::clone(&found));
        Ok(found)
    }

    /// Compares two subschemas at `path`, of which one or both may be missing.
    fn at(
        &mut self,
        path: &str,
        original: Option<At<'_>>,
        update: Option<At<'_>>,
        found: &mut Differences,
    ) -> Result<(), TooComplex> {
        match (original, update) {
            (None, None) => {}
            (None, Some(_)) => found.add(path, Rule::SchemaAdded),
            (Some(_), None) => found.add(path, Rule::SchemaRemoved),
            (Some(original), Some(update)) => found.append(path, &*self.pair(original, update)?),
        }
        Ok(())
    }

    fn kinds(&mut self, original: At<'_>, update: At<'_>, found: &mut Differences) -> Result<(), TooComplex> {
        if self.is_branch(original, update, found)? {
            return Ok(());
        }
        let (before, after) = (original.node(), update.node());
        if std::mem::discriminant(&before.kind) != std::mem::discriminant(&after.kind) {
            let accepts_all = matches!(after.kind, Kind::Empty | Kind::True);
            let is_bytes = |node: &Node| node.annotations.connect_type.as_deref() == Some("bytes");
            let accepts_none = matches!(before.kind, Kind::False);
            let are_bytes = is_bytes(before) && is_bytes(after);
            if !(accepts_all || accepts_none || are_bytes) {
                found.add("", Rule::TypeChanged);
            }
            return Ok(());
        }
        let (old, new) = (&before.annotations, &after.annotations);
        for (is_changed, rule) in [
            (old.id != new.id, Rule::IdChanged),
            (old.title != new.title, Rule::TitleChanged),
            (old.description != new.description, Rule::DescriptionChanged),
            (old.default != new.default, Rule::DefaultChanged),
        ] {
            if is_changed {
                found.add("", rule);
            }
        }
        match (&before.kind, &after.kind) {
            (Kind::String(before), Kind::String(after)) => scalar::strings(before, after, found),
            (Kind::Number(before), Kind::Number(after)) => scalar::numbers(before, after, found),
            (Kind::Enum(before), Kind::Enum(after)) => scalar::enums(before, after, found),
            (Kind::Const(before), Kind::Const(after)) if before != after => {
                found.add("const", Rule::EnumArrayChanged);
            }
            (Kind::Combined(old, before), Kind::Combined(new, after)) => {
                self.combined((original, *old, before), (update, *new, after), found)?;
            }
            (Kind::Not(before), Kind::Not(after)) => {
                // What must not match is compared in the other direction.
                let result = self.pair(update.with(*after), original.with(*before))?;
                let rule = if result.is_compatible() { Rule::NotTypeNarrowed } else { Rule::NotTypeExtended };
                found.add("not", rule);
            }
            (Kind::Object(before), Kind::Object(after)) => {
                self.objects((original, before), (update, after), found)?;
            }
            (Kind::Array(before), Kind::Array(after)) => {
                self.arrays((original, before), (update, after), found)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Compares a combined schema with another kind of schema: one branch may suffice.
    fn is_branch(
        &mut self,
        original: At<'_>,
        update: At<'_>,
        found: &mut Differences,
    ) -> Result<bool, TooComplex> {
        let (branches, is_added, rule) = match (&original.node().kind, &update.node().kind) {
            (Kind::Combined(..), Kind::Combined(..)) => return Ok(false),
            (_, Kind::Combined(criterion, branches))
                if branches.len() == 1 || *criterion != Criterion::All =>
            {
                (branches, true, Rule::SumTypeExtended)
            }
            (Kind::Combined(criterion, branches), _)
                if branches.len() == 1 || *criterion == Criterion::All =>
            {
                (branches, false, Rule::ProductTypeNarrowed)
            }
            _ => return Ok(false),
        };
        for branch in branches {
            let result = if is_added {
                self.pair(original, update.with(*branch))?
            } else {
                self.pair(original.with(*branch), update)?
            };
            if result.is_compatible() {
                found.append("", &result);
                if branches.len() > 1 {
                    found.add("", rule);
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Compares the schemas of additional properties or items.
    fn additional(
        &mut self,
        path: &str,
        (original, before): (At<'_>, Additional),
        (update, after): (At<'_>, Additional),
        [added, removed, extended, narrowed]: [Rule; 4],
        found: &mut Differences,
    ) -> Result<(), TooComplex> {
        use Additional::{Anything, Conforming, Nothing};
        match (before, after) {
            (Anything, Anything) | (Nothing, Nothing) => {}
            (Nothing, _) => found.add(path, added),
            (_, Nothing) => found.add(path, removed),
            (Anything, Conforming(_)) => found.add(path, narrowed),
            (Conforming(_), Anything) => found.add(path, extended),
            (Conforming(before), Conforming(after)) => {
                self.at(path, Some(original.with(before)), Some(update.with(after)), found)?;
            }
        }
        Ok(())
    }
}
