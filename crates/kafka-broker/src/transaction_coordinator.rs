//! Coordinates transactions: checks a request against the state and commits the resulting entry.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::core::Core;
use crate::entry::{Entry, OffsetCommit, ProducerIdAndEpoch};
use crate::groups::Caller;
use crate::transaction::{Initialized, MAX_TIMEOUT_MS, Transaction};

/// Pause before the abort of a transaction is retried when it could not be written.
const RETRY: Duration = Duration::from_secs(1);

impl Core {
    /// Allocates a producer id for an idempotent producer without a transactional id.
    pub fn allocate_producer_id(&mut self) -> Result<ProducerIdAndEpoch, ResponseError> {
        let producer_id = self.state().next_producer_id;
        self.commit(&Entry::ProducerIdAllocated { producer_id })?;
        Ok(ProducerIdAndEpoch { id: producer_id, epoch: 0 })
    }

    /// Starts the next epoch of this transactional id (`handleInitProducerId`). Fences all earlier epochs and aborts their
    /// open transaction. `expected` is the producer that the client believes to be (KIP-360).
    pub fn init_transactions(
        &mut self,
        transactional_id: &StrBytes,
        timeout_ms: i32,
        expected: Option<ProducerIdAndEpoch>,
        now_ms: i64,
    ) -> Result<ProducerIdAndEpoch, ResponseError> {
        if transactional_id.is_empty() {
            return Err(ResponseError::InvalidRequest);
        }
        if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        let next_id = self.state().next_producer_id;
        let Some(txn) = self.state().transactions.get(transactional_id.as_str()) else {
            let first = ProducerIdAndEpoch { id: next_id, epoch: 0 };
            return self.initialized(transactional_id, first, ProducerIdAndEpoch::NONE, timeout_ms);
        };
        txn.check_expected(expected)?;
        if txn.ongoing().is_some() {
            self.abort_and_fence(transactional_id, now_ms)?;
        }
        let txn = self.transaction(transactional_id)?;
        match txn.initialize(expected, next_id)? {
            Initialized::Unchanged => Ok(txn.producer),
            Initialized::Bumped { producer, last_producer } => {
                self.initialized(transactional_id, producer, last_producer, timeout_ms)
            }
        }
    }

    pub fn add_partitions(
        &mut self,
        transactional_id: &StrBytes,
        producer: ProducerIdAndEpoch,
        partitions: Vec<(StrBytes, i32)>,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        let txn = self.transaction(transactional_id)?;
        txn.check_producer(producer)?;
        let known = txn.ongoing().is_some_and(|ongoing| {
            let mut partitions = partitions.iter();
            partitions.all(|(topic, index)| ongoing.partitions.contains(&(topic.to_string(), *index)))
        });
        if known {
            return Ok(());
        }
        self.commit(&Entry::PartitionsAddedToTxn {
            transactional_id: transactional_id.clone(),
            at_ms: now_ms,
            partitions,
        })
    }

    pub fn add_group(
        &mut self,
        transactional_id: &StrBytes,
        producer: ProducerIdAndEpoch,
        group: &StrBytes,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        let txn = self.transaction(transactional_id)?;
        txn.check_producer(producer)?;
        let ongoing = txn.ongoing();
        if ongoing.is_some_and(|ongoing| ongoing.groups.contains(group.as_str())) {
            return Ok(());
        }
        self.commit(&Entry::GroupAddedToTxn {
            transactional_id: transactional_id.clone(),
            at_ms: now_ms,
            group: group.clone(),
        })
    }

