//! Classifies failures of the work on a record by whether a retry can succeed.

use crate::registry::CodecError;

/// The reason why the work on a record failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The record would fail again. It belongs in the dead-letter topic.
    #[error("{0}")]
    Poison(String),
    /// The record may succeed a little later. Otherwise, it is treated as poison.
    #[error("{0}")]
    Unknown(String),
    /// A dependency is unavailable. The record waits until it is available.
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
