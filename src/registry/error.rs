//! Which of a registry's answers may be different next time.

use std::error::Error;

use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::RawError;

/// Why a value could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value itself is wrong: it would fail the same way again.
    #[error("{0}")]
    Rejected(String),
    /// No registry knows the schema; a follower may learn of it a little later.
    #[error("unknown schema: {0}")]
    UnknownSchema(String),
    /// The registry is away or refuses to serve: nothing is said about the value.
    #[error("schema registry: {0}")]
    Unavailable(String),
}

impl CodecError {
    pub(super) fn rejected(error: impl Error) -> Self {
        Self::Rejected(error.to_string())
    }

    pub(super) fn not_framed() -> Self {
        Self::Rejected("the value is not framed: it must begin with a zero byte and a schema id".to_owned())
    }
}

impl CodecError {
    /// Of a look-up or a registration. Nothing but the registry's own word makes a schema unknown, and nothing
    /// here is the value's fault.
    pub(super) fn of_registry(error: &SRCError) -> Self {
        // A schema that the record's schema refers to was not to be had.
        if let Some(inner) = error.source().and_then(|source| source.downcast_ref::<SRCError>()) {
            return Self::of_registry(inner);
        }
        let message = match &error.cause {
            Some(cause) => format!("{}: {cause}", error.error),
            None => error.error.clone(),
        };
        let answered = error.source().and_then(|source| source.downcast_ref::<RawError>());
        match answered.map(|answer| answer.error_code) {
            // Subject, version and schema not found:
            // https://docs.confluent.io/platform/current/schema-registry/develop/api.html#errors
            Some(40401..=40403) => Self::UnknownSchema(message),
            Some(_) => Self::Unavailable(message),
            None if error.retriable || error.source().is_some_and(|source| source.is::<reqwest::Error>()) => {
                Self::Unavailable(message)
            }
            // An answer that makes no sense, such as a schema of another type.
            None => Self::UnknownSchema(message),
        }
    }
}
