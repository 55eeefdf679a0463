//! Handles the events of a session's consumer: rebalances, records and errors.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::Offset;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio_util::sync::CancellationToken;

use super::{Handler, Session, Worker};
use crate::kafka::CALL_TIMEOUT;
use crate::kafka::consumed::{Consumed, Found, Start};
use crate::kafka::in_flight::Admission;
use crate::kafka::observer::first_newer;
use crate::kafka::reach::names_brokers;
use crate::kafka::rebalance::RebalanceEvent;
use crate::kafka::record::Record;
use crate::kafka::topic_settings::is_compacted;

/// The time to wait for the answer of a broker, during which the session reads and commits nothing. It is longer than
/// librdkafka takes to reconnect to a broker that has returned.
const PROOF_TIMEOUT: Duration = Duration::from_secs(3);

impl<H: Handler> Session<'_, H> {
    pub(super) fn handle_rebalances(&mut self) -> anyhow::Result<()> {
        for event in self.consumer.context().take() {
            match event {
                RebalanceEvent::Assigned(starts) => self.assign(&starts),
                RebalanceEvent::Unknown(error) => {
                    return Err(error).context("the brokers did not return the committed offsets");
                }
                RebalanceEvent::Revoked(partitions) => {
                    let dropped: usize =
                        partitions.iter().map(|&partition| self.in_flight.revoke(partition)).sum();
                    tracing::info!(group = self.worker.group, ?partitions, dropped, "partitions revoked");
                }
                RebalanceEvent::Failed(error) => {
                    self.report(&error, "rebalance failed, rejoining the group");
                }
            }
        }
        Ok(())
    }

    fn assign(&mut self, starts: &[Start]) {
        let Worker { topic, group, status, .. } = self.worker;
        for &Start { partition, committed, offset, expected, found } in starts {
            self.changes.commits(partition, committed);
            match found {
                Found::Within => {}
                Found::WentBack { end } => {
                    if self.changes.notes_went_back(partition) {
                        status.metrics.log_went_back.inc();
                        tracing::warn!(
                            topic,
                            partition,
                            group,
                            committed,
                            end,
                            "the log went back, reading it again"
                        );
                    }
                }
                Found::Expired { offsets } => {
                    let offsets = self.changes.notes_expired(partition, offset, offsets);
                    if offsets > 0 {
                        status.metrics.expired.inc_by(offsets.unsigned_abs());
                        tracing::warn!(
                            topic,
                            partition,
                            group,
                            offsets,
                            continue_at = offset,
                            "records were deleted before they were read (--topic-retention)"
                        );
                    }
                }
            }
            let guard = CancellationToken::new().drop_guard();
            self.in_flight.assign(partition, guard, expected, Instant::now());
        }
        let partitions: Vec<_> = starts.iter().map(|start| start.partition).collect();
        self.align(&partitions);
        status.group_recovered();
        tracing::info!(group, ?partitions, "partitions assigned");
    }

    pub(super) fn receive(&mut self, record: Record) -> anyhow::Result<()> {
        self.reach.answered();
        let (partition, consumed) = (record.partition, Consumed::of(&record));
        match self.in_flight.admit(partition, consumed, record.bytes(), Instant::now()) {
            Admission::New(epoch, guard) => {
                let token = guard.token().clone();
                self.start(record, epoch, token);
            }
            Admission::Known => {}
            Admission::Doubtful(offset) => self.seek(partition, Offset::Offset(offset))?,
            Admission::WentBack => self.go_back(partition, record.offset)?,
            Admission::Missing(last) => {
                if self.is_other_log(last, &record)? {
                    return self.go_back(partition, record.offset);
                }
                return self.receive(record);
            }
        }
        Ok(())
    }

    /// Returns whether a log from which the record `last` is missing is not the one that it was read from. `next` is the
    /// first record after its position.
    fn is_other_log(&self, last: Consumed, next: &Record) -> anyhow::Result<bool> {
        let Worker { kafka, topic, .. } = self.worker;
        if !self.runtime.block_on(is_compacted(kafka, topic))? {
            return Ok(true);
        }
        let written = last.written(next.timestamp.unwrap_or_default());
        let newer = first_newer(&self.consumer, topic, [(next.partition, written)]);
        let newer = newer.with_context(|| format!("cannot find out whether the log of {topic} went back"))?;
        Ok(newer.get(&next.partition).is_some_and(|newer| *newer <= last.offset))
    }

    /// Starts over with a log that went back. If the committed offset belongs to the log, the session fails and the
    /// next one continues at that offset. Otherwise, reading begins at the first record.
    fn go_back(&mut self, partition: i32, offset: i64) -> anyhow::Result<()> {
        let Worker { topic, group, status, .. } = self.worker;
        if self.changes.notes_went_back(partition) {
            status.metrics.log_went_back.inc();
            tracing::warn!(topic, partition, group, offset, "the log went back, reading it again");
        }
        if self.in_flight.is_proven(partition) {
            bail!("the log of {topic}/{partition} went back");
        }
        self.in_flight.assign(partition, CancellationToken::new().drop_guard(), None, Instant::now());
        self.seek(partition, Offset::Beginning)
    }

    /// Reports the partitions whose log ends before the last record that was read. Returns whether there are any.
    fn note_shorter_logs(&mut self) -> bool {
        let Worker { topic, group, status, .. } = self.worker;
        let mut found = false;
        for (partition, last) in self.in_flight.last_offsets() {
            let bounds = self.consumer.fetch_watermarks(topic, partition, CALL_TIMEOUT);
            let Some(end) = bounds.ok().map(|(_, end)| end).filter(|end| last >= *end) else { continue };
            found = true;
            if self.changes.notes_went_back(partition) {
                status.metrics.log_went_back.inc();
                tracing::warn!(topic, partition, group, last, end, "the log went back, reading it again");
            }
        }
        found
    }

    fn seek(&self, partition: i32, offset: Offset) -> anyhow::Result<()> {
        let topic = &self.worker.topic;
        let sought = self.consumer.seek(topic, partition, offset, CALL_TIMEOUT);
        sought.with_context(|| format!("cannot read {topic}/{partition} again"))
    }

    /// Handles an error of the consumer. Only a fatal error and a position outside the log end the session. librdkafka
    /// recovers from other errors by itself.
    ///
    /// A log that begins after the position still contained the records in flight when they were read. The next session
    /// could not read them again, so they are completed first.
    pub(super) fn tolerate(&mut self, error: KafkaError) -> anyhow::Result<()> {
        if let Some((code, reason)) = self.consumer.client().fatal_error() {
            return Err(error).with_context(|| format!("the consumer failed: {code}: {reason}"));
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset) => {
                let reason = "the log does not contain the next offset";
                if self.note_shorter_logs() {
                    return Err(error).context(reason);
                }
                if self.ending.is_none() {
                    let Worker { topic, group, .. } = self.worker;
                    let records = self.in_flight.len();
                    tracing::warn!(topic, group, records, "{reason}, completing the records in flight first");
                    self.ending = Some(format!("{reason}: {error}"));
                }
            }
            // The check of the cluster reports these errors.
            Some(
                code @ (RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve),
            ) => {
                if code == RDKafkaErrorCode::AllBrokersDown {
                    self.reach.lost(Instant::now());
                }
                tracing::debug!(group = self.worker.group, %error, "reading failed, librdkafka will retry");
            }
            Some(RDKafkaErrorCode::BadCompression | RDKafkaErrorCode::BadMessage) => {
                self.worker.status.found_unreadable(&error.to_string());
                self.report(&error, "a batch cannot be read, librdkafka will retry");
            }
            _ => self.report(&error, "reading failed, librdkafka will retry"),
        }
        Ok(())
    }

    /// Ends the session when its client cannot read and no record is in flight, so that the next session has a new client.
    pub(super) fn end_when_empty(&mut self) -> anyhow::Result<()> {
        let Worker { topic, status, .. } = self.worker;
        if let (None, Some(partition)) = (&self.ending, status.take_silent()) {
            self.ending =
                Some(format!("records wait in {topic}/{partition}, and the client does not read them"));
        }
        if self.in_flight.len() > 0 {
            return Ok(());
        }
        if let Some(reason) = &self.ending {
            bail!("{reason}");
        }
        if self.is_cut_off() {
            bail!("no broker answers the client");
        }
        Ok(())
    }

    fn is_cut_off(&mut self) -> bool {
        if !self.reach.is_in_doubt(Instant::now()) {
            return false;
        }
        let answer = self.consumer.fetch_metadata(Some(&self.worker.topic), PROOF_TIMEOUT);
        if answer.is_ok_and(|metadata| names_brokers(&metadata)) {
            self.reach.answered();
            return false;
        }
        self.reach.unanswered(Instant::now())
    }

    fn report(&mut self, error: &KafkaError, message: &'static str) {
        let reason = error.to_string();
        self.worker.status.group_failed(&reason);
        if self.repeats.is_due(&reason) {
            tracing::warn!(group = self.worker.group, reason, "{message}");
        } else {
            tracing::debug!(group = self.worker.group, reason, "{message}");
        }
    }

    /// Pauses or resumes newly assigned partitions as the others. A partition that was paused when it was lost is still
    /// paused when it is assigned again, because librdkafka preserves this state.
    fn align(&self, partitions: &[i32]) {
        let list = self.list_of(partitions);
        let aligned = if self.paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = aligned {
            tracing::warn!(%error, ?partitions, "cannot pause or resume the partitions");
        }
    }
}