    /// Checks that the transaction may write to this partition (`handleVerifyPartitionsInTransaction`, KIP-890).
    pub fn check_partition_in_txn(
        &self,
        transactional_id: &str,
        producer: ProducerIdAndEpoch,
        topic: &str,
        partition: i32,
    ) -> Result<(), ResponseError> {
        let txn = self.transaction(transactional_id)?;
        check_writer(txn, producer)?;
        let key = (topic.to_owned(), partition);
        match txn.ongoing() {
            Some(ongoing) if ongoing.partitions.contains(&key) => Ok(()),
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Checks that the transaction may commit offsets of this group, and that the consumer is still a member.
    pub fn check_group_in_txn(
        &self,
        transactional_id: &str,
        producer: ProducerIdAndEpoch,
        group: &str,
        caller: Caller,
    ) -> Result<(), ResponseError> {
        let txn = self.transaction(transactional_id)?;
        check_writer(txn, producer)?;
        match txn.ongoing() {
            Some(ongoing) if ongoing.groups.contains(group) => self.groups.check_txn_commit(group, caller),
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    pub fn commit_txn_offsets(
        &mut self,
        producer_id: i64,
        group: StrBytes,
        offsets: Vec<OffsetCommit>,
    ) -> Result<(), ResponseError> {
        self.commit(&Entry::TxnOffsetsCommitted { producer_id, group, offsets })
    }

    pub fn end_txn(
        &mut self,
        transactional_id: &StrBytes,
        producer: ProducerIdAndEpoch,
        commit: bool,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        let txn = self.transaction(transactional_id)?;
        if !txn.check_end(producer, commit)? {
            return Ok(());
        }
        self.write_end(transactional_id, commit, producer.epoch, now_ms)
    }

    /// Aborts transactions past their timeout, and returns the time until the next timeout.
    pub fn expire_transactions(&mut self, now_ms: i64) -> Option<Duration> {
        let expired: Vec<String> = self
            .state()
            .transactions
            .iter()
            .filter(|(_, txn)| txn.expires_ms().is_some_and(|expires| expires <= now_ms))
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            tracing::info!(transactional_id = id, "transaction timed out, aborting it");
            if self.abort_and_fence(&id, now_ms).is_err() {
                return Some(RETRY);
            }
        }
        let open = self.state().transactions.values();
        let next = open.filter_map(Transaction::expires_ms).min()?;
        Some(Duration::from_millis(next.saturating_sub(now_ms).try_into().unwrap_or_default()))
    }

    fn abort_and_fence(&mut self, transactional_id: &str, now_ms: i64) -> Result<(), ResponseError> {
        let epoch = self.transaction(transactional_id)?.fencing_epoch();
        self.write_end(transactional_id, false, epoch, now_ms)
    }

    fn write_end(
        &mut self,
        transactional_id: &str,
        commit: bool,
        epoch: i16,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        let ended = self.state().txn_ended(transactional_id, commit, epoch, now_ms);
        self.commit(&ended.ok_or(ResponseError::InvalidTxnState)?)
    }

    fn initialized(
        &mut self,
        transactional_id: &StrBytes,
        producer: ProducerIdAndEpoch,
        last_producer: ProducerIdAndEpoch,
        timeout_ms: i32,
    ) -> Result<ProducerIdAndEpoch, ResponseError> {
        self.commit(&Entry::TransactionInitialized {
            transactional_id: transactional_id.clone(),
            producer,
            last_producer,
            timeout_ms,
        })?;
        Ok(producer)
    }

    fn transaction(&self, id: &str) -> Result<&Transaction, ResponseError> {
        let txn = self.state().transactions.get(id);
        txn.ok_or(ResponseError::InvalidProducerIdMapping)
    }
}

/// Checks the producer of a write. Clients expect PRODUCER_FENCED from the coordinator only, so a fenced write is refused
/// with INVALID_PRODUCER_EPOCH (`AddPartitionsToTxnManager`).
fn check_writer(txn: &Transaction, producer: ProducerIdAndEpoch) -> Result<(), ResponseError> {
    txn.check_producer(producer).map_err(|error| match error {
        ResponseError::ProducerFenced => ResponseError::InvalidProducerEpoch,
        other => other,
    })
}
