//! Formats an error with its causes.

use std::error::Error;
use std::fmt::Write as _;

/// Returns the message of `error` and those of its causes, separated by colons.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
