//! Handles Fetch: selects batches under the lock, waits while they are too few, and reads them without the lock.
//!
//! A client decides how long a fetch waits: for records, or until others have read their responses. Meanwhile nothing is
//! held but the bytes of the request, which is decoded again after each wait.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProducerId};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use super::wire::{check_leader_epoch, unreadable};
use crate::batch::{Codec, LEADER_EPOCH};
use crate::call::{Call, HandlerResult};
use crate::journal::Reader;
use crate::memory::Room;
use crate::partition::{Isolation, Partition, Stored};
use crate::shared::Shared;
use crate::state::State;

/// `fetch.max.bytes` of the broker
const MAX_BYTES: usize = 55 * 1024 * 1024;
/// Limits the wait of a large request.
const LARGE_MAX_WAIT: Duration = Duration::from_secs(1);
/// First version that identifies topics by their ids (KIP-516).
const TOPIC_IDS: i16 = 13;

struct Plan {
    topics: Vec<(FetchableTopicResponse, Vec<Planned>)>,
    bytes: usize,
    ready: usize,
    /// Whether there is nothing to wait for: a partition has an error or a diverging epoch, or there is no partition.
    ended: bool,
}

impl Plan {
    /// Returns the bytes of the response, before it is encoded.
    fn memory(&self) -> usize {
        let partitions: usize = self.topics.iter().map(|(_, planned)| planned.len()).sum();
        let topics = self.topics.len() * size_of::<FetchableTopicResponse>();
        self.bytes + partitions * size_of::<PartitionData>() + topics
    }
}

struct Planned {
    response: PartitionData,
    batches: Vec<Stored>,
    /// Bytes that are compared with the minimum: up to the limits of the request, the batch that exceeds them counts too.
    ready: usize,
}

/// Describes how a fetch continues.
enum Attempt {
    Ready(Plan, Reader),
    /// Too few batches are there. A notification follows.
    TooFew,
    /// The response needs room for this number of bytes.
    NoRoom(usize),
}

pub async fn handle_fetch(shared: &Shared, call: &Call) -> HandlerResult {
    let received = Instant::now();
    let appended = Arc::new(Notify::new());
    let mut room = Room::default();
    let (plan, reader) = loop {
        let (attempt, deadline) = {
            let request: FetchRequest = call.request()?;
            if let Err(error) = check_session(&request) {
                return call.respond(&FetchResponse::default().with_error_code(error.code()));
            }
            let deadline = received + max_wait(&request, call.is_large());
            (attempt(shared, &request, call.version, deadline, &appended, &mut room), deadline)
        };
        match attempt {
            Attempt::Ready(plan, reader) => break (plan, reader),
            Attempt::TooFew => {
                // The records that it was for may have been deleted meanwhile.
                drop(std::mem::take(&mut room));
                let _ = call.client.wait(tokio::time::timeout_at(deadline, appended.notified())).await?;
            }
            Attempt::NoRoom(bytes) => {
                drop(std::mem::take(&mut room));
                room = call.client.wait(shared.fetches.room_for(bytes, "responses")).await??;
            }
        }
    };
    let responses = tokio::task::spawn_blocking(move || read(plan, &reader)).await?;
    call.respond_within(&shared.fetches, room, &FetchResponse::default().with_responses(responses))
}

fn max_wait(request: &FetchRequest, is_large: bool) -> Duration {
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or_default());
    // The request is needed until the end of the wait, and so is its room, which others may wait for.
    if is_large { max_wait.min(LARGE_MAX_WAIT) } else { max_wait }
}

fn attempt(
    shared: &Shared,
    request: &FetchRequest,
    version: i16,
    deadline: Instant,
    appended: &Arc<Notify>,
    room: &mut Room,
) -> Attempt {
    // No response could reach more (`KafkaApis.handleFetchRequest`).
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or_default().min(max_bytes(request));
    let mut core = shared.lock();
    let plan = plan(core.state(), request, version);
    if plan.ready >= min_bytes || plan.ended || Instant::now() >= deadline {
        let bytes = plan.memory();
        return match shared.fetches.extend(room, bytes) {
            true => Attempt::Ready(plan, core.reader()),
            false => Attempt::NoRoom(bytes),
        };
    }
    for (topic, planned) in &plan.topics {
        for part in planned {
            core.wake_on_append(&topic.topic, part.response.partition_index, appended);
        }
    }
    Attempt::TooFew
}

/// Refuses requests that refer to a fetch session (KIP-227). Every response has session id 0, which means no session.
fn check_session(request: &FetchRequest) -> Result<(), ResponseError> {
    match (request.session_id, request.session_epoch) {
        (0, epoch) if epoch <= 0 => Ok(()),
        (0, _) => Err(ResponseError::InvalidFetchSessionEpoch),
        // The request closes a session and continues without one.
        (_, -1) => Ok(()),
        _ => Err(ResponseError::FetchSessionIdNotFound),
    }
}

fn max_bytes(request: &FetchRequest) -> usize {
    usize::try_from(request.max_bytes).unwrap_or_default().min(MAX_BYTES)
}

