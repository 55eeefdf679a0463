//! Keeps one partition in memory: positions of its batches, limits of its readers, states of its producers.
//!
//! The high watermark is the end of the log, as there is no replica.

mod checkpoint;
mod retention;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Weak};

use kafka_protocol::ResponseError;
use tokio::sync::Notify;

use crate::batch::BatchHeader;
pub use crate::partition_index::Stored;
use crate::partition_index::{Indexed, PartitionIndex};
use crate::producer_state::{AppendedBatch, ProducerState};
pub use retention::Retention;

#[derive(Debug, Default)]
pub struct Partition {
    index: PartitionIndex,
    start_offset: i64,
    end_offset: i64,
    producers: HashMap<i64, ProducerState>,
    /// Producer id of each open transaction, by first offset.
    open: BTreeMap<i64, i64>,
    /// In the order in which they ended.
    aborted: Vec<AbortedTxn>,
    waiting: Vec<Weak<Notify>>,
}

/// Describes an aborted transaction, as `AbortedTxn` of Apache Kafka's transaction index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbortedTxn {
    pub producer_id: i64,
    pub first_offset: i64,
    last_offset: i64,
    last_stable_offset: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

impl From<i8> for Isolation {
    fn from(level: i8) -> Self {
        match level {
            1 => Self::ReadCommitted,
            _ => Self::ReadUncommitted,
        }
    }
}

/// Decides what happens to a valid batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    Append,
    /// The partition already has it.
    Duplicate(AppendedBatch),
}

impl Partition {
    /// Returns the offset before which all records are deleted.
    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// Returns the last stable offset: the first offset of the oldest open transaction, or the end.
    pub fn last_stable_offset(&self) -> i64 {
        self.open.first_key_value().map_or(self.end_offset, |(first, _)| self.start_offset.max(*first))
    }

    /// Returns the bytes of all batches from the start of the log.
    pub fn size(&self) -> i64 {
        self.index.spans().map(|span| span.bytes).sum::<u64>().cast_signed()
    }

    /// Returns the producers that have written, with their ids.
    pub fn producers(&self) -> impl Iterator<Item = (i64, &ProducerState)> {
        self.producers.iter().map(|(id, producer)| (*id, producer))
    }

