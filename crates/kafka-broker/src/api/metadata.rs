//! Handles Metadata and FindCoordinator.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::admin::check_topic_name;
use super::wire::BROKER;
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
    let topics = match named {
        Some(named) => {
            let names = named.into_iter().map(|topic| topic.name.unwrap_or_default());
            names.map(|name| named_topic(state, name)).collect()
        }
        None => {
            let all = state.topics.iter();
            all.map(|(name, topic)| known_topic(name.clone().into(), topic)).collect()
        }
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(BROKER)
        .with_host(shared.address.ip().to_string().into())
        .with_port(shared.address.port().into());
    let response = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(state.cluster_id.clone().map(StrBytes::from_string))
        .with_controller_id(BROKER)
        .with_topics(topics);
    call.respond(&response)
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
    MetadataResponseTopic::default().with_name(Some(name.into())).with_partitions(partitions.collect())
}

pub fn handle_find_coordinator(shared: &Shared, call: &Call) -> HandlerResult {
    let request: FindCoordinatorRequest = call.request()?;
    const GROUP: i8 = 0;
    const TRANSACTION: i8 = 1;
    let response = match request.key_type {
        GROUP | TRANSACTION => FindCoordinatorResponse::default()
            .with_node_id(BROKER)
            .with_host(shared.address.ip().to_string().into())
            .with_port(shared.address.port().into()),
        _ => FindCoordinatorResponse::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_node_id((-1).into())
            .with_port(-1),
    };
    call.respond(&response)
}
