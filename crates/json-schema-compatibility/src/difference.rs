//! The result of a comparison: a list of differences, each with its place and its rule.

use std::fmt;

use crate::rule::Rule;

/// The maximum number of differences that are kept of each kind, compatible or not.
const MAX_DIFFERENCES: usize = 200;

/// A difference between the schema of a reader and that of a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The place, relative to the compared subschemas: names separated by slashes.
    path: String,
    pub rule: Rule,
    /// The content model that decides about an added or removed property or item.
    pub content_model: Option<ContentModel>,
    /// Why no branch of a combined schema matches: what is incompatible in the most similar one.
    pub causes: Vec<Difference>,
}

/// What an object or an array accepts besides its listed properties or items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentModel {
    /// Anything: the default.
    Open,
    /// What conforms to the schemas of `additionalProperties`, `patternProperties` or `additionalItems`.
    PartiallyOpen,
    /// Nothing: `"additionalProperties": false`.
    Closed,
}

impl fmt::Display for ContentModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::PartiallyOpen => "partially open",
            Self::Closed => "closed",
        })
    }
}

impl Difference {
    /// Returns the place as a path from the root of the schema, such as `#/properties/price/minimum`.
    pub fn path(&self) -> String {
        format!("#/{}", self.path)
    }

    /// Returns the last name of the path, such as that of a property.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    fn moved_to(&self, prefix: &str) -> Self {
        let path = join(prefix, &self.path);
        let causes = self.causes.iter().map(|cause| cause.moved_to(prefix)).collect();
        Self { path, causes, ..self.clone() }
    }
}

pub(crate) fn join(prefix: &str, path: &str) -> String {
    match (prefix, path) {
        ("", path) => path.to_owned(),
        (prefix, "") => prefix.to_owned(),
        _ => format!("{prefix}/{path}"),
    }
}

/// The differences of a pair of subschemas, with paths relative to the pair.
#[derive(Clone, Debug)]
pub(crate) struct Differences {
    list: Vec<Difference>,
    incompatible: usize,
}

impl Differences {
    pub(crate) fn new() -> Self {
        Self { list: Vec::new(), incompatible: 0 }
    }

    pub(crate) fn is_compatible(&self) -> bool {
        self.incompatible == 0
    }

    pub(crate) fn incompatible(&self) -> impl Iterator<Item = &Difference> {
        self.list.iter().filter(|difference| !difference.rule.is_compatible())
    }

    pub(crate) fn into_list(self) -> Vec<Difference> {
        self.list
    }

    pub(crate) fn push(&mut self, difference: Difference) {
        let is_compatible = difference.rule.is_compatible();
        let alike = if is_compatible { self.list.len() - self.incompatible } else { self.incompatible };
        if alike < MAX_DIFFERENCES {
            self.incompatible += usize::from(!is_compatible);
            self.list.push(difference);
        }
    }

    pub(crate) fn add(&mut self, path: &str, rule: Rule) {
        self.push(Difference { path: path.to_owned(), rule, content_model: None, causes: Vec::new() });
    }

    pub(crate) fn add_in(&mut self, path: &str, rule: Rule, model: ContentModel) {
        self.push(Difference { path: path.to_owned(), rule, content_model: Some(model), causes: Vec::new() });
    }

    pub(crate) fn add_because(&mut self, path: &str, rule: Rule, causes: Vec<Difference>) {
        self.push(Difference { path: path.to_owned(), rule, content_model: None, causes });
    }

    /// Adds the differences of a pair at `path`.
    pub(crate) fn append(&mut self, path: &str, differences: &Self) {
        for difference in &differences.list {
            self.push(difference.moved_to(path));
        }
    }
}

/// Returns differences as causes, at `path`. Causes have no further causes, and there are at most three.
pub(crate) fn as_causes<'a>(
    path: &str,
    differences: impl Iterator<Item = &'a Difference>,
) -> Vec<Difference> {
    let leaves = differences.flat_map(|difference| {
        if difference.causes.is_empty() { vec![difference] } else { difference.causes.iter().collect() }
    });
    leaves.take(3).map(|leaf| leaf.moved_to(path)).collect()
}