    /// Returns the offset before which a consumer may read.
    pub fn readable_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.end_offset,
            Isolation::ReadCommitted => self.last_stable_offset(),
        }
    }

    /// Returns the batches from the one with `offset` on that a consumer may read, each with its last offset.
    pub fn batches_from(
        &self,
        offset: i64,
        isolation: Isolation,
    ) -> impl Iterator<Item = io::Result<(i64, Stored)>> {
        let end = self.readable_end(isolation);
        self.index
            .from(offset)
            .take_while(move |found| found.as_ref().map_or(true, |batch| batch.last_offset < end))
            .map(|found| found.map(|batch| (batch.last_offset, batch.stored)))
    }

    /// Returns the batches with a record whose timestamp is at least `timestamp`. In the first one, the record may be
    /// before the start of the log.
    pub fn batches_at_or_after(&self, timestamp: i64) -> impl Iterator<Item = io::Result<Stored>> {
        self.index.at_or_after(timestamp, self.start_offset).map(|found| found.map(|batch| batch.stored))
    }

    /// Returns the largest timestamp of all records.
    pub fn max_timestamp(&self) -> io::Result<Option<i64>> {
        self.index.max_timestamp(self.start_offset)
    }

    /// Returns the aborted transactions with records in `from..end` (`TransactionIndex.collectAbortedTxns`).
    pub fn aborted_between(&self, from: i64, end: i64) -> Vec<AbortedTxn> {
        let start = self.aborted.partition_point(|txn| txn.last_offset < from);
        let mut found = Vec::new();
        for txn in self.aborted.get(start..).unwrap_or_default() {
            if txn.first_offset < end {
                found.push(txn.clone());
            }
            if txn.last_stable_offset >= end {
                break;
            }
        }
        found
    }

    /// Checks a batch against the state of its producer (`UnifiedLog.analyzeAndValidateProducerState`). An unknown producer
    /// may begin with any sequence number, as its records may have been deleted.
    pub fn admit(&self, header: &BatchHeader) -> Result<Admission, ResponseError> {
        // Batches without a producer have no sequence, even if an old journal has a marker of such a producer.
        let producer = self.producers.get(&header.producer_id).filter(|_| header.producer_id >= 0);
        if let Some(producer) = producer {
            if let Some(appended) = producer.duplicate_of(header) {
                return Ok(Admission::Duplicate(appended));
            }
            producer.check(header)?;
        }
        Ok(Admission::Append)
    }

    /// Applies a batch of records.
    pub fn append(&mut self, header: &BatchHeader, stored: Stored) {
        if header.producer_id >= 0 {
            let producer = self
                .producers
                .entry(header.producer_id)
                .or_insert_with(|| ProducerState::new(header.producer_epoch));
            producer.appended(header);
            if let Some(first) = producer.txn_first_offset {
                self.open.insert(first, header.producer_id);
            }
        }
        self.push(header, stored);
    }

    /// Applies a control batch, which ends its producer's transaction here.
    pub fn append_marker(&mut self, header: &BatchHeader, stored: Stored, committed: bool) {
        let producer = self
            .producers
            .entry(header.producer_id)
            .or_insert_with(|| ProducerState::new(header.producer_epoch));
        producer.marked(header);
        let first_offset = producer.txn_first_offset.take();
        if let Some(first) = first_offset {
            self.open.remove(&first);
        }
        self.push(header, stored);
        if let Some(first_offset) = first_offset.filter(|_| !committed) {
            self.aborted.push(AbortedTxn {
                producer_id: header.producer_id,
                first_offset,
                last_offset: header.base_offset,
                last_stable_offset: self.last_stable_offset(),
            });
        }
    }

    /// Moves the start of the log forward to this offset. Batches that end before it are no longer found.
    pub fn delete_before(&mut self, offset: i64) {
        self.start_offset = self.start_offset.max(offset.min(self.end_offset));
        self.index.delete_before(self.start_offset);
        self.aborted.retain(|txn| txn.last_offset >= self.start_offset);
    }

    /// Notifies `waiter` once, when a batch is appended.
    pub fn wake_on_append(&mut self, waiter: &Arc<Notify>) {
        // Removes the waiters of fetches that timed out, or an idle partition would accumulate them.
        self.waiting.retain(|waiter| waiter.strong_count() > 0);
        let waiter = Arc::downgrade(waiter);
        // A waiter that another partition notified may wait again.
        if !self.waiting.iter().any(|waiting| waiting.ptr_eq(&waiter)) {
            self.waiting.push(waiter);
        }
    }

    /// Notifies all waiters that the partition has changed or is deleted.
    pub fn wake(&mut self) {
        for waiter in self.waiting.drain(..).filter_map(|waiter| waiter.upgrade()) {
            waiter.notify_one();
        }
    }

    fn push(&mut self, header: &BatchHeader, stored: Stored) {
        let last_offset = header.base_offset + i64::from(header.last_offset_delta);
        self.index.push(Indexed { last_offset, max_timestamp: header.max_timestamp, stored });
        self.end_offset = last_offset + 1;
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRANSACTIONAL: i16 = 1 << 4;

    struct Log {
        partition: Partition,
        sequences: HashMap<i64, i32>,
    }

    impl Log {
        fn new() -> Self {
            Self { partition: Partition::default(), sequences: HashMap::new() }
        }

        fn header(&self, producer_id: i64, attributes: i16, records: i32) -> BatchHeader {
            BatchHeader {
                base_offset: self.partition.end_offset(),
                attributes,
                last_offset_delta: records - 1,
                base_timestamp: 0,
                max_timestamp: 0,
                producer_id,
                producer_epoch: 0,
                base_sequence: -1,
                record_count: records,
            }
        }

        fn append(&mut self, producer_id: i64, attributes: i16, records: i32, timestamp: i64) {
            let sequence = self.sequences.entry(producer_id).or_default();
            let base_sequence = *sequence;
            *sequence += records;
            let header = BatchHeader {
                base_sequence,
                max_timestamp: timestamp,
                ..self.header(producer_id, attributes, records)
            };
            let stored = Stored { position: self.partition.end_offset().cast_unsigned(), length: 1 };
            self.partition.append(&header, stored);
        }

        fn end(&mut self, producer_id: i64, committed: bool) {
            let header = self.header(producer_id, TRANSACTIONAL, 1);
            let stored = Stored { position: self.partition.end_offset().cast_unsigned(), length: 1 };
            self.partition.append_marker(&header, stored, committed);
        }
    }

    #[test]
    fn an_open_transaction_holds_back_the_stable_offset_until_it_ends() {
        let mut log = Log::new();
        log.append(-1, 0, 3, 0);
        log.append(1, TRANSACTIONAL, 2, 0);
        log.append(2, TRANSACTIONAL, 2, 0);
        log.append(-1, 0, 1, 0);
        assert_eq!(log.partition.last_stable_offset(), 3);
        log.end(1, true);
        assert_eq!(log.partition.last_stable_offset(), 5);
        log.end(2, false);
        assert_eq!(log.partition.last_stable_offset(), 10);
        let aborted = log.partition.aborted_between(0, 10);
        assert_eq!(aborted.len(), 1);
        assert_eq!((aborted[0].producer_id, aborted[0].first_offset), (2, 5));
        assert_eq!(log.partition.aborted_between(0, 5), []);
        assert_eq!(log.partition.aborted_between(10, 11), []);
    }

    #[test]
    fn deleted_records_end_neither_batches_nor_transactions_that_begin_before_them() {
        let mut log = Log::new();
        log.append(-1, 0, 3, 0);
        log.append(1, TRANSACTIONAL, 4, 0);
        log.partition.delete_before(5);
        assert_eq!((log.partition.start_offset(), log.partition.last_stable_offset()), (5, 5));
        assert_eq!(log.partition.batches_from(5, Isolation::ReadUncommitted).count(), 1);
        log.partition.delete_before(2);
        assert_eq!(log.partition.start_offset(), 5);
        log.end(1, false);
        assert_eq!(log.partition.aborted_between(5, 8).len(), 1);
        log.partition.delete_before(8);
        assert_eq!(log.partition.aborted_between(0, 8), []);
        assert_eq!(log.partition.size(), 0);
    }

    #[test]
    fn a_record_outside_the_open_transaction_of_its_producer_is_refused() {
        let mut log = Log::new();
        log.append(1, TRANSACTIONAL, 2, 0);
        let header = BatchHeader { base_sequence: 2, ..log.header(1, 0, 1) };
        let refused = log.partition.admit(&header);
        assert_eq!(refused, Err(ResponseError::InvalidTxnState));
    }

    #[test]
    fn a_marker_without_a_producer_in_an_old_journal_refuses_no_batch() {
        let mut log = Log::new();
        log.end(-1, false);
        let header = BatchHeader { producer_epoch: -1, ..log.header(-1, 0, 1) };
        assert_eq!(log.partition.admit(&header), Ok(Admission::Append));
    }

    proptest! {
        #[test]
        fn every_offset_is_found_in_the_batch_that_holds_it(sizes in prop::collection::vec(1..50, 1..50)) {
            let mut log = Log::new();
            for records in &sizes {
                log.append(-1, 0, *records, 0);
            }
            let mut expected = 0;
            for (offset, records) in sizes.iter().scan(0, |end, records| {
                let first = *end;
                *end += i64::from(*records);
                Some((first, *records))
            }) {
                for within in 0..i64::from(records) {
                    let mut found = log.partition.batches_from(offset + within, Isolation::ReadCommitted);
                    let (last_offset, stored) = found.next().unwrap().unwrap();
                    prop_assert_eq!(stored.position as i64, offset);
                    prop_assert_eq!(last_offset, offset + i64::from(records) - 1);
                }
                expected = offset + i64::from(records);
            }
            prop_assert_eq!(log.partition.end_offset(), expected);
            prop_assert_eq!(log.partition.batches_from(expected, Isolation::ReadUncommitted).count(), 0);
        }

        #[test]
        fn the_first_batch_of_a_time_is_what_a_scan_finds(times in prop::collection::vec(0..100_i64, 1..50), wanted in 0..110_i64) {
            let mut log = Log::new();
            for time in &times {
                log.append(-1, 0, 1, *time);
            }
            let scanned = times.iter().position(|time| *time >= wanted);
            let found = log.partition.batches_at_or_after(wanted).next();
            let found = found.map(|stored| stored.unwrap().position as usize);
            prop_assert_eq!(found, scanned);
        }

        #[test]
        fn the_times_of_deleted_records_are_not_found(
            times in prop::collection::vec(0..100_i64, 1..50),
            deleted in 0..50_usize,
            wanted in 0..110_i64,
        ) {
            let mut log = Log::new();
            for time in &times {
                log.append(-1, 0, 1, *time);
            }
            let deleted = deleted.min(times.len());
            log.partition.delete_before(deleted as i64);
            prop_assert_eq!(log.partition.max_timestamp().unwrap(), times[deleted..].iter().max().copied());
            let scanned = times[deleted..].iter().position(|time| *time >= wanted).map(|at| at + deleted);
            let found = log.partition.batches_at_or_after(wanted).next();
            let found = found.map(|stored| stored.unwrap().position as usize);
            prop_assert_eq!(found, scanned);
        }
    }
}
