//! The work on one record, tried until it is done or proven hopeless.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use prometheus_client::metrics::counter::Counter;

use super::dead_letter::DeadLetter;
use super::failure::Failure;
use super::record::{OutgoingRecord, Record, describe_processed};
use crate::backoff::Backoff;
use crate::trace::{Span, TraceContext};

/// How long a registry may take to learn of the schema that a record names, before the record counts as poison.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(60);

/// Of the reason of a dead letter: errors of a validator may quote the whole value.
const MAX_REASON_CHARS: usize = 1_000;

/// The work that is done on each record.
pub trait Handler: Send + Sync + 'static {
    /// Does the work, as this step of a `trace`: what is to be written, if anything. Runs concurrently for many
    /// records, and again for the same record after a failure that may pass, or when a process died before it was
    /// committed.
    fn handle(
        &self,
        record: &Record,
        trace: TraceContext,
    ) -> impl Future<Output = Result<Option<OutgoingRecord>, Failure>> + Send;
}

/// Tries until the record is done or proven poison.
pub(super) async fn handle_until_settled<H: Handler>(
    handler: &H,
    record: Record,
    group: &str,
    dead_letters: &Counter,
) -> Option<OutgoingRecord> {
    let span = Span::follow(record.header(TraceContext::HEADER));
    let mut backoff = Backoff::new();
    let mut unknown_since = None;
    let reason = loop {
        // Without an answer the partition would wait for ever behind a record that makes its handler panic.
        let failure = match AssertUnwindSafe(handler.handle(&record, span.context())).catch_unwind().await {
            Ok(Ok(output)) => {
                span.end(|| describe_processed(&record, group));
                return output;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Poison("the work on it panicked".to_owned()),
        };
        match failure {
            Failure::Poison(reason) => break reason,
            Failure::Unknown(reason) if is_over(&mut unknown_since) => break reason,
            Failure::Unknown(reason) => wait(&record, &reason, backoff.next_pause()).await,
            Failure::Transient(reason) => {
                unknown_since = None;
                wait(&record, &reason, backoff.next_pause()).await;
            }
        }
    };
    let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    let Record { topic, partition, offset, .. } = &record;
    tracing::error!(topic, partition, offset, reason, "a record goes to the dead-letter topic");
    dead_letters.inc();
    span.end(|| describe_processed(&record, group).failed(&reason));
    Some(DeadLetter::of(record, group, &reason))
}

/// Whether [`UNKNOWN_LIMIT`] has passed `since` the first call.
fn is_over(since: &mut Option<Instant>) -> bool {
    since.get_or_insert_with(Instant::now).elapsed() >= UNKNOWN_LIMIT
}

/// For each record only at debug: when something is away, thousands wait, and what watches it has told.
async fn wait(record: &Record, reason: &str, pause: Duration) {
    let Record { topic, partition, offset, .. } = record;
    tracing::debug!(topic, partition, offset, reason, ?pause, "a record has to wait");
    tokio::time::sleep(pause).await;
}
