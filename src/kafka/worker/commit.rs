//! Commits the finished records of a session, and handles failed commits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;

use super::{Outcome, Session, Worker};
use crate::kafka::dead_letter::Position;
use crate::kafka::handler::Handler;
use crate::kafka::in_flight::{Finished, Limit};
use crate::kafka::progress::Mark;
use crate::kafka::progress::{Progress, TransactionOutcome};
use crate::kafka::transaction::CommitError;

/// The maximum number of records in one transaction.
pub(super) const COMMIT_LIMIT: usize = 20_000;
/// The maximum size in bytes of the records and outputs in one transaction.
const COMMIT_BYTES: usize = 16 << 20;
/// The timeout for reading the committed offsets.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(60);

/// The records that a transaction commits.
struct Done {
    records: usize,
    is_limited: bool,
    /// The next offset of each partition.
    next: Vec<(i32, Mark)>,
}

impl<H: Handler> Session<'_, H> {
    /// Commits the finished records.
    ///
    /// # Errors
    /// Fails when the session cannot continue.
    pub(super) fn commit(&mut self) -> anyhow::Result<Outcome> {
        let limit = Limit { records: self.commit_limit, bytes: COMMIT_BYTES };
        let Finished { records, is_limited, outputs, next } = self.in_flight.finished(limit);
        let done = Done { records, is_limited, next };
        let next = self.next_to_commit(&done);
        if next.is_empty() {
            return Ok(Outcome::Progressed);
        }
        let group = Arc::new(self.consumer.group_metadata().context("the consumer has no group")?);
        let topic = self.worker.topic.clone();
        let progress = Progress { topic, next };
        let (sources, outputs): (Vec<_>, Vec<_>) =
            outputs.into_iter().map(|(source, output)| (source, output.record())).unzip();
        match self.runtime.block_on(self.producer.commit(outputs, &progress, &group)) {
            Ok(()) => {
                self.commit_limit = (self.commit_limit * 2).min(COMMIT_LIMIT);
                Ok(self.committed(&done))
            }
            // The records stay in flight and are committed later, unless their partition is lost.
            Err(error @ CommitError::Aborted(_)) => {
                self.note_retry(&error.to_string(), "commit failed, will retry");
                // The transaction may have been too large for the timeout.
                self.commit_limit = (self.commit_limit / 2).max(1);
                Ok(Outcome::Aborted)
            }
            Err(CommitError::RefusedSome(error)) => {
                tracing::debug!(%error, "the brokers refused records, sending each record alone to identify them");
                Ok(Outcome::Progressed)
            }
            Err(CommitError::Refused(refusals)) => {
                let refused =
                    refusals.iter().filter_map(|refusal| Some((*sources.get(refusal.index)?, refusal.code)));
                Ok(self.replace(refused.collect()))
            }
            Err(error @ CommitError::Unknown(_)) if !self.worker.shutdown.is_cancelled() => {
                self.note_retry(
                    &error.to_string(),
                    "the outcome of a commit is unknown, querying the brokers",
                );
                match self.find_out(&progress)? {
                    TransactionOutcome::Committed => Ok(self.committed(&done)),
                    TransactionOutcome::Aborted => {
                        self.commit_limit = (self.commit_limit / 2).max(1);
                        Ok(Outcome::Aborted)
                    }
                    TransactionOutcome::Unclear => Err(error.into()),
                }
            }
            Err(error @ (CommitError::Fenced(_) | CommitError::Unknown(_))) => Err(error.into()),
        }
    }

    /// Returns the offsets to commit with the records in `done`.
    ///
    /// The build with `commits_before_the_work` (`make chaos-broken`) commits the offsets of all records that were
    /// read, and so loses the records in flight when it is killed.
    fn next_to_commit(&self, done: &Done) -> Vec<(i32, Mark)> {
        if cfg!(commits_before_the_work) {
            let read = self.in_flight.last_offsets();
            return read
                .map(|(partition, last)| (partition, Mark { offset: last + 1, metadata: None }))
                .collect();
        }
        done.next.clone()
    }

    fn committed(&mut self, done: &Done) -> Outcome {
        self.worker.status.metrics.committed.inc_by(done.records as u64);
        self.in_flight.advance(&done.next);
        for (partition, next) in &done.next {
            self.changes.commits(*partition, Some(next.offset));
        }
        if done.is_limited { Outcome::Limited } else { Outcome::Progressed }
    }

    /// Ends a transaction whose outcome is unknown with a new producer, and returns its outcome.
    fn find_out(&mut self, progress: &Progress) -> anyhow::Result<TransactionOutcome> {
        self.runtime.block_on(self.producer.restart()).context("cannot initialize transactions")?;
        let partitions: Vec<_> = progress.next.iter().map(|(partition, _)| *partition).collect();
        let offsets = self
            .consumer
            .committed_offsets(self.list_of(&partitions), OUTCOME_TIMEOUT)
            .context("the brokers did not return the committed offsets")?;
        let mut committed = HashMap::new();
        for element in offsets.elements() {
            element.error()?;
            committed.extend(Mark::of(&element).map(|mark| (element.partition(), mark)));
        }
        Ok(progress.outcome(&committed))
    }

    /// Replaces outputs that the brokers refuse permanently, so that the others can be committed.
    fn replace(&mut self, refused: Vec<(Position, RDKafkaErrorCode)>) -> Outcome {
        let Worker { topic, group, status, .. } = self.worker;
        let mut outcome = Outcome::Aborted;
        for ((partition, offset), code) in refused {
            let replaced = self.in_flight.replace((partition, offset), |output| {
                let instead = output.instead(code, group)?;
                if output.is_letter() {
                    tracing::warn!(topic, partition, offset, %code, "the brokers refused a dead letter, omitting its large parts");
                } else {
                    tracing::error!(topic, partition, offset, %code, "the brokers refused the output of a record, sending the record to the dead-letter topic");
                    status.metrics.dead_letters.inc();
                }
                Some(instead)
            });
            if replaced {
                outcome = Outcome::Progressed;
            } else {
                let reason = format!("the dead-letter topic of {topic} refuses every dead letter: {code}");
                self.note_retry(&reason, "writing a dead letter failed, will retry");
            }
        }
        outcome
    }

    /// Records and logs why the finished records are not committed yet.
    fn note_retry(&mut self, reason: &str, message: &'static str) {
        self.worker.status.retrying(reason);
        if self.repeats.is_due(reason) {
            tracing::warn!(group = self.worker.group, reason, "{message}");
        }
    }
}
