//! Rows that an answer leaves out because they are unreadable.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use crate::database::Unreadable;

/// Ids that are remembered, so that each is logged once.
const MAX_LOGGED: usize = 1_000;

/// Counts the rows that are left out, and logs each once.
#[derive(Debug, Default)]
pub struct SkippedRows {
    skipped: Counter,
    logged: Mutex<BTreeSet<String>>,
}

impl SkippedRows {
    pub fn register(registry: &mut Registry) -> Self {
        let skipped = Self::default();
        registry.register(
            "unreadable_rows_skipped",
            "Rows left out of answers because they are unreadable, counted in each answer",
            skipped.skipped.clone(),
        );
        skipped
    }

    pub(super) fn skip<I: Display>(&self, row: &Unreadable<I>) {
        self.skipped.inc();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() < MAX_LOGGED && logged.insert(row.id.to_string()) {
            tracing::error!(error = %row, "leaving an unreadable row out of an answer; an audit names all of them");
        }
    }
}
