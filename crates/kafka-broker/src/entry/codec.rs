//! Encodes entries as the payload of a frame: a tag, then the fields in order.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use thiserror::Error;
use uuid::Uuid;

use super::{Append, Entry, OffsetCommit, ProducerIdAndEpoch, StoredGroup};

#[derive(Debug, Error)]
#[error("the entry is malformed")]
pub struct Malformed;

impl From<bytes::TryGetError> for Malformed {
    fn from(_: bytes::TryGetError) -> Self {
        Self
    }
}

impl Entry {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::ClusterCreated { cluster_id } => {
                out.put_u8(1);
                put_str(&mut out, cluster_id);
            }
            Self::TopicCreated { topic, partitions, configs, topic_id } => {
                out.put_u8(2);
                put_str(&mut out, topic);
                out.put_i32(*partitions);
                put_all(&mut out, configs, put_config);
                out.extend(topic_id.iter().flat_map(Uuid::as_bytes));
            }
            Self::PartitionsAdded { topic, total } => {
                out.put_u8(3);
                put_str(&mut out, topic);
                out.put_i32(*total);
            }
            Self::TopicDeleted { topic } => {
                out.put_u8(4);
                put_str(&mut out, topic);
            }
            Self::BatchAppended(append) => {
                out.reserve(append.batch.len() + append.topic.len() + 16);
                out.put_u8(5);
                append.encode(&mut out);
            }
            Self::OffsetsCommitted { group, offsets } => {
                out.put_u8(6);
                put_str(&mut out, group);
                put_all(&mut out, offsets, |out, offset| offset.encode(out));
            }
            Self::ProducerIdAllocated { producer_id } => {
                out.put_u8(7);
                out.put_i64(*producer_id);
            }
            Self::TransactionInitialized { transactional_id, producer, last_producer, timeout_ms } => {
                out.put_u8(8);
                put_str(&mut out, transactional_id);
                producer.encode(&mut out);
                last_producer.encode(&mut out);
                out.put_i32(*timeout_ms);
            }
            Self::PartitionsAddedToTxn { transactional_id, at_ms, partitions } => {
                out.put_u8(9);
                put_str(&mut out, transactional_id);
                out.put_i64(*at_ms);
                put_all(&mut out, partitions, put_partition);
            }
            Self::GroupAddedToTxn { transactional_id, at_ms, group } => {
                out.put_u8(10);
                put_str(&mut out, transactional_id);
                out.put_i64(*at_ms);
                put_str(&mut out, group);
            }
            Self::TxnOffsetsCommitted { producer_id, group, offsets } => {
                out.put_u8(11);
                out.put_i64(*producer_id);
                put_str(&mut out, group);
                put_all(&mut out, offsets, |out, offset| offset.encode(out));
            }
            Self::TxnEnded { transactional_id, committed, producer_epoch, markers } => {
                out.put_u8(12);
                put_str(&mut out, transactional_id);
                out.put_u8(u8::from(*committed));
                out.put_i16(*producer_epoch);
                put_all(&mut out, markers, |out, marker| marker.encode(out));
            }
            Self::TopicConfigured { topic, configs } => {
                out.put_u8(20);
                put_str(&mut out, topic);
                put_all(&mut out, configs, put_config);
            }
            Self::RecordsDeleted { topic, partition, before } => {
                out.put_u8(21);
                put_str(&mut out, topic);
                out.put_i32(*partition);
                out.put_i64(*before);
            }
            Self::GroupDeleted { group } => {
                out.put_u8(22);
                put_str(&mut out, group);
            }
            Self::OffsetsDeleted { group, partitions } => {
                out.put_u8(23);
                put_str(&mut out, group);
                put_all(&mut out, partitions, put_partition);
            }
            Self::MarkersWritten { committed, markers } => {
                out.put_u8(24);
                out.put_u8(u8::from(*committed));
                put_all(&mut out, markers, |out, marker| marker.encode(out));
            }
            Self::ProducersExpired { before_ms } => {
                out.put_u8(32);
                out.put_i64(*before_ms);
            }
            Self::GroupStored { group, stored } => {
                out.put_u8(30);
                put_str(&mut out, group);
                stored.encode(&mut out);
            }
            Self::GroupRemoved { group } => {
                out.put_u8(31);
                put_str(&mut out, group);
            }
        }
        out.freeze()
    }

    pub fn decode(payload: Bytes) -> Result<Self, Malformed> {
        let mut from = Payload::new(payload);
        let entry = match from.rest.try_get_u8()? {
            1 => Self::ClusterCreated { cluster_id: from.str()? },
            2 => Self::TopicCreated {
                topic: from.str()?,
                partitions: from.rest.try_get_i32()?,
                configs: from.all(Payload::config)?,
                topic_id: if from.rest.is_empty() { None } else { Some(from.uuid()?) },
            },
            3 => Self::PartitionsAdded { topic: from.str()?, total: from.rest.try_get_i32()? },
            4 => Self::TopicDeleted { topic: from.str()? },
            5 => Self::BatchAppended(Append::decode(&mut from)?),
            6 => Self::OffsetsCommitted { group: from.str()?, offsets: from.all(OffsetCommit::decode)? },
            7 => Self::ProducerIdAllocated { producer_id: from.rest.try_get_i64()? },
            8 => Self::TransactionInitialized {
                transactional_id: from.str()?,
                producer: ProducerIdAndEpoch::decode(&mut from)?,
                last_producer: ProducerIdAndEpoch::decode(&mut from)?,
                timeout_ms: from.rest.try_get_i32()?,
            },
            9 => Self::PartitionsAddedToTxn {
                transactional_id: from.str()?,
                at_ms: from.rest.try_get_i64()?,
                partitions: from.all(Payload::partition)?,
            },
            10 => Self::GroupAddedToTxn {
                transactional_id: from.str()?,
                at_ms: from.rest.try_get_i64()?,
                group: from.str()?,
            },
            11 => Self::TxnOffsetsCommitted {
                producer_id: from.rest.try_get_i64()?,
                group: from.str()?,
                offsets: from.all(OffsetCommit::decode)?,
            },
            12 => Self::TxnEnded {
                transactional_id: from.str()?,
                committed: from.rest.try_get_u8()? != 0,
                producer_epoch: from.rest.try_get_i16()?,
                markers: from.all(Append::decode)?,
            },
            20 => Self::TopicConfigured { topic: from.str()?, configs: from.all(Payload::config)? },
            21 => Self::RecordsDeleted {
                topic: from.str()?,
                partition: from.rest.try_get_i32()?,
                before: from.rest.try_get_i64()?,
            },
            22 => Self::GroupDeleted { group: from.str()? },
            23 => Self::OffsetsDeleted { group: from.str()?, partitions: from.all(Payload::partition)? },
            24 => Self::MarkersWritten {
                committed: from.rest.try_get_u8()? != 0,
                markers: from.all(Append::decode)?,
            },
            30 => Self::GroupStored { group: from.str()?, stored: StoredGroup::decode(&mut from)? },
            31 => Self::GroupRemoved { group: from.str()? },
            32 => Self::ProducersExpired { before_ms: from.rest.try_get_i64()? },
            _ => return Err(Malformed),
        };
        if from.rest.is_empty() { Ok(entry) } else { Err(Malformed) }
    }
}

