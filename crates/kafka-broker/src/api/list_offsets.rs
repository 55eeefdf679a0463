//! Handles ListOffsets: finds offsets by time.

use std::collections::HashMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::wire::{check_leader_epoch, code, unreadable};
use crate::batch::{self, LEADER_EPOCH};
use crate::call::{Call, HandlerResult};
use crate::journal::Reader;
use crate::partition::{Isolation, Stored};
use crate::shared::Shared;
use crate::state::State;

// Negative timestamps have a meaning of their own (`ListOffsetsRequest`).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// Describes an answer. What is not known is -1.
#[derive(Debug, Clone, Copy)]
struct Found {
    timestamp: i64,
    offset: i64,
    leader_epoch: i32,
}

impl Found {
    const NOTHING: Self = Self { timestamp: -1, offset: -1, leader_epoch: -1 };

    fn at(timestamp: i64, offset: i64) -> Self {
        Self { timestamp, offset, leader_epoch: LEADER_EPOCH }
    }
}

pub async fn handle_list_offsets(shared: &Shared, call: &Call) -> HandlerResult {
    let request: ListOffsetsRequest = call.request()?;
    let isolation = Isolation::from(request.isolation_level);
    let mut named: HashMap<_, usize> = HashMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            *named.entry((topic.name.as_str(), partition.partition_index)).or_default() += 1;
        }
    }
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let found = match named.get(&(topic.name.as_str(), wanted.partition_index)) {
                Some(1) => find(shared, &topic.name, wanted, isolation, call.version).await?,
                _ => Err(ResponseError::InvalidRequest),
            };
            let Found { timestamp, offset, leader_epoch } = found.unwrap_or(Found::NOTHING);
            partitions.push(
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(wanted.partition_index)
                    .with_error_code(code(&found))
                    .with_timestamp(timestamp)
                    .with_offset(offset)
                    // Older versions of the response have no field for it.
                    .with_leader_epoch(if call.version >= 4 { leader_epoch } else { -1 }),
            );
        }
        topics.push(
            ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions),
        );
    }
    call.respond(&ListOffsetsResponse::default().with_topics(topics))
}

/// Finds an offset. The outer error is a failure of the broker.
async fn find(
    shared: &Shared,
    topic: &str,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
    version: i16,
) -> anyhow::Result<Result<Found, ResponseError>> {
    let (located, reader) = {
        let core = shared.lock();
        (locate(core.state(), topic, wanted, isolation, version), core.reader())
    };
    Ok(match located {
        Ok(Located::Known(found)) => Ok(found),
        Ok(Located::Within(search)) => {
            let _permit = shared.compressions.acquire().await?;
            tokio::task::spawn_blocking(move || search.run(&reader)).await?
        }
        Err(error) => Err(error),
    })
}

enum Located {
    Known(Found),
    Within(Search),
}

/// Describes where to look for a record: in these batches, from `start` to `end`.
struct Search {
    timestamp: i64,
    batches: Vec<Stored>,
    start: i64,
    end: i64,
}

fn locate(
    state: &State,
    topic: &str,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
    version: i16,
) -> Result<Located, ResponseError> {
    if !is_supported(wanted.timestamp, version) {
        return Err(ResponseError::UnsupportedVersion);
    }
    let partition = state.partition(topic, wanted.partition_index);
    let partition = partition.ok_or(ResponseError::UnknownTopicOrPartition)?;
    check_leader_epoch(wanted.current_leader_epoch)?;
    let (start, end) = (partition.start_offset(), partition.readable_end(isolation));
    let timestamp = match wanted.timestamp {
        LATEST => return Ok(Located::Known(Found::at(-1, end))),
        EARLIEST | EARLIEST_LOCAL => return Ok(Located::Known(Found::at(-1, start))),
        LATEST_TIERED => return Ok(Located::Known(Found::NOTHING)),
        MAX_TIMESTAMP => partition.max_timestamp().map_err(unreadable)?,
        timestamp => Some(timestamp),
    };
    let Some(timestamp) = timestamp else {
        return Ok(Located::Known(Found::NOTHING));
    };
    // The record may be before the start of the log in the first batch only.
    let batches = partition.batches_at_or_after(timestamp).take(2).collect::<Result<_, _>>();
    let batches = batches.map_err(unreadable)?;
    Ok(Located::Within(Search { timestamp, batches, start, end }))
}

/// Returns whether this version knows the meaning of a negative timestamp.
fn is_supported(timestamp: i64, version: i16) -> bool {
    match timestamp {
        0.. | LATEST | EARLIEST => true,
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        LATEST_TIERED => version >= 9,
        _ => false,
    }
}

impl Search {
    fn run(&self, reader: &Reader) -> Result<Found, ResponseError> {
        for stored in &self.batches {
            let mut bytes = vec![0; stored.length as usize];
            reader.read_into(&mut bytes, stored.position).map_err(unreadable)?;
            if let Some((timestamp, offset)) = batch::first_at_or_after(&bytes, self.timestamp, self.start) {
                let is_readable = offset < self.end;
                return Ok(if is_readable { Found::at(timestamp, offset) } else { Found::NOTHING });
            }
        }
        Ok(Found::NOTHING)
    }
}
