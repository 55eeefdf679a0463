//! The work on one record, tried until it is done or proven hopeless.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;

use super::failure::Failure;
use super::record::{OutgoingRecord, Record, describe_processed};
use super::worker_status::WorkerStatus;
use crate::backoff::Backoff;
use crate::excerpt::excerpt;
use crate::trace::{Span, TraceContext};

/// How long a registry may take to learn of the schema that a record names, before the record counts as poison.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(60);

/// Of the reason of a dead letter: an error may quote the whole value.
const MAX_REASON_CHARS: usize = 1_000;

/// The work that is done on each record.
pub trait Handler: Send + Sync + 'static {
    /// Does the work, as this step of a `trace`: what is to be written, if anything. Runs concurrently for many
    /// records, and again for the same record after a failure that may pass, or when a process died before it was
    /// committed.
    fn handle(
        &self,
        record: &Record,
        trace: &TraceContext,
    ) -> impl Future<Output = Result<Option<OutgoingRecord>, Failure>> + Send;
}

/// What a worker works on each of its records with.
pub(super) struct Work<H> {
    pub(super) handler: Arc<H>,
    pub(super) group: String,
    pub(super) status: WorkerStatus,
}

impl<H: Handler> Work<H> {
    /// Tries until the record is done or proven poison: what is to be written, or why it is poison.
    pub(super) async fn settle(&self, record: &Record) -> Result<Option<OutgoingRecord>, String> {
        let span = Span::follow(record.header(TraceContext::HEADER));
        let failure = match self.attempt(record, span.context()).await {
            Ok(output) => return self.finish(record, span, Ok(output)),
            Err(failure) => failure,
        };
        // On the heap: few records need it, and each that waits would hold the room for it.
        let handled = Box::pin(self.persist(record, span.context(), failure)).await;
        self.finish(record, span, handled)
    }

    fn finish(
        &self,
        record: &Record,
        span: Span,
        handled: Result<Option<OutgoingRecord>, String>,
    ) -> Result<Option<OutgoingRecord>, String> {
        let handled = handled.map_err(|reason| excerpt(&reason, MAX_REASON_CHARS));
        match &handled {
            Ok(_) => span.end(|| describe_processed(record, &self.group)),
            Err(reason) => {
                let Record { topic, partition, offset, .. } = record;
                tracing::error!(%topic, partition, offset, reason, "a record goes to the dead-letter topic");
                self.status.metrics.dead_letters.inc();
                span.end(|| describe_processed(record, &self.group).failed(reason));
            }
        }
        handled
    }

    async fn attempt(
        &self,
        record: &Record,
        trace: &TraceContext,
    ) -> Result<Option<OutgoingRecord>, Failure> {
        let handled = AssertUnwindSafe(self.handler.handle(record, trace)).catch_unwind().await;
        // Without an answer the partition would wait for ever behind a record that makes its handler panic.
        handled.unwrap_or_else(|_| Err(Failure::Poison("the work on it panicked".to_owned())))
    }

    /// Tries again after a failure; in the end, why the record is poison.
    async fn persist(
        &self,
        record: &Record,
        trace: &TraceContext,
        mut failure: Failure,
    ) -> Result<Option<OutgoingRecord>, String> {
        let mut backoff = Backoff::new();
        let mut unknown_since = None;
        loop {
            let reason = match failure {
                Failure::Poison(reason) => return Err(reason),
                Failure::Unknown(reason) if is_over(&mut unknown_since) => return Err(reason),
                Failure::Unknown(reason) => reason,
                Failure::Transient(reason) => {
                    unknown_since = None;
                    reason
                }
            };
            self.status.retrying(&reason);
            wait(record, &reason, backoff.next_pause()).await;
            match self.attempt(record, trace).await {
                Ok(output) => return Ok(output),
                Err(again) => failure = again,
            }
        }
    }
}

/// Whether [`UNKNOWN_LIMIT`] has passed `since` the first call.
fn is_over(since: &mut Option<Instant>) -> bool {
    since.get_or_insert_with(Instant::now).elapsed() >= UNKNOWN_LIMIT
}

/// For each record only at debug: when something is away, thousands wait, and what watches it has told.
async fn wait(record: &Record, reason: &str, pause: Duration) {
    let Record { topic, partition, offset, .. } = record;
    tracing::debug!(%topic, partition, offset, reason, ?pause, "a record has to wait");
    tokio::time::sleep(pause).await;
}