impl Append {
    fn encode(&self, out: &mut BytesMut) {
        put_str(out, &self.topic);
        out.put_i32(self.partition);
        put_bytes(out, &self.batch);
    }

    fn decode(from: &mut Payload) -> Result<Self, Malformed> {
        let topic = from.str()?;
        let partition = from.rest.try_get_i32()?;
        let batch = from.bytes()?;
        Ok(Self {
            topic,
            partition,
            offset_in_payload: (from.size - from.rest.len() - batch.len()) as u64,
            batch,
        })
    }
}

impl OffsetCommit {
    fn encode(&self, out: &mut BytesMut) {
        put_str(out, &self.topic);
        out.put_i32(self.partition);
        out.put_i64(self.offset);
        out.put_i32(self.leader_epoch);
        put_str(out, &self.metadata);
    }

    fn decode(from: &mut Payload) -> Result<Self, Malformed> {
        Ok(Self {
            topic: from.str()?,
            partition: from.rest.try_get_i32()?,
            offset: from.rest.try_get_i64()?,
            leader_epoch: from.rest.try_get_i32()?,
            metadata: from.str()?,
        })
    }
}

impl ProducerIdAndEpoch {
    pub fn encode(self, out: &mut BytesMut) {
        out.put_i64(self.id);
        out.put_i16(self.epoch);
    }

