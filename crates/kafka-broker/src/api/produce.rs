//! Handles Produce.

use anyhow::bail;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;

use super::transactions::abortable;
use crate::batch::{self, BatchHeader, InvalidBatch, MAX_NAMED, Rules};
use crate::call::{Call, HandlerResult};
use crate::clock::now_ms;
use crate::core::Core;
use crate::entry::{Append, Entry, ProducerIdAndEpoch};
use crate::partition::{Admission, Partition};
use crate::shared::Shared;
use crate::state::{State, Topic};

/// Appends record batches. A request with acks 0 has no response: an error can only close the connection.
pub async fn handle_produce(shared: &Shared, call: &Call) -> HandlerResult {
    let request: ProduceRequest = call.request()?;
    let transactional_id = request.transactional_id.as_deref().map(|id| &**id);
    let mut responses = Vec::with_capacity(request.topic_data.len());
    let mut failed = false;
    let mut nameable = MAX_NAMED;
    for topic in &request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in &topic.partition_data {
            let (partition, version) = (data.index, call.version);
            let target = Target { topic: &topic.name, partition, transactional_id, version };
            let records = data.records.as_ref();
            let appended = match request.acks {
                -1..=1 => append(shared, &target, records).await,
                _ => Err(ResponseError::InvalidRequiredAcks.into()),
            };
            failed |= appended.is_err();
            partitions.push(response(appended, &mut nameable).with_index(data.index));
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

/// Returns the response for one partition, which names at most so many records.
fn response(appended: Result<Appended, InvalidBatch>, nameable: &mut usize) -> PartitionProduceResponse {
    match appended {
        Ok(Appended { base_offset, time, log_start_offset }) => PartitionProduceResponse::default()
            .with_base_offset(base_offset)
            .with_log_append_time_ms(time)
            .with_log_start_offset(log_start_offset),
        Err(InvalidBatch { error, mut records }) => {
            let message = (!records.is_empty())
                .then(|| StrBytes::from_static_str("One or more records have been rejected."));
            records.truncate(*nameable);
            *nameable -= records.len();
            let records = records.into_iter().map(|(index, message)| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(index)
                    .with_batch_index_error_message(Some(StrBytes::from_static_str(message)))
            });
            PartitionProduceResponse::default()
                .with_error_code(error.code())
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(-1)
                .with_record_errors(records.collect())
                .with_error_message(message)
        }
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

/// Holds a batch that fulfils the rules of its topic.
struct Valid {
    header: BatchHeader,
    batch: Bytes,
}

async fn append(
    shared: &Shared,
    target: &Target<'_>,
    records: Option<&Bytes>,
) -> Result<Appended, InvalidBatch> {
    let records = records.ok_or(ResponseError::InvalidRecord)?;
    let rules = {
        let core = shared.lock();
        let (topic, _) = find(core.state(), target)?;
        topic.configs.rules(now_ms())
    };
    if records.len() > rules.max_bytes {
        return Err(ResponseError::MessageTooLarge.into());
    }
    let valid = validate(shared, records, target.version, rules).await?;
    Ok(append_valid(&mut shared.lock(), target, &valid)?)
}

fn find<'a>(state: &'a State, target: &Target) -> Result<(&'a Topic, &'a Partition), ResponseError> {
    let unknown = ResponseError::UnknownTopicOrPartition;
    let topic = state.topics.get(target.topic.as_str()).ok_or(unknown)?;
    Ok((topic, topic.partition(target.partition).ok_or(unknown)?))
}

/// Validates the batch. Decompressing it would delay the other connections, so another thread does that.
async fn validate(
    shared: &Shared,
    records: &Bytes,
    version: i16,
    rules: Rules,
) -> Result<Valid, InvalidBatch> {
    let records = records.clone();
    if !BatchHeader::takes_long(&records, &rules) {
        let header = BatchHeader::validate(&records, version, &rules)?;
        return Ok(Valid { header, batch: records });
    }
    let permit = shared.compressions.acquire().await;
    let _permit = permit.map_err(|_| ResponseError::UnknownServerError)?;
    let validated = tokio::task::spawn_blocking(move || {
        let header = BatchHeader::validate(&records, version, &rules)?;
        let recompressed = match rules.codec {
            Some(codec) => batch::recompressed(&records, codec, rules.max_bytes)?,
            None => None,
        };
        match recompressed {
            Some(batch) => {
                let attributes = BatchHeader::read(&batch).map_or(0, |stored| stored.attributes);
                Ok(Valid { header: BatchHeader { attributes, ..header }, batch })
            }
            None => Ok(Valid { header, batch: records }),
        }
    });
    validated.await.unwrap_or_else(|_| Err(ResponseError::UnknownServerError.into()))
}

fn append_valid(core: &mut Core, target: &Target, valid: &Valid) -> Result<Appended, ResponseError> {
    let Valid { header, batch } = valid;
    let (topic, partition) = find(core.state(), target)?;
    if batch.len() > topic.configs.max_message_bytes {
        return Err(ResponseError::MessageTooLarge);
    }
    if batch.len() > topic.configs.segment_bytes {
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
    let received = batch::placed_at(batch, base_offset);
    let (batch, time) = if topic.configs.log_append_time {
        let time = now_ms();
        (batch::stamped(&received, time, true), time)
    } else if BatchHeader::read(batch).as_ref() != Some(header) {
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
