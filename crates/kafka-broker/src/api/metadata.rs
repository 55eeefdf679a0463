//! Handles Metadata and FindCoordinator.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::admin::check_topic_name;
use super::wire::{BROKER, CLUSTER_OPERATIONS, TOPIC_OPERATIONS};
use crate::batch::LEADER_EPOCH;
use crate::call::{Call, HandlerResult};
use crate::shared::Shared;
use crate::state::{State, Topic};

/// Describes topics and the broker. Never creates a topic, even if the client allows it.
pub fn handle_metadata(shared: &Shared, call: &Call) -> HandlerResult {
    let request: MetadataRequest = call.request()?;
    let core = shared.lock();
    let state = core.state();
    // At version 0 an empty list means all topics.
    let named = request.topics.filter(|topics| call.version > 0 || !topics.is_empty());
    let mut topics = match named {
        Some(named) if !is_valid(&named, call.version) => {
            let refused = MetadataResponse::default().with_topics(refuse_all(named));
            return call.respond(&refused);
        }
        Some(named) => describe_all(state, named),
        None => {
            let all = state.topics.iter();
            all.map(|(name, topic)| known_topic(name.clone().into(), topic)).collect()
        }
    };
    if request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.name.is_some()) {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let broker = MetadataResponseBroker::default()
        .with_node_id(BROKER)
        .with_host(shared.address.ip().to_string().into())
        .with_port(shared.address.port().into());
    let mut response = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(state.cluster_id.clone().map(StrBytes::from_string))
        .with_controller_id(BROKER)
        .with_topics(topics);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    call.respond(&response)
}

/// Returns whether all topics are identified as the version allows: by name, or from version 12 on by id.
fn is_valid(wanted: &[MetadataRequestTopic], version: i16) -> bool {
    version >= 12 || wanted.iter().all(|topic| topic.name.is_some() && topic.topic_id.is_nil())
}

fn refuse_all(wanted: Vec<MetadataRequestTopic>) -> Vec<MetadataResponseTopic> {
    let refused = wanted.into_iter().map(|topic| {
        MetadataResponseTopic::default()
            .with_name(Some(topic.name.unwrap_or_default()))
            .with_topic_id(topic.topic_id)
            .with_error_code(ResponseError::InvalidRequest.code())
    });
    refused.collect()
}

/// Describes these topics, each once. If one is identified by its id, those identified by their names are left out
/// (`KafkaApis.handleTopicMetadataRequest`).
fn describe_all(state: &State, wanted: Vec<MetadataRequestTopic>) -> Vec<MetadataResponseTopic> {
    if wanted.iter().all(|topic| topic.topic_id.is_nil()) {
        let names: BTreeSet<TopicName> =
            wanted.into_iter().map(|topic| topic.name.unwrap_or_default()).collect();
        return names.into_iter().map(|name| named_topic(state, name)).collect();
    }
    let ids = wanted.into_iter().map(|topic| topic.topic_id);
    let ids: BTreeSet<Uuid> = ids.filter(|id| !id.is_nil()).collect();
    ids.into_iter().map(|id| identified_topic(state, id)).collect()
}

fn identified_topic(state: &State, id: Uuid) -> MetadataResponseTopic {
    match state.topic_name(id) {
        Some(name) => named_topic(state, StrBytes::from_string(name.to_owned()).into()),
        None => MetadataResponseTopic::default()
            .with_name(None)
            .with_topic_id(id)
            .with_error_code(ResponseError::UnknownTopicId.code()),
    }
}

fn named_topic(state: &State, name: TopicName) -> MetadataResponseTopic {
    if let Some(topic) = state.topics.get(name.as_str()) {
        return known_topic(name.0, topic);
    }
    let error = if check_topic_name(&name).is_ok() {
        ResponseError::UnknownTopicOrPartition
    } else {
        ResponseError::InvalidTopicException
    };
    MetadataResponseTopic::default().with_name(Some(name)).with_error_code(error.code())
}

fn known_topic(name: StrBytes, topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..topic.partitions.len()).map(|index| {
        MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(BROKER)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![BROKER])
            .with_isr_nodes(vec![BROKER])
    });
    MetadataResponseTopic::default()
        .with_name(Some(name.into()))
        .with_topic_id(topic.id)
        .with_partitions(partitions.collect())
}

/// Names the coordinator of one key, or from version 4 on of several (KIP-699).
pub fn handle_find_coordinator(shared: &Shared, call: &Call) -> HandlerResult {
    let request: FindCoordinatorRequest = call.request()?;
    let coordinator = coordinator(shared, request.key_type);
    let response = if call.version >= 4 {
        let keys = request.coordinator_keys.into_iter();
        let coordinators = keys.map(|key| coordinator.clone().with_key(key));
        FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
    } else {
        FindCoordinatorResponse::default()
            .with_error_code(coordinator.error_code)
            .with_node_id(coordinator.node_id)
            .with_host(coordinator.host)
            .with_port(coordinator.port)
    };
    call.respond(&response)
}

fn coordinator(shared: &Shared, key_type: i8) -> Coordinator {
    const GROUP: i8 = 0;
    const TRANSACTION: i8 = 1;
    match key_type {
        GROUP | TRANSACTION => Coordinator::default()
            .with_node_id(BROKER)
            .with_host(shared.address.ip().to_string().into())
            .with_port(shared.address.port().into()),
        _ => Coordinator::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_node_id((-1).into())
            .with_port(-1),
    }
}
