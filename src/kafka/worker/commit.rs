//! How a session commits, and what it does when a commit fails.

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
use crate::kafka::marker::Mark;
use crate::kafka::progress::{Progress, TransactionOutcome};
use crate::kafka::transaction::CommitError;

/// Records committed in one transaction at most.
pub(super) const COMMIT_LIMIT: usize = 20_000;
/// Bytes committed in one transaction at most, of records and what becomes of them.
const COMMIT_BYTES: usize = 16 << 20;
/// How long the brokers may take to say what is committed.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(60);

/// What a transaction is for.
struct Done {
    records: usize,
    is_limited: bool,
    /// What is finished of each partition.
    next: Vec<(i32, Mark)>,
}

impl<H: Handler> Session<'_, H> {
    /// Commits what is finished.
    ///
    /// # Errors
    /// When the session cannot go on.
    pub(super) fn commit(&mut self) -> anyhow::Result<Outcome> {
        let limit = Limit { records: self.commit_limit, bytes: COMMIT_BYTES };
        let Finished { records, is_limited, outputs, next } = self.in_flight.finished(limit);
        let done = Done { records, is_limited, next };
        let next = self.next_to_commit(&done);
        if next.is_empty() {
            return Ok(Outcome::Settled);
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
            // It stays in flight and is committed later, unless the partition turns out to be lost.
            Err(error @ CommitError::Aborted(_)) => {
                self.note_retry(&error.to_string(), "will commit again");
                // It may have been more than the brokers take in time.
                self.commit_limit = (self.commit_limit / 2).max(1);
                Ok(Outcome::Aborted)
            }
            Err(CommitError::Refused(refusals)) => {
                let refused =
                    refusals.iter().filter_map(|refusal| Some((*sources.get(refusal.index)?, refusal.code)));
                Ok(self.replace(refused.collect()))
            }
            Err(error @ CommitError::Unknown(_)) if !self.worker.shutdown.is_cancelled() => {
                self.note_retry(&error.to_string(), "asking the brokers whether it was committed");
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

    /// Returns the offsets that are committed with what is `done`.
    ///
    /// The build with `commits_before_the_work` (`make chaos-broken`) commits what it has read, and so loses the records
    /// in flight when it is killed.
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
        if done.is_limited { Outcome::Limited } else { Outcome::Settled }
    }

    /// Ends a transaction whose outcome is unknown, by a new producer, and returns how it ended.
    fn find_out(&mut self, progress: &Progress) -> anyhow::Result<TransactionOutcome> {
        self.runtime.block_on(self.producer.restart()).context("cannot begin transactions")?;
        let partitions: Vec<_> = progress.next.iter().map(|(partition, _)| *partition).collect();
        let offsets = self
            .consumer
            .committed_offsets(self.list_of(&partitions), OUTCOME_TIMEOUT)
            .context("the brokers do not say what is committed")?;
        let mut committed = HashMap::new();
        for element in offsets.elements() {
            element.error()?;
            committed.extend(Mark::of(&element).map(|mark| (element.partition(), mark)));
        }
        Ok(progress.outcome(&committed))
    }

    /// Replaces outputs that the brokers refuse for ever, so that the others can be committed.
    fn replace(&mut self, refused: Vec<(Position, RDKafkaErrorCode)>) -> Outcome {
        let Worker { topic, group, status, .. } = self.worker;
        let mut outcome = Outcome::Aborted;
        for ((partition, offset), code) in refused {
            let replaced = self.in_flight.replace((partition, offset), |output| {
                let instead = output.instead(code, group)?;
                if output.is_letter() {
                    tracing::warn!(topic, partition, offset, %code, "a dead letter is refused, leaving out what is large");
                } else {
                    tracing::error!(topic, partition, offset, %code, "what a record became is refused, it goes to the dead-letter topic");
                    status.metrics.dead_letters.inc();
                }
                Some(instead)
            });
            if replaced {
                outcome = Outcome::Settled;
            } else {
                let reason = format!("the dead-letter topic of {topic} refuses every letter: {code}");
                self.note_retry(&reason, "a dead letter cannot be written, will retry");
            }
        }
        outcome
    }

    /// Notes why what is finished is not committed yet.
    fn note_retry(&mut self, reason: &str, message: &'static str) {
        self.worker.status.retrying(reason);
        if self.repeats.is_due(reason) {
            tracing::warn!(group = self.worker.group, reason, "{message}");
        }
    }
}
