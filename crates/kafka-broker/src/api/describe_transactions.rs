//! Handles ListTransactions, DescribeTransactions and DescribeProducers (KIP-664).
//!
//! What is named twice is described once, or a small request could have a very large response.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest,
    DescribeTransactionsResponse, ListTransactionsRequest, ListTransactionsResponse, TransactionalId,
    describe_transactions_response, list_transactions_response,
};
use kafka_protocol::protocol::StrBytes;

use super::config_resource::find_topic;
use super::refused::code_and_message;
use crate::call::{Call, HandlerResult};
use crate::clock::now_ms;
use crate::partition::Partition;
use crate::shared::Shared;
use crate::state::State;
use crate::transaction::Transaction;

/// `TransactionState` of Apache Kafka
const STATES: [&str; 8] = [
    "CompleteAbort",
    "CompleteCommit",
    "Dead",
    "Empty",
    "Ongoing",
    "PrepareAbort",
    "PrepareCommit",
    "PrepareEpochFence",
];

pub fn handle_list_transactions(shared: &Shared, call: &Call) -> HandlerResult {
    let request: ListTransactionsRequest = call.request()?;
    let core = shared.lock();
    let now = now_ms();
    let wanted = |txn: &&Transaction| {
        let started = txn.ongoing().map_or(-1, |ongoing| ongoing.started_ms);
        let state = StrBytes::from_static_str(txn.status.name());
        let producers = &request.producer_id_filters;
        (request.state_filters.is_empty() || request.state_filters.contains(&state))
            && (producers.is_empty() || producers.iter().any(|id| id.0 == txn.producer.id))
            && (request.duration_filter < 0 || now - started > request.duration_filter)
    };
    let transactions = core.state().transactions.iter().filter(|(_, txn)| wanted(txn));
    let listed = transactions.map(|(id, txn)| {
        list_transactions_response::TransactionState::default()
            .with_transactional_id(StrBytes::from_string(id.clone()).into())
            .with_producer_id(txn.producer.id.into())
            .with_transaction_state(StrBytes::from_static_str(txn.status.name()))
    });
    let listed = listed.collect();
    let unknown = request.state_filters.into_iter().filter(|state| !STATES.contains(&state.as_str()));
    let response = ListTransactionsResponse::default()
        .with_unknown_state_filters(unknown.collect())
        .with_transaction_states(listed);
    call.respond(&response)
}

pub fn handle_describe_transactions(shared: &Shared, call: &Call) -> HandlerResult {
    let request: DescribeTransactionsRequest = call.request()?;
    let core = shared.lock();
    let mut named = HashSet::new();
    let ids = request.transactional_ids.into_iter().filter(|id| named.insert(id.clone()));
    let states = ids.map(|id| describe_transaction(core.state(), id));
    call.respond(&DescribeTransactionsResponse::default().with_transaction_states(states.collect()))
}

fn describe_transaction(
    state: &State,
    id: TransactionalId,
) -> describe_transactions_response::TransactionState {
    let found = state.transactions.get(id.as_str());
    let is_empty = id.is_empty();
    let described = describe_transactions_response::TransactionState::default().with_transactional_id(id);
    let Some(txn) = found else {
        let error =
            if is_empty { ResponseError::InvalidRequest } else { ResponseError::TransactionalIdNotFound };
        return described.with_error_code(error.code());
    };
    let described = described
        .with_transaction_state(StrBytes::from_static_str(txn.status.name()))
        .with_transaction_timeout_ms(txn.timeout_ms)
        .with_transaction_start_time_ms(-1)
        .with_producer_id(txn.producer.id.into())
        .with_producer_epoch(txn.producer.epoch);
    let Some(ongoing) = txn.ongoing() else {
        return described;
    };
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in &ongoing.partitions {
        topics.entry(topic).or_default().push(*index);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        describe_transactions_response::TopicData::default()
            .with_topic(StrBytes::from_string(topic.to_owned()).into())
            .with_partitions(partitions)
    });
    described.with_transaction_start_time_ms(ongoing.started_ms).with_topics(topics.collect())
}

pub fn handle_describe_producers(shared: &Shared, call: &Call) -> HandlerResult {
    let request: DescribeProducersRequest = call.request()?;
    let core = shared.lock();
    let mut named = HashSet::new();
    let topics = request.topics.into_iter().map(|topic| {
        let indexes = topic.partition_indexes.iter();
        let indexes = indexes.filter(|index| named.insert((topic.name.clone(), **index)));
        let partitions = indexes.map(|index| {
            let found = find_topic(core.state(), &topic.name).and_then(|topic| {
                topic.partition(*index).ok_or_else(|| ResponseError::UnknownTopicOrPartition.into())
            });
            let (error_code, message) = code_and_message(&found);
            PartitionResponse::default()
                .with_partition_index(*index)
                .with_error_code(error_code)
                .with_error_message(message)
                .with_active_producers(found.map(active_producers).unwrap_or_default())
        });
        TopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    call.respond(&DescribeProducersResponse::default().with_topics(topics.collect()))
}

fn active_producers(partition: &Partition) -> Vec<ProducerState> {
    let described = partition.producers().map(|(id, producer)| {
        ProducerState::default()
            .with_producer_id(id.into())
            .with_producer_epoch(producer.epoch().into())
            .with_last_sequence(producer.last_sequence())
            .with_last_timestamp(producer.last_timestamp)
            .with_coordinator_epoch(if producer.has_marker { 0 } else { -1 })
            .with_current_txn_start_offset(producer.txn_first_offset.unwrap_or(-1))
    });
    described.collect()
}
