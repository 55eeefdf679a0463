//! Counts and logs unreadable rows that are left out of responses.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use crate::database::Unreadable;

/// The maximum number of remembered ids. Rows beyond it are counted but not logged.
const MAX_LOGGED: usize = 1_000;

/// Counts the skipped rows and logs each of them once.
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
            "Unreadable rows left out of responses, counted once per response",
            skipped.skipped.clone(),
        );
        skipped
    }

    pub(super) fn skip<I: Display>(&self, row: &Unreadable<I>) {
        self.skipped.inc();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() < MAX_LOGGED && logged.insert(row.id.to_string()) {
            tracing::error!(error = %row, "unreadable row, leaving it out of responses; `audit` lists all such rows");
        }
    }
}
