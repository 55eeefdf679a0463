//! Decides which records and which producers have expired.

use super::Partition;
use crate::producer_state::ProducerState;

/// Limits what a partition keeps. `None` means without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub ms: Option<i64>,
    pub bytes: Option<u64>,
}

impl Partition {
    /// Returns the offset up to which records may be deleted, as `UnifiedLog.deleteOldSegments` decides. What a consumer
    /// of committed records has yet to read is kept.
    pub fn retained_from(&self, retention: Retention, now_ms: i64) -> i64 {
        let size: u64 = self.index.spans().map(|span| span.bytes).sum();
        let mut surplus = retention.bytes.map_or(0, |bytes| size.saturating_sub(bytes));
        let expired = retention.ms.map(|ms| now_ms.saturating_sub(ms));
        let mut start = self.start_offset;
        for span in self.index.spans() {
            // Records without a timestamp do not expire.
            let is_old = expired.is_some_and(|expired| (0..expired).contains(&span.max_timestamp));
            if (!is_old && span.bytes > surplus) || span.last_offset >= self.last_stable_offset() {
                break;
            }
            surplus = surplus.saturating_sub(span.bytes);
            start = span.last_offset + 1;
        }
        start
    }

    /// Forgets producers that last wrote before this time.
    pub fn expire_producers(&mut self, before_ms: i64) {
        self.producers.retain(|_, producer| !has_expired(producer, before_ms));
    }

    pub fn has_expired_producers(&self, before_ms: i64) -> bool {
        self.producers.values().any(|producer| has_expired(producer, before_ms))
    }
}

/// Follows `ProducerStateManager.isProducerExpired`.
fn has_expired(producer: &ProducerState, before_ms: i64) -> bool {
    producer.txn_first_offset.is_none() && producer.last_timestamp <= before_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchHeader;
    use crate::partition::Stored;

    const TRANSACTIONAL: i16 = 1 << 4;
    const FOREVER: Retention = Retention { ms: None, bytes: None };

    /// Returns a partition with a batch of one record and 10 bytes for each time.
    fn partition(times: &[i64]) -> Partition {
        let mut partition = Partition::default();
        for time in times {
            append(&mut partition, 0, *time);
        }
        partition
    }

    fn append(partition: &mut Partition, attributes: i16, max_timestamp: i64) {
        partition.append(&header(partition, attributes, max_timestamp), Stored { position: 0, length: 10 });
    }

    fn header(partition: &Partition, attributes: i16, max_timestamp: i64) -> BatchHeader {
        BatchHeader {
            base_offset: partition.end_offset(),
            attributes,
            last_offset_delta: 0,
            base_timestamp: max_timestamp,
            max_timestamp,
            producer_id: if attributes == TRANSACTIONAL { 7 } else { -1 },
            producer_epoch: 0,
            base_sequence: -1,
            record_count: 1,
        }
    }

    #[test]
    fn records_expire_by_their_age_in_their_order() {
        let partition = partition(&[100, 300, 200, 50]);
        let from = |now| partition.retained_from(Retention { ms: Some(100), ..FOREVER }, now);
        assert_eq!([from(200), from(201), from(400), from(401)], [0, 1, 1, 4]);
        assert_eq!(partition.retained_from(FOREVER, i64::MAX), 0);
    }

    #[test]
    fn the_newest_records_are_kept_up_to_the_size() {
        let partition = partition(&[0; 5]);
        let from = |bytes| partition.retained_from(Retention { bytes: Some(bytes), ..FOREVER }, 0);
        assert_eq!([from(100), from(50), from(49), from(40), from(15), from(0)], [0, 0, 0, 1, 3, 5]);
    }

    #[test]
    fn neither_open_transactions_nor_records_without_a_timestamp_expire() {
        let by_age = Retention { ms: Some(0), ..FOREVER };
        let mut open = partition(&[0, 0]);
        append(&mut open, TRANSACTIONAL, 0);
        append(&mut open, 0, 0);
        assert_eq!(open.retained_from(by_age, 1000), 2);
        assert_eq!(partition(&[0, -1, 0]).retained_from(by_age, 1000), 1);
    }

    #[test]
    fn producers_expire_unless_their_transaction_is_open() {
        let mut partition = partition(&[]);
        append(&mut partition, TRANSACTIONAL, 100);
        assert!(!partition.has_expired_producers(1000));
        partition.append_marker(
            &header(&partition, TRANSACTIONAL, 200),
            Stored { position: 0, length: 10 },
            true,
        );
        assert!(!partition.has_expired_producers(199));
        partition.expire_producers(199);
        assert_eq!(partition.producers().count(), 1);
        assert!(partition.has_expired_producers(200));
        partition.expire_producers(200);
        assert_eq!(partition.producers().count(), 0);
    }

    #[test]
    fn the_start_of_the_log_never_moves_back() {
        let mut partition = partition(&[0, 500, 500]);
        partition.delete_before(2);
        assert_eq!(partition.retained_from(Retention { ms: Some(100), ..FOREVER }, 300), 2);
    }
}
