//! Why a value could not be encoded or decoded, by what its caller can do about it.

/// Why a value could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value itself is wrong: it would fail the same way again.
    #[error("{0}")]
    Rejected(String),
    /// A registry that is the right one does not know the schema; a follower may learn of it a little later.
    #[error("unknown schema: {0}")]
    UnknownSchema(String),
    /// The registry is unavailable, or seems to be another one: nothing is said about the value.
    #[error("schema registry: {0}")]
    Unavailable(String),
}

impl CodecError {
    pub(super) fn rejected(error: impl ToString) -> Self {
        Self::Rejected(error.to_string())
    }
}
