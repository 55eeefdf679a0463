//! Keeps what a partition knows about one producer: its epoch, its last batches, its open transaction.
//!
//! Follows `ProducerStateEntry` and `ProducerAppendInfo` of Apache Kafka (KIP-98).

use std::collections::VecDeque;

use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::ResponseError;

use crate::batch::BatchHeader;
use crate::entry::codec::{Malformed, Payload};

/// Number of batches that an idempotent producer may have in flight (`NUM_BATCHES_TO_RETAIN`).
const BATCHES_KEPT: usize = 5;

#[derive(Debug, Default)]
pub struct ProducerState {
    epoch: i16,
    recent: VecDeque<Batch>,
    /// First offset of the transaction that is open in this partition.
    pub txn_first_offset: Option<i64>,
    /// Timestamp of its last batch or marker.
    pub last_timestamp: i64,
    /// Whether a transaction of the producer has ended here.
    pub has_marker: bool,
}

/// Describes where and when a batch was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendedBatch {
    pub base_offset: i64,
    pub timestamp: i64,
}

#[derive(Debug)]
struct Batch {
    epoch: i16,
    first_sequence: i32,
    last_sequence: i32,
    appended: AppendedBatch,
}

impl ProducerState {
    pub fn new(epoch: i16) -> Self {
        Self { epoch, ..Self::default() }
    }

    pub fn epoch(&self) -> i16 {
        self.epoch
    }

    /// Returns the sequence number of its last record, or -1.
    pub fn last_sequence(&self) -> i32 {
        self.recent.back().map_or(-1, |batch| batch.last_sequence)
    }

    /// Returns where this batch is if it was appended before.
    pub fn duplicate_of(&self, header: &BatchHeader) -> Option<AppendedBatch> {
        let range = (header.producer_epoch, header.base_sequence, header.last_sequence());
        self.recent
            .iter()
            .find(|batch| (batch.epoch, batch.first_sequence, batch.last_sequence) == range)
            .map(|batch| batch.appended)
    }

    pub fn check(&self, header: &BatchHeader) -> Result<(), ResponseError> {
        if header.producer_epoch < self.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        let in_sequence = if header.producer_epoch > self.epoch {
            header.base_sequence == 0
        } else {
            header.base_sequence == self.last_sequence().checked_add(1).unwrap_or(0)
        };
        if !in_sequence {
            return Err(ResponseError::OutOfOrderSequenceNumber);
        }
        if self.txn_first_offset.is_some() && !header.is_transactional() {
            return Err(ResponseError::InvalidTxnState);
        }
        Ok(())
    }

    /// Applies a marker, which ends the producer's transaction.
    pub fn marked(&mut self, header: &BatchHeader) {
        self.advance_to(header.producer_epoch);
        self.last_timestamp = header.max_timestamp;
        self.has_marker = true;
    }

    /// Sets the epoch. A new epoch restarts the sequence numbers at 0.
    fn advance_to(&mut self, epoch: i16) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.recent.clear();
        }
    }

    pub fn appended(&mut self, header: &BatchHeader) {
        self.advance_to(header.producer_epoch);
        if self.recent.len() == BATCHES_KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(Batch {
            epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            appended: AppendedBatch { base_offset: header.base_offset, timestamp: header.max_timestamp },
        });
        self.last_timestamp = header.max_timestamp;
        if header.is_transactional() && self.txn_first_offset.is_none() {
            self.txn_first_offset = Some(header.base_offset);
        }
    }

    pub fn encode(&self, out: &mut BytesMut) {
        let Self { epoch, recent, txn_first_offset, last_timestamp, has_marker } = self;
        out.put_i16(*epoch);
        out.put_i64(txn_first_offset.unwrap_or(-1));
        out.put_i64(*last_timestamp);
        out.put_u8(u8::from(*has_marker));
        out.put_u32(recent.len() as u32);
        for Batch { epoch, first_sequence, last_sequence, appended } in recent {
            out.put_i16(*epoch);
            out.put_i32(*first_sequence);
            out.put_i32(*last_sequence);
            out.put_i64(appended.base_offset);
            out.put_i64(appended.timestamp);
        }
    }

    pub fn decode(from: &mut Payload) -> Result<Self, Malformed> {
        Ok(Self {
            epoch: from.rest.try_get_i16()?,
            txn_first_offset: Some(from.rest.try_get_i64()?).filter(|offset| *offset >= 0),
            last_timestamp: from.rest.try_get_i64()?,
            has_marker: from.rest.try_get_u8()? != 0,
            recent: from.all(Batch::decode)?.into(),
        })
    }
}

impl Batch {
    fn decode(from: &mut Payload) -> Result<Self, Malformed> {
        Ok(Self {
            epoch: from.rest.try_get_i16()?,
            first_sequence: from.rest.try_get_i32()?,
            last_sequence: from.rest.try_get_i32()?,
            appended: AppendedBatch {
                base_offset: from.rest.try_get_i64()?,
                timestamp: from.rest.try_get_i64()?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, base_sequence: i32, records: i32) -> BatchHeader {
        BatchHeader {
            base_offset: i64::from(base_sequence) + 100,
            attributes: 0,
            last_offset_delta: records - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: 1,
            producer_epoch: epoch,
            base_sequence,
            record_count: records,
        }
    }

    #[test]
    fn sequences_follow_each_other_without_gaps() {
        let mut state = ProducerState::new(0);
        state.appended(&batch(0, 0, 10));
        assert_eq!(state.check(&batch(0, 10, 1)), Ok(()));
        for wrong in [9, 11, 0] {
            assert_eq!(state.check(&batch(0, wrong, 1)), Err(ResponseError::OutOfOrderSequenceNumber));
        }
    }

    #[test]
    fn the_sequence_after_the_largest_is_zero() {
        let mut state = ProducerState::new(0);
        state.appended(&batch(0, i32::MAX - 1, 2));
        assert_eq!(state.check(&batch(0, 0, 1)), Ok(()));
    }

    #[test]
    fn the_last_five_batches_are_recognised_as_duplicates() {
        let mut state = ProducerState::new(0);
        for first in (0..60).step_by(10) {
            state.appended(&batch(0, first, 10));
        }
        assert_eq!(state.duplicate_of(&batch(0, 0, 10)), None);
        for first in (10..60).step_by(10) {
            let known = state.duplicate_of(&batch(0, first, 10));
            assert_eq!(known, Some(AppendedBatch { base_offset: i64::from(first) + 100, timestamp: 0 }));
        }
        assert_eq!(state.duplicate_of(&batch(0, 10, 9)), None);
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
        let mut state = ProducerState::new(0);
        state.appended(&batch(0, 0, 10));
        assert_eq!(state.check(&batch(1, 10, 1)), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(state.check(&batch(1, 0, 1)), Ok(()));
        state.advance_to(1);
        assert_eq!(state.check(&batch(0, 10, 1)), Err(ResponseError::InvalidProducerEpoch));
        assert_eq!(state.duplicate_of(&batch(0, 0, 10)), None);
    }
}
