//! Represents stored data that this program cannot read.

use std::fmt::Display;

/// A row or document that another program wrote or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{id} is unreadable: {reason}")]
pub struct Unreadable<I: Display> {
    pub id: I,
    pub reason: String,
}

/// The result of reading a single row or document. An unreadable one does not fail the others.
pub type Readable<T, I> = Result<T, Unreadable<I>>;
