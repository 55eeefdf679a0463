//! Handles Produce.

use anyhow::bail;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;

use super::transactions::abortable;
use super::wire::code;
use crate::batch::{self, BatchHeader};
use crate::call::{Call, HandlerResult};
use crate::clock::now_ms;
use crate::core::Core;
use crate::entry::{Append, Entry, ProducerIdAndEpoch};
use crate::partition::Admission;
use crate::shared::Shared;

/// Appends record batches. A request with acks 0 has no response: an error can only close the connection.
pub async fn handle_produce(shared: &Shared, call: &Call) -> HandlerResult {
    let request: ProduceRequest = call.request()?;
    let transactional_id = request.transactional_id.as_deref().map(|id| &**id);
    let mut responses = Vec::with_capacity(request.topic_data.len());
    let mut failed = false;
    for topic in &request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in &topic.partition_data {
            let (partition, version) = (data.index, call.version);
            let target = Target { topic: &topic.name, partition, transactional_id, version };
            let records = data.records.as_ref();
            let appended = match request.acks {
                -1..=1 => append(shared, &target, records).await,
                _ => Err(ResponseError::InvalidRequiredAcks),
            };
            failed |= appended.is_err();
            partitions.push(
                PartitionProduceResponse::default()
                    .with_index(data.index)
                    .with_error_code(code(&appended))
                    .with_base_offset(appended.as_ref().map_or(-1, |appended| appended.base_offset))
                    .with_log_append_time_ms(appended.as_ref().map_or(-1, |appended| appended.time))
                    .with_log_start_offset(
                        appended.as_ref().map_or(-1, |appended| appended.log_start_offset),
                    ),
            );
        }
        responses.push(
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_partition_responses(partitions),
        );
    }
    match (request.acks, failed) {
        (0, true) => bail!("a batch with acks 0 was refused"),
        (0, false) => Ok(None),
        _ => call.respond(&ProduceResponse::default().with_responses(responses)),
    }
}

struct Target<'a> {
    topic: &'a StrBytes,
    partition: i32,
    transactional_id: Option<&'a str>,
    /// Version of the request.
    version: i16,
}

/// Holds the offset of an appended batch, and the time of the append, or -1 if the producer's timestamps are kept.
struct Appended {
    base_offset: i64,
    time: i64,
    log_start_offset: i64,
}

async fn append(
    shared: &Shared,
    target: &Target<'_>,
    records: Option<&Bytes>,
) -> Result<Appended, ResponseError> {
    let records = records.ok_or(ResponseError::InvalidRecord)?;
    let header = validate(records, target.version).await?;
    append_valid(&mut shared.lock(), target, records, &header)
}

/// Validates the batch. Decompressing it would delay the other connections, so another thread does that.
async fn validate(records: &Bytes, version: i16) -> Result<BatchHeader, ResponseError> {
    if !BatchHeader::is_compressed(records) {
        return BatchHeader::validate(records, version);
    }
    let records = records.clone();
    let validated = tokio::task::spawn_blocking(move || BatchHeader::validate(&records, version));
    validated.await.unwrap_or(Err(ResponseError::UnknownServerError))
}

fn append_valid(
    core: &mut Core,
    target: &Target,
    records: &Bytes,
    header: &BatchHeader,
) -> Result<Appended, ResponseError> {
    let unknown = ResponseError::UnknownTopicOrPartition;
    let topic = core.state().topics.get(target.topic.as_str()).ok_or(unknown)?;
    let partition = topic.partition(target.partition).ok_or(unknown)?;
    if records.len() > topic.configs.max_message_bytes {
        return Err(ResponseError::MessageTooLarge);
    }
    if records.len() > topic.configs.segment_bytes {
        return Err(ResponseError::RecordListTooLarge);
    }
    if header.is_transactional() {
        let id = target.transactional_id;
        let producer = ProducerIdAndEpoch { id: header.producer_id, epoch: header.producer_epoch };
        let checked = core.check_partition_in_txn(
            id.ok_or(ResponseError::TransactionalIdAuthorizationFailed)?,
            producer,
            target.topic,
            target.partition,
        );
        abortable(checked, target.version >= 11)?;
    }
    let log_start_offset = partition.start_offset();
    if let Admission::Duplicate(appended) = partition.admit(header)? {
        let (base_offset, time) = (appended.base_offset, appended.timestamp);
        return Ok(Appended { base_offset, time, log_start_offset });
    }
    let base_offset = partition.end_offset();
    let received = batch::placed_at(records, base_offset);
    let (batch, time) = if topic.configs.log_append_time {
        let time = now_ms();
        (batch::stamped(&received, time, true), time)
    } else if BatchHeader::read(records).as_ref() != Some(header) {
        (batch::stamped(&received, header.max_timestamp, false), -1)
    } else {
        (received, -1)
    };
    core.commit(&Entry::BatchAppended(Append {
        topic: target.topic.clone(),
        partition: target.partition,
        batch,
        offset_in_payload: 0,
    }))?;
    Ok(Appended { base_offset, time, log_start_offset })
}