fn plan(state: &State, request: &FetchRequest, version: i16) -> Plan {
    let isolation = Isolation::from(request.isolation_level);
    let mut left = max_bytes(request);
    let is_empty = request.topics.iter().all(|topic| topic.partitions.is_empty());
    let mut plan =
        Plan { topics: Vec::with_capacity(request.topics.len()), bytes: 0, ready: 0, ended: is_empty };
    for topic in &request.topics {
        let name = topic_name(state, topic, version);
        let mut planned = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            // The first batch is sent even when it exceeds all limits, or the consumer could never advance.
            let at_least_one = plan.bytes == 0;
            let part = name.as_ref().map_err(|error| *error).and_then(|name| {
                check_codec(state, name, version)?;
                plan_partition(state, name, wanted, isolation, left, at_least_one)
            });
            let part = part.unwrap_or_else(|error| {
                let response = response(wanted)
                    .with_error_code(error.code())
                    .with_high_watermark(-1)
                    .with_log_start_offset(-1);
                Planned { response, batches: Vec::new(), ready: 0 }
            });
            plan.ended |= part.response.error_code != 0 || part.response.diverging_epoch.epoch >= 0;
            let bytes: usize = part.batches.iter().map(|batch| batch.length as usize).sum();
            plan.bytes += bytes;
            plan.ready += part.ready;
            left = left.saturating_sub(bytes);
            planned.push(part);
        }
        let response = FetchableTopicResponse::default()
            .with_topic(name.unwrap_or_default().into())
            .with_topic_id(topic.topic_id);
        plan.topics.push((response, planned));
    }
    plan
}

fn topic_name(state: &State, topic: &FetchTopic, version: i16) -> Result<StrBytes, ResponseError> {
    if version < TOPIC_IDS {
        return Ok(topic.topic.0.clone());
    }
    let name = state.topic_name(topic.topic_id).ok_or(ResponseError::UnknownTopicId)?;
    Ok(StrBytes::from_string(name.to_owned()))
}

/// Refuses a client that does not know zstd if the topic uses it (KIP-110).
fn check_codec(state: &State, topic: &str, version: i16) -> Result<(), ResponseError> {
    let is_zstd = state.topics.get(topic).is_some_and(|topic| topic.configs.codec == Some(Codec::Zstd));
    if is_zstd && version < 10 { Err(ResponseError::UnsupportedCompressionType) } else { Ok(()) }
}

fn plan_partition(
    state: &State,
    topic: &str,
    wanted: &FetchPartition,
    isolation: Isolation,
    left: usize,
    at_least_one: bool,
) -> Result<Planned, ResponseError> {
    let partition = state.partition(topic, wanted.partition);
    let partition = partition.ok_or(ResponseError::UnknownTopicOrPartition)?;
    check_leader_epoch(wanted.current_leader_epoch)?;
    let offset = wanted.fetch_offset;
    let last_epoch = wanted.last_fetched_epoch;
    if last_epoch > LEADER_EPOCH {
        return Err(ResponseError::OffsetOutOfRange);
    }
    if last_epoch == LEADER_EPOCH && offset > partition.end_offset() {
        return Ok(Planned { response: diverging(partition, wanted), batches: Vec::new(), ready: 0 });
    }
    if !(partition.start_offset()..=partition.end_offset()).contains(&offset) {
        return Err(ResponseError::OffsetOutOfRange);
    }
    let limit = usize::try_from(wanted.partition_max_bytes).unwrap_or_default();
    let limit = limit.min(left);
    let mut batches = Vec::new();
    let mut bytes = 0_usize;
    let mut ready = 0;
    let mut end = offset;
    for found in partition.batches_from(offset, isolation) {
        let (last_offset, stored) = found.map_err(unreadable)?;
        bytes += stored.length as usize;
        if bytes > limit && !(at_least_one && batches.is_empty()) {
            ready = ready.max(limit);
            break;
        }
        ready = bytes;
        batches.push(stored);
        end = last_offset + 1;
    }
    let aborted = (isolation == Isolation::ReadCommitted).then(|| {
        let aborted = partition.aborted_between(offset, end).into_iter();
        let on_the_wire = aborted.map(|txn| {
            AbortedTransaction::default()
                .with_producer_id(ProducerId(txn.producer_id))
                .with_first_offset(txn.first_offset)
        });
        on_the_wire.collect()
    });
    let response = response(wanted)
        .with_high_watermark(partition.end_offset())
        .with_last_stable_offset(partition.last_stable_offset())
        .with_log_start_offset(partition.start_offset())
        .with_aborted_transactions(aborted);
    Ok(Planned { response, batches, ready })
}

/// Returns the response to a client that read further than the log reaches, which lost its end (KIP-595).
fn diverging(partition: &Partition, wanted: &FetchPartition) -> PartitionData {
    let end = EpochEndOffset::default().with_epoch(LEADER_EPOCH).with_end_offset(partition.end_offset());
    response(wanted)
        .with_high_watermark(partition.end_offset())
        .with_last_stable_offset(partition.last_stable_offset())
        .with_log_start_offset(partition.start_offset())
        .with_diverging_epoch(end)
}

fn response(wanted: &FetchPartition) -> PartitionData {
    PartitionData::default()
        .with_partition_index(wanted.partition)
        .with_last_stable_offset(-1)
        .with_records(Some(Bytes::new()))
}

fn read(plan: Plan, reader: &Reader) -> Vec<FetchableTopicResponse> {
    let topics = plan.topics.into_iter();
    topics
        .map(|(topic, planned)| {
            let partitions = planned.into_iter().map(|part| {
                let Planned { response, batches, .. } = part;
                match read_batches(&batches, reader) {
                    Ok(records) => response.with_records(Some(records)),
                    Err(error) => response.with_error_code(unreadable(error).code()),
                }
            });
            topic.with_partitions(partitions.collect())
        })
        .collect()
}

fn read_batches(batches: &[Stored], reader: &Reader) -> std::io::Result<Bytes> {
    let total = batches.iter().map(|batch| batch.length as usize).sum();
    let mut records = BytesMut::zeroed(total);
    let mut rest: &mut [u8] = &mut records;
    for batch in batches {
        let Some((target, after)) = rest.split_at_mut_checked(batch.length as usize) else {
            break;
        };
        reader.read_into(target, batch.position)?;
        rest = after;
    }
    Ok(records.freeze())
}
