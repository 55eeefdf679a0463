//! The errors of encoding and decoding, distinguished by what the caller can do about them.

/// The reason why a value could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value is invalid. A retry would fail in the same way.
    #[error("{0}")]
    Rejected(String),
    /// The right registry does not have the schema. A retry may succeed, because a follower may receive it a little
    /// later.
    #[error("unknown schema: {0}")]
    UnknownSchema(String),
    /// The registry is unavailable, or may be another one. The value may be valid.
    #[error("schema registry: {0}")]
    Unavailable(String),
}

impl CodecError {
    pub(super) fn rejected(error: impl ToString) -> Self {
        Self::Rejected(error.to_string())
    }
}
