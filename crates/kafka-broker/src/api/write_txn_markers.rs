//! Handles WriteTxnMarkers: an operator ends the transaction of a producer in single partitions
//! (`kafka-transactions.sh abort`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use kafka_protocol::protocol::StrBytes;

use super::wire::code;
use crate::batch;
use crate::call::{Call, HandlerResult};
use crate::clock::now_ms;
use crate::core::Core;
use crate::entry::{Append, Entry};
use crate::shared::Shared;

pub fn handle_write_txn_markers(shared: &Shared, call: &Call) -> HandlerResult {
    let request: WriteTxnMarkersRequest = call.request()?;
    let mut core = shared.lock();
    let results = request.markers.iter().map(|marker| {
        let topics = marker.topics.iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|index| {
                let written = write_marker(&mut core, marker, &topic.name, *index);
                WritableTxnMarkerPartitionResult::default()
                    .with_partition_index(*index)
                    .with_error_code(code(&written))
            });
            let partitions = partitions.collect();
            WritableTxnMarkerTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions)
        });
        let topics = topics.collect();
        WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics)
    });
    call.respond(&WriteTxnMarkersResponse::default().with_markers(results.collect()))
}

fn write_marker(
    core: &mut Core,
    marker: &WritableTxnMarker,
    topic: &StrBytes,
    index: i32,
) -> Result<(), ResponseError> {
    // Negative numbers mean that there is no producer, as in the batches of most clients.
    if marker.producer_id.0 < 0 || marker.producer_epoch < 0 {
        return Err(ResponseError::InvalidRequest);
    }
    let partition = core.state().partition(topic, index);
    let partition = partition.ok_or(ResponseError::UnknownTopicOrPartition)?;
    let current = partition.producers().find(|(id, _)| *id == marker.producer_id.0);
    if current.is_some_and(|(_, producer)| marker.producer_epoch < producer.epoch()) {
        return Err(ResponseError::InvalidProducerEpoch);
    }
    let committed = marker.transaction_result;
    let base_offset = partition.end_offset();
    let batch =
        batch::end_marker(base_offset, now_ms(), marker.producer_id.0, marker.producer_epoch, committed);
    let append = Append { topic: topic.clone(), partition: index, batch, offset_in_payload: 0 };
    core.commit(&Entry::MarkersWritten { committed, markers: vec![append] })
}
