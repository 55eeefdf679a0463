//! What a database holds and this program cannot read.

use std::fmt::Display;

/// A row or a document that something else than this program wrote or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{id} is unreadable: {reason}")]
pub struct Unreadable<I: Display> {
    pub id: I,
    pub reason: String,
}

/// A row or a document by itself: one that is unreadable does not fail its neighbours.
pub type Readable<T, I> = Result<T, Unreadable<I>>;
