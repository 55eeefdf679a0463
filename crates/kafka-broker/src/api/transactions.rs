//! Handles InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, TxnOffsetCommit and EndTxn.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse, ProducerId,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::offsets::check_commits;
use super::wire::code;
use crate::call::{Call, HandlerResult};
use crate::clock::now_ms;
use crate::entry::{OffsetCommit, ProducerIdAndEpoch};
use crate::groups::Caller;
use crate::shared::Shared;

pub fn handle_init_producer_id(shared: &Shared, call: &Call) -> HandlerResult {
    let request: InitProducerIdRequest = call.request()?;
    let named = producer(request.producer_id, request.producer_epoch);
    let expected = match (named.id, named.epoch) {
        (-1, -1) => Ok(None),
        (0.., 0..) => Ok(Some(named)),
        _ => Err(ResponseError::InvalidRequest),
    };
    let initialized = expected.and_then(|expected| {
        let mut core = shared.lock();
        let timeout_ms = request.transaction_timeout_ms;
        match &request.transactional_id {
            Some(id) => core.init_transactions(id, timeout_ms, expected, now_ms()),
            None => core.allocate_producer_id(),
        }
    });
    // Older clients do not know the newer error (KIP-360).
    let initialized = downgraded(initialized, call.version >= 4);
    let producer = initialized.unwrap_or(ProducerIdAndEpoch::NONE);
    let response = InitProducerIdResponse::default()
        .with_error_code(code(&initialized))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch);
    call.respond(&response)
}

pub fn handle_add_partitions_to_txn(shared: &Shared, call: &Call) -> HandlerResult {
    let request: AddPartitionsToTxnRequest = call.request()?;
    let producer = producer(request.v3_and_below_producer_id, request.v3_and_below_producer_epoch);
    let mut core = shared.lock();
    let topics = &request.v3_and_below_topics;
    let partitions = topics.iter().flat_map(|topic| {
        let indexes = topic.partitions.iter();
        indexes.map(|index| (topic.name.0.clone(), *index))
    });
    let partitions: Vec<_> = partitions.collect();
    let unknown = |topic: &str, index: i32| core.state().partition(topic, index).is_none();
    let missing: Vec<bool> = partitions.iter().map(|(topic, index)| unknown(topic, *index)).collect();
    // All partitions are added or none: a missing one fails the others too.
    let added = if missing.contains(&true) {
        Err(ResponseError::OperationNotAttempted)
    } else {
        let id = &request.v3_and_below_transactional_id;
        let added = core.add_partitions(id, producer, partitions, now_ms());
        shared.deadlines.notify_one();
        downgraded(added, call.version >= 2)
    };
    let mut missing = missing.into_iter();
    let results = request.v3_and_below_topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().zip(missing.by_ref());
        let partitions = partitions.map(|(index, missing)| {
            let result = if missing { Err(ResponseError::UnknownTopicOrPartition) } else { added };
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(index)
                .with_partition_error_code(code(&result))
        });
        AddPartitionsToTxnTopicResult::default()
            .with_results_by_partition(partitions.collect())
            .with_name(topic.name)
    });
    let response = AddPartitionsToTxnResponse::default();
    call.respond(&response.with_results_by_topic_v3_and_below(results.collect()))
}

pub fn handle_add_offsets_to_txn(shared: &Shared, call: &Call) -> HandlerResult {
    let request: AddOffsetsToTxnRequest = call.request()?;
    let producer = producer(request.producer_id, request.producer_epoch);
    let (id, group) = (&request.transactional_id, &request.group_id);
    let added = shared.lock().add_group(id, producer, group, now_ms());
    shared.deadlines.notify_one();
    let added = downgraded(added, call.version >= 2);
    call.respond(&AddOffsetsToTxnResponse::default().with_error_code(code(&added)))
}

pub fn handle_txn_offset_commit(shared: &Shared, call: &Call) -> HandlerResult {
    let request: TxnOffsetCommitRequest = call.request()?;
    let mut core = shared.lock();
    let producer = producer(request.producer_id, request.producer_epoch);
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let (id, group) = (&request.transactional_id, &request.group_id);
    let allowed = abortable(core.check_group_in_txn(id, producer, group, caller), call.version >= 4);
    let wanted = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|wanted| OffsetCommit {
            topic: topic.name.0.clone(),
            partition: wanted.partition_index,
            offset: wanted.committed_offset,
            leader_epoch: wanted.committed_leader_epoch,
            metadata: wanted.committed_metadata.clone().unwrap_or_default(),
        })
    });
    let (commits, checked) = check_commits(core.state(), allowed, wanted);
    let written = if commits.is_empty() {
        Ok(())
    } else {
        core.commit_txn_offsets(producer.id, group.0.clone(), commits)
    };
    let mut checked = checked.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(checked.by_ref());
        let partitions = partitions.map(|(wanted, valid)| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code(&valid.and(written)))
        });
        TxnOffsetCommitResponseTopic::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    call.respond(&TxnOffsetCommitResponse::default().with_topics(topics.collect()))
}

pub fn handle_end_txn(shared: &Shared, call: &Call) -> HandlerResult {
    let request: EndTxnRequest = call.request()?;
    let producer = producer(request.producer_id, request.producer_epoch);
    let id = &request.transactional_id;
    let ended = shared.lock().end_txn(id, producer, request.committed, now_ms());
    let ended = downgraded(ended, call.version >= 2);
    call.respond(&EndTxnResponse::default().with_error_code(code(&ended)))
}

fn producer(id: ProducerId, epoch: i16) -> ProducerIdAndEpoch {
    ProducerIdAndEpoch { id: id.0, epoch }
}

/// Replaces PRODUCER_FENCED by INVALID_PRODUCER_EPOCH for clients that do not know it (KIP-588).
fn downgraded<T>(result: Result<T, ResponseError>, knows_producer_fenced: bool) -> Result<T, ResponseError> {
    result.map_err(|error| match error {
        ResponseError::ProducerFenced if !knows_producer_fenced => ResponseError::InvalidProducerEpoch,
        other => other,
    })
}

/// Replaces INVALID_TXN_STATE of a write that is not part of the transaction by TRANSACTION_ABORTABLE, for clients that
/// know it (KIP-890).
pub fn abortable<T>(
    result: Result<T, ResponseError>,
    knows_transaction_abortable: bool,
) -> Result<T, ResponseError> {
    result.map_err(|error| match error {
        ResponseError::InvalidTxnState if knows_transaction_abortable => ResponseError::TransactionAbortable,
        other => other,
    })
}
