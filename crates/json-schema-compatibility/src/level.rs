//! Compatibility levels, and what they require of a new schema.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::compare::{TooComplex, differences};
use crate::difference::Difference;
use crate::explanation::{Explanation, Reader};
use crate::schema::Schema;

/// What a new schema has to be compatible with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Level {
    None,
    /// The new schema reads what the latest one wrote: the default of registries.
    #[default]
    Backward,
    /// The new schema reads what all earlier ones wrote.
    BackwardTransitive,
    /// The latest schema reads what the new one writes.
    Forward,
    /// All earlier schemas read what the new one writes.
    ForwardTransitive,
    Full,
    FullTransitive,
}

/// The error that a text names no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be one of NONE, BACKWARD, BACKWARD_TRANSITIVE, FORWARD, FORWARD_TRANSITIVE, FULL, FULL_TRANSITIVE"
)]
pub struct UnknownLevel;

impl Level {
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Backward,
        Self::BackwardTransitive,
        Self::Forward,
        Self::ForwardTransitive,
        Self::Full,
        Self::FullTransitive,
    ];

    /// Returns the name that registries use.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Backward => "BACKWARD",
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::Forward => "FORWARD",
            Self::ForwardTransitive => "FORWARD_TRANSITIVE",
            Self::Full => "FULL",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// Returns whether a new schema is compared with all earlier ones, not only with the latest.
    pub fn is_transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }

    fn is_forward(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }

    fn is_backward(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    /// Parses a name of any case.
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        Self::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(text)).ok_or(UnknownLevel)
    }
}

/// A difference that a level forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incompatibility {
    pub difference: Difference,
    reader: Reader,
}

impl Incompatibility {
    /// Returns which schema reads: `new` or `old`. The other one writes.
    pub fn reader(&self) -> &'static str {
        self.reader.name()
    }

    /// Returns the message in the registry's form, with `errorType` and `description`.
    pub fn message(&self) -> String {
        self.difference.message(self.reader)
    }

    /// Explains the problem, and what would pass.
    pub fn explanation(&self) -> Explanation {
        self.difference.explanation(self.reader)
    }
}

/// Returns what makes a new schema incompatible with an earlier one.
///
/// # Errors
/// Fails when the schemas are too complex.
pub fn incompatibilities(
    level: Level,
    new: &Schema,
    old: &Schema,
) -> Result<Vec<Incompatibility>, TooComplex> {
    let mut found = Vec::new();
    let mut compare = |reading, writing, reader| -> Result<(), TooComplex> {
        let differences = differences(reading, writing)?.into_iter();
        let incompatible = differences.filter(|difference| !difference.rule.is_compatible());
        found.extend(incompatible.map(|difference| Incompatibility { difference, reader }));
        Ok(())
    };
    if level.is_forward() {
        compare(old, new, Reader::Old)?;
    }
    if level.is_backward() {
        compare(new, old, Reader::New)?;
    }
    Ok(found)
}
