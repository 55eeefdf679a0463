//! Explains to clients why a request, or a part of it, is refused.

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

/// Holds an error with a message for people.
pub struct Refused {
    error: ResponseError,
    /// Without a message, clients use their own text for the error.
    message: Option<String>,
}

pub fn refused<T>(error: ResponseError, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { error, message: Some(message.into()) })
}

impl From<ResponseError> for Refused {
    fn from(error: ResponseError) -> Self {
        Self { error, message: None }
    }
}

/// Returns the error code on the wire, 0 for success, and the message.
pub fn code_and_message<T>(result: &Result<T, Refused>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(_) => (0, None),
        Err(refused) => (refused.error.code(), refused.message.clone().map(StrBytes::from_string)),
    }
}
