//! What clients ask to find their way: ApiVersions, Metadata, FindCoordinator.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{BROKER, admin};
use crate::Shared;
use crate::batch::LEADER_EPOCH;
use crate::connection::APIS;
use crate::state::{State, Topic};

pub fn api_versions() -> ApiVersionsResponse {
    ApiVersionsResponse::default().with_api_keys(APIS.into_iter().map(api_version).collect())
}

/// At version 0, which every client can read, with the range to try again in (KIP-511).
pub fn unsupported_version() -> ApiVersionsResponse {
    let own = APIS.into_iter().filter(|(api, ..)| *api == ApiKey::ApiVersions);
    ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(own.map(api_version).collect())
}

fn api_version((api, lowest, highest): (ApiKey, i16, i16)) -> ApiVersion {
    ApiVersion::default().with_api_key(api as i16).with_min_version(lowest).with_max_version(highest)
}

/// Topics are never created here, whatever the client allows.
pub fn metadata(shared: &Shared, request: MetadataRequest, version: i16) -> MetadataResponse {
    let core = shared.lock();
    let state: &State = &core.store;
    // At version 0 an empty list means all topics.
    let named = request.topics.filter(|topics| version > 0 || !topics.is_empty());
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
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(state.cluster_id.clone().map(StrBytes::from_string))
        .with_controller_id(BROKER)
        .with_topics(topics)
}

fn named_topic(state: &State, name: TopicName) -> MetadataResponseTopic {
    if let Some(topic) = state.topics.get(name.as_str()) {
        return known_topic(name.0, topic);
    }
    let error = match admin::check_name(&name) {
        Ok(()) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
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

pub fn find_coordinator(shared: &Shared, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    const GROUP: i8 = 0;
    const TRANSACTION: i8 = 1;
    match request.key_type {
        GROUP | TRANSACTION => FindCoordinatorResponse::default()
            .with_node_id(BROKER)
            .with_host(shared.address.ip().to_string().into())
            .with_port(shared.address.port().into()),
        _ => FindCoordinatorResponse::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_node_id((-1).into())
            .with_port(-1),
    }
}
