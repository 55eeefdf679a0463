//! Whether a record that failed is worth another try.

use crate::registry::CodecError;

/// Why the work on a record failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The record would fail the same way again: it belongs in the dead-letter topic.
    #[error("{0}")]
    Poison(String),
    /// The record may be understood a little later; if it is not, it is poison.
    #[error("{0}")]
    Unknown(String),
    /// Something that the work depends on is away: the record waits for it.
    #[error("{0}")]
    Transient(String),
}

impl From<CodecError> for Failure {
    fn from(error: CodecError) -> Self {
        let message = error.to_string();
        match error {
            CodecError::Rejected(_) => Self::Poison(message),
            CodecError::UnknownSchema(_) => Self::Unknown(message),
            CodecError::Unavailable(_) => Self::Transient(message),
        }
    }
}
