//! Keeps the committed offsets of one group, and those that wait for a transaction to end.

use std::collections::{BTreeMap, HashMap};

use bytes::{Buf, BufMut, BytesMut};

use crate::entry::OffsetCommit;
use crate::entry::codec::{Malformed, Payload, put_bytes};

type TopicPartition = (String, i32);

#[derive(Debug, Default)]
pub struct GroupOffsets {
    committed: BTreeMap<TopicPartition, Committed>,
    /// Offsets in open transactions, by producer id.
    pending: HashMap<i64, BTreeMap<TopicPartition, Committed>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
    /// Position of its journal entry: of two commits, the later one has the higher position.
    position: u64,
}

impl GroupOffsets {
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty()
    }

    pub fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.committed.get(&(topic.to_owned(), partition))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, &Committed)> {
        self.committed.iter().map(|((topic, partition), committed)| (topic.as_str(), *partition, committed))
    }

    /// Returns whether an open transaction may still change this offset (KIP-447).
    pub fn is_unstable(&self, topic: &str, partition: i32) -> bool {
        let key = (topic.to_owned(), partition);
        self.pending.values().any(|offsets| offsets.contains_key(&key))
    }

    pub fn commit(&mut self, offsets: &[OffsetCommit], position: u64) {
        self.committed.extend(entries(offsets, position));
    }

    pub fn commit_pending(&mut self, producer_id: i64, offsets: &[OffsetCommit], position: u64) {
        self.pending.entry(producer_id).or_default().extend(entries(offsets, position));
    }

    /// Applies or drops the offsets of the producer's transaction. A later commit outside the transaction wins
    /// (`GroupMetadata.completePendingTxnOffsetCommit`).
    pub fn end_transaction(&mut self, producer_id: i64, committed: bool) {
        let pending = self.pending.remove(&producer_id).unwrap_or_default();
        for (key, offset) in pending.into_iter().filter(|_| committed) {
            let later = self.committed.get(&key);
            if later.is_none_or(|later| later.position < offset.position) {
                self.committed.insert(key, offset);
            }
        }
    }

    /// Removes the offset of a partition, and the one that a transaction may still commit.
    pub fn remove(&mut self, topic: &str, partition: i32) {
        let key = (topic.to_owned(), partition);
        self.committed.remove(&key);
        self.pending.retain(|_, offsets| {
            offsets.remove(&key);
            !offsets.is_empty()
        });
    }

    pub fn remove_topic(&mut self, topic: &str) {
        self.committed.retain(|(name, _), _| name != topic);
        self.pending.retain(|_, offsets| {
            offsets.retain(|(name, _), _| name != topic);
            !offsets.is_empty()
        });
    }

    pub fn encode(&self, out: &mut BytesMut) {
        let Self { committed, pending } = self;
        put_offsets(out, committed);
        out.put_u32(pending.len() as u32);
        for (producer_id, offsets) in pending {
            out.put_i64(*producer_id);
            put_offsets(out, offsets);
        }
    }

    pub fn decode(from: &mut Payload) -> Result<Self, Malformed> {
        let committed = offsets(from)?;
        let pending = from.all(|from| Ok((from.rest.try_get_i64()?, offsets(from)?)))?;
        Ok(Self { committed, pending: pending.into_iter().collect() })
    }
}

fn put_offsets(out: &mut BytesMut, offsets: &BTreeMap<TopicPartition, Committed>) {
    out.put_u32(offsets.len() as u32);
    for ((topic, partition), Committed { offset, leader_epoch, metadata, position }) in offsets {
        put_bytes(out, topic.as_bytes());
        out.put_i32(*partition);
        out.put_i64(*offset);
        out.put_i32(*leader_epoch);
        put_bytes(out, metadata.as_bytes());
        out.put_u64(*position);
    }
}

fn offsets(from: &mut Payload) -> Result<BTreeMap<TopicPartition, Committed>, Malformed> {
    let offsets = from.all(|from| {
        let key = (from.str()?.to_string(), from.rest.try_get_i32()?);
        let committed = Committed {
            offset: from.rest.try_get_i64()?,
            leader_epoch: from.rest.try_get_i32()?,
            metadata: from.str()?.to_string(),
            position: from.rest.try_get_u64()?,
        };
        Ok((key, committed))
    });
    Ok(offsets?.into_iter().collect())
}

fn entries(offsets: &[OffsetCommit], position: u64) -> impl Iterator<Item = (TopicPartition, Committed)> {
    offsets.iter().map(move |commit| {
        let committed = Committed {
            offset: commit.offset,
            leader_epoch: commit.leader_epoch,
            metadata: commit.metadata.to_string(),
            position,
        };
        ((commit.topic.to_string(), commit.partition), committed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::protocol::StrBytes;

    fn commit(offset: i64) -> [OffsetCommit; 1] {
        [OffsetCommit {
            topic: StrBytes::from_static_str("topic"),
            partition: 0,
            offset,
            leader_epoch: -1,
            metadata: StrBytes::new(),
        }]
    }

    fn committed(offsets: &GroupOffsets) -> Option<i64> {
        offsets.get("topic", 0).map(|committed| committed.offset)
    }

    #[test]
    fn offsets_of_a_transaction_become_visible_when_it_commits() {
        let mut offsets = GroupOffsets::default();
        offsets.commit_pending(1, &commit(5), 10);
        assert!(offsets.is_unstable("topic", 0));
        assert_eq!(committed(&offsets), None);
        offsets.end_transaction(1, true);
        assert!(!offsets.is_unstable("topic", 0));
        assert_eq!(committed(&offsets), Some(5));
        offsets.commit_pending(1, &commit(9), 20);
        offsets.end_transaction(1, false);
        assert_eq!(committed(&offsets), Some(5));
    }

    #[test]
    fn a_later_commit_outside_the_transaction_wins() {
        let mut offsets = GroupOffsets::default();
        offsets.commit_pending(1, &commit(5), 10);
        offsets.commit(&commit(3), 11);
        offsets.end_transaction(1, true);
        assert_eq!(committed(&offsets), Some(3));
    }
}
