//! Handles DeleteRecords (KIP-107).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use kafka_protocol::protocol::StrBytes;

use super::wire::code;
use crate::call::{Call, HandlerResult};
use crate::core::Core;
use crate::entry::Entry;
use crate::shared::Shared;

/// Stands for the end of the partition.
const HIGH_WATERMARK: i64 = -1;

pub fn handle_delete_records(shared: &Shared, call: &Call) -> HandlerResult {
    let request: DeleteRecordsRequest = call.request()?;
    let mut core = shared.lock();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let deleted = delete_records(&mut core, &topic.name, wanted.partition_index, wanted.offset);
            DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code(&deleted))
                .with_low_watermark(deleted.unwrap_or(-1))
        });
        DeleteRecordsTopicResult::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    call.respond(&DeleteRecordsResponse::default().with_topics(topics.collect()))
}

/// Deletes the records before an offset, and returns the first offset that is left (`Partition.deleteRecordsOnLeader`).
fn delete_records(core: &mut Core, name: &StrBytes, index: i32, offset: i64) -> Result<i64, ResponseError> {
    let unknown = ResponseError::UnknownTopicOrPartition;
    let topic = core.state().topics.get(name.as_str()).ok_or(unknown)?;
    let partition = topic.partition(index).ok_or(unknown)?;
    if !topic.configs.delete {
        return Err(ResponseError::PolicyViolation);
    }
    let (start, end) = (partition.start_offset(), partition.end_offset());
    let before = if offset == HIGH_WATERMARK { end } else { offset };
    if !(0..=end).contains(&before) {
        return Err(ResponseError::OffsetOutOfRange);
    }
    if before > start {
        core.commit(&Entry::RecordsDeleted { topic: name.clone(), partition: index, before })?;
    }
    Ok(before.max(start))
}
