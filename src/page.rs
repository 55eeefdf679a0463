//! Defines a page of a stored list: what is requested of a store, and what it returns.

use std::fmt::Display;

use crate::database::Readable;
use crate::vehicle::Vin;

/// The size in bytes at which a page ends, even if it has fewer rows than requested. Another program may have stored
/// rows of a megabyte.
pub const MAX_PAGE_BYTES: usize = 1 << 20;

/// The requested page; `C` is the key that the list is sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest<C> {
    /// The maximum number of rows.
    pub limit: usize,
    /// The key that precedes the first row of the page.
    pub after: Option<C>,
    /// The vin of the only rows to return.
    pub vin: Option<Vin>,
}

impl<C> PageRequest<C> {
    /// Requests the page of all rows that follow `after`.
    pub fn new(limit: usize, after: Option<C>) -> Self {
        Self { limit, after, vin: None }
    }

    /// Returns one more than the limit of the page, which shows whether another page follows.
    pub fn fetch_limit(&self) -> usize {
        self.limit + 1
    }
}

/// The rows of a page, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows<T, C: Display> {
    pub rows: Vec<Readable<T, C>>,
    /// Whether further rows follow.
    pub more: bool,
}

impl<T, C: Display> Rows<T, C> {
    /// Returns the page of the first [`PageRequest::fetch_limit`] rows.
    pub fn of(request: &PageRequest<C>, mut rows: Vec<Readable<T, C>>) -> Self {
        let more = rows.len() > request.limit;
        rows.truncate(request.limit);
        Self { rows, more }
    }
}
