//! Encodes the state as the payloads of a checkpoint, which replaces all journal entries before it.
//!
//! A checkpoint is written when a segment begins, after the positions of all batches were written to an index file.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::entry::codec::{Payload, put_all, put_bytes};
use crate::entry::{ProducerIdAndEpoch, StoredGroup};
use crate::group_offsets::GroupOffsets;
use crate::journal::IndexFile;
use crate::partition::Partition;
use crate::state::{State, Topic};
use crate::topic_configs::TopicConfigs;
use crate::transaction::{Ongoing, Status, Transaction};

const BEGIN: u8 = 1;
const TOPIC: u8 = 2;
const OFFSETS: u8 = 3;
const TRANSACTION: u8 = 4;
const GROUP: u8 = 5;
const END: u8 = 6;

/// Returns the payloads of a checkpoint at the beginning of the segment at `position`.
pub fn payloads(state: &State, position: u64) -> impl Iterator<Item = Bytes> {
    let State { cluster_id, topics, topic_names: _, offsets, transactions, groups, next_producer_id } = state;
    let begin = payload(BEGIN, "", |out| {
        out.put_u64(position);
        out.put_i64(*next_producer_id);
        put_all(out, cluster_id.as_slice(), |out, id| put_bytes(out, id.as_bytes()));
    });
    let topics = topics.iter().map(|(name, topic)| payload(TOPIC, name, |out| put_topic(out, topic)));
    let offsets = offsets.iter().map(|(id, offsets)| payload(OFFSETS, id, |out| offsets.encode(out)));
    let transactions = transactions.iter();
    let transactions =
        transactions.map(|(id, txn)| payload(TRANSACTION, id, |out| put_transaction(out, txn)));
    let groups = groups.iter().map(|(id, group)| payload(GROUP, id, |out| group.encode(out)));
    let end = payload(END, "", |_| {});
    let all = [begin].into_iter().chain(topics).chain(offsets).chain(transactions).chain(groups);
    all.chain([end])
}

/// Returns the state, and the position of the segment from which the journal continues it.
pub fn restore(
    payloads: Vec<Bytes>,
    open_index: impl Fn(u64) -> io::Result<IndexFile>,
) -> Result<(State, u64)> {
    let mut opened: HashMap<u64, Arc<IndexFile>> = HashMap::new();
    let mut open_index = |position| match opened.get(&position) {
        Some(index) => Ok(Arc::clone(index)),
        None => {
            let index = Arc::new(open_index(position)?);
            opened.insert(position, Arc::clone(&index));
            Ok(index)
        }
    };
    let (mut state, mut position, mut tag) = (State::default(), 0, BEGIN);
    for payload in payloads {
        let mut from = Payload::new(payload);
        tag = from.rest.try_get_u8()?;
        let name = from.str()?.to_string();
        match tag {
            BEGIN => {
                position = from.rest.try_get_u64()?;
                state.next_producer_id = from.rest.try_get_i64()?;
                state.cluster_id = from.all(|from| Ok(from.str()?.to_string()))?.pop();
            }
            TOPIC => {
                let topic = topic(&mut from, &mut open_index).with_context(|| format!("topic {name}"))?;
                state.topic_names.insert(topic.id, name.clone());
                state.topics.insert(name, topic);
            }
            OFFSETS => drop(state.offsets.insert(name, GroupOffsets::decode(&mut from)?)),
            TRANSACTION => drop(state.transactions.insert(name, transaction(&mut from)?)),
            GROUP => drop(state.groups.insert(name, StoredGroup::decode(&mut from)?)),
            END => {}
            other => bail!("the part {other} is unknown"),
        }
        ensure!(from.rest.is_empty(), "a part of kind {tag} is too long");
    }
    ensure!(tag == END, "the end is missing");
    Ok((state, position))
}

fn payload(tag: u8, name: &str, encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(tag);
    put_bytes(&mut out, name.as_bytes());
    encode(&mut out);
    out.freeze()
}

fn put_topic(out: &mut BytesMut, topic: &Topic) {
    let Topic { id, partitions, configs } = topic;
    out.put_slice(id.as_bytes());
    out.put_u32(configs.set().len() as u32);
    for (name, value) in configs.set() {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
    put_all(out, partitions, |out, partition| partition.encode(out));
}

fn topic(
    from: &mut Payload,
    open_index: &mut impl FnMut(u64) -> io::Result<Arc<IndexFile>>,
) -> Result<Topic> {
    let id = from.uuid()?;
    let configs = from.all(|from| Ok((from.str()?.to_string(), from.str()?.to_string())))?;
    let mut partitions = Vec::new();
    for _ in 0..from.rest.try_get_u32()? {
        partitions.push(Partition::decode(from, open_index)?);
    }
    Ok(Topic { id, partitions, configs: TopicConfigs::new(configs) })
}

fn put_transaction(out: &mut BytesMut, transaction: &Transaction) {
    let Transaction { producer, last_producer, timeout_ms, status } = transaction;
    producer.encode(out);
    last_producer.encode(out);
    out.put_i32(*timeout_ms);
    match status {
        Status::Empty => out.put_u8(0),
        Status::CompleteCommit => out.put_u8(1),
        Status::CompleteAbort => out.put_u8(2),
        Status::Ongoing(Ongoing { started_ms, partitions, groups }) => {
            out.put_u8(3);
            out.put_i64(*started_ms);
            out.put_u32(partitions.len() as u32);
            for (topic, index) in partitions {
                put_bytes(out, topic.as_bytes());
                out.put_i32(*index);
            }
            out.put_u32(groups.len() as u32);
            groups.iter().for_each(|group| put_bytes(out, group.as_bytes()));
        }
    }
}

fn transaction(from: &mut Payload) -> Result<Transaction> {
    Ok(Transaction {
        producer: ProducerIdAndEpoch::decode(from)?,
        last_producer: ProducerIdAndEpoch::decode(from)?,
        timeout_ms: from.rest.try_get_i32()?,
        status: match from.rest.try_get_u8()? {
            0 => Status::Empty,
            1 => Status::CompleteCommit,
            2 => Status::CompleteAbort,
            3 => Status::Ongoing(Ongoing {
                started_ms: from.rest.try_get_i64()?,
                partitions: from
                    .all(|from| Ok((from.str()?.to_string(), from.rest.try_get_i32()?)))?
                    .into_iter()
                    .collect(),
                groups: from.all(|from| Ok(from.str()?.to_string()))?.into_iter().collect(),
            }),
            other => bail!("the status {other} is unknown"),
        },
    })
}
