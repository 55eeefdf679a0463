//! Processes one record, and retries until the work succeeds or can never succeed.

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

/// The time limit for a registry to receive the schema that a record names. After it, the record counts as poison.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(60);

/// The maximum number of characters in the reason of a dead letter. An error may quote the whole value.
const MAX_REASON_CHARS: usize = 1_000;

/// The work on each record.
pub trait Handler: Send + Sync + 'static {
    /// Processes a record as a step of `trace`, and returns the record to write, if any.
    ///
    /// Runs concurrently for many records. Runs again for the same record after a transient failure, or when a process
    /// ended before it committed the record.
    fn handle(
        &self,
        record: &Record,
        trace: &TraceContext,
    ) -> impl Future<Output = Result<Option<OutgoingRecord>, Failure>> + Send;
}

/// The work of a worker: the handler, and where to report its failures.
pub(super) struct Work<H> {
    pub(super) handler: Arc<H>,
    pub(super) group: String,
    pub(super) status: WorkerStatus,
}

impl<H: Handler> Work<H> {
    /// Processes a record until it succeeds or proves to be poison. Returns the record to write, if any, or the reason
    /// why it is poison.
    pub(super) async fn process(&self, record: &Record) -> Result<Option<OutgoingRecord>, String> {
        let span = Span::follow(&record.trace());
        let failure = match self.attempt(record, span.context()).await {
            Ok(output) => return self.finish(record, span, Ok(output)),
            Err(failure) => failure,
        };
        // Boxed, because few records need this future, and every record in flight would reserve its size.
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
                tracing::error!(%topic, partition, offset, reason, "record failed, sending it to the dead-letter topic");
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
        // Without a result, a record that makes its handler panic would block its partition permanently.
        handled.unwrap_or_else(|_| Err(Failure::Poison("the handler panicked".to_owned())))
    }

    /// Retries after a failure. Returns the reason when the record proves to be poison.
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

/// Returns whether [`UNKNOWN_LIMIT`] has passed since the first call.
fn is_over(since: &mut Option<Instant>) -> bool {
    since.get_or_insert_with(Instant::now).elapsed() >= UNKNOWN_LIMIT
}

/// Waits before a retry. Logs only at debug level: while a dependency is unavailable, thousands of records may wait,
/// and the check of the dependency reports it.
async fn wait(record: &Record, reason: &str, pause: Duration) {
    let Record { topic, partition, offset, .. } = record;
    tracing::debug!(%topic, partition, offset, reason, ?pause, "processing failed, will retry");
    tokio::time::sleep(pause).await;
}