    pub fn decode(from: &mut Payload) -> Result<Self, Malformed> {
        Ok(Self { id: from.rest.try_get_i64()?, epoch: from.rest.try_get_i16()? })
    }
}

pub fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

pub fn put_str(out: &mut BytesMut, text: &StrBytes) {
    put_bytes(out, text.as_bytes());
}

fn put_config(out: &mut BytesMut, (name, value): &(StrBytes, StrBytes)) {
    put_str(out, name);
    put_str(out, value);
}

fn put_partition(out: &mut BytesMut, (topic, partition): &(StrBytes, i32)) {
    put_str(out, topic);
    out.put_i32(*partition);
}

pub fn put_all<T>(out: &mut BytesMut, items: &[T], mut put: impl FnMut(&mut BytesMut, &T)) {
    out.put_u32(items.len() as u32);
    for item in items {
        put(out, item);
    }
}

/// Reads the fields of a payload from its front.
pub struct Payload {
    size: usize,
    pub rest: Bytes,
}

impl Payload {
    pub fn new(payload: Bytes) -> Self {
        Self { size: payload.len(), rest: payload }
    }

    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.rest.try_get_u32()? as usize;
        if length > self.rest.len() {
            return Err(Malformed);
        }
        Ok(self.rest.split_to(length))
    }

    pub fn str(&mut self) -> Result<StrBytes, Malformed> {
        StrBytes::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    fn config(&mut self) -> Result<(StrBytes, StrBytes), Malformed> {
        Ok((self.str()?, self.str()?))
    }

    fn partition(&mut self) -> Result<(StrBytes, i32), Malformed> {
        Ok((self.str()?, self.rest.try_get_i32()?))
    }

    pub fn uuid(&mut self) -> Result<Uuid, Malformed> {
        Ok(Uuid::from_u128(self.rest.try_get_u128()?))
    }

    pub fn all<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.rest.try_get_u32()?;
        (0..count).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_offset_of_a_batch_in_the_payload_is_known() {
        let append = |batch: &'static str| Append {
            topic: StrBytes::from_static_str("topic"),
            partition: 3,
            batch: Bytes::from_static(batch.as_bytes()),
            offset_in_payload: 0,
        };
        let payload = Entry::TxnEnded {
            transactional_id: StrBytes::from_static_str("id"),
            committed: true,
            producer_epoch: 4,
            markers: vec![append("first"), append("the second")],
        }
        .encode();
        let Entry::TxnEnded { markers, .. } = Entry::decode(payload.clone()).unwrap() else {
            panic!("another entry");
        };
        for marker in markers {
            let start = marker.offset_in_payload as usize;
            assert_eq!(payload[start..start + marker.batch.len()], marker.batch);
        }
    }

    #[test]
    fn a_topic_has_the_id_it_was_created_with_or_none_in_an_older_journal() {
        let created = |topic_id| Entry::TopicCreated {
            topic: StrBytes::from_static_str("topic"),
            partitions: 3,
            configs: vec![(StrBytes::from_static_str("name"), StrBytes::from_static_str("value"))],
            topic_id,
        };
        for entry in [created(None), created(Some(Uuid::from_u128(7)))] {
            assert_eq!(Entry::decode(entry.encode()).unwrap(), entry);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Entry::decode(bytes.into());
        }

        #[test]
        fn decoded_offsets_equal_the_encoded_ones(offset: i64, partition: i32, metadata in ".*") {
            let entry = Entry::OffsetsCommitted {
                group: StrBytes::from_static_str("group"),
                offsets: vec![OffsetCommit {
                    topic: StrBytes::from_static_str("topic"),
                    partition,
                    offset,
                    leader_epoch: 0,
                    metadata: StrBytes::from_string(metadata),
                }],
            };
            prop_assert_eq!(Entry::decode(entry.encode()).unwrap(), entry);
        }
    }
}
