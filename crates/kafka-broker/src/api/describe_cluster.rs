//! Handles DescribeCluster and DescribeLogDirs.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeClusterResponse, DescribeLogDirsRequest, DescribeLogDirsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::wire::{BROKER, CLUSTER_OPERATIONS};
use crate::call::{Call, HandlerResult};
use crate::shared::Shared;
use crate::state::Topic;

pub fn handle_describe_cluster(shared: &Shared, call: &Call) -> HandlerResult {
    let request: DescribeClusterRequest = call.request()?;
    const BROKERS: i8 = 1;
    const CONTROLLERS: i8 = 2;
    let refused = |error: ResponseError, message| {
        let error = if call.version == 0 { ResponseError::InvalidRequest } else { error };
        let response = DescribeClusterResponse::default().with_error_code(error.code());
        response.with_error_message(Some(StrBytes::from_static_str(message)))
    };
    let response = match request.endpoint_type {
        BROKERS => {
            let broker = DescribeClusterBroker::default()
                .with_broker_id(BROKER)
                .with_host(shared.address.ip().to_string().into())
                .with_port(shared.address.port().into());
            let response = DescribeClusterResponse::default()
                .with_cluster_id(shared.lock().state().cluster_id.clone().unwrap_or_default().into())
                .with_controller_id(BROKER)
                .with_brokers(vec![broker]);
            match request.include_cluster_authorized_operations {
                true => response.with_cluster_authorized_operations(CLUSTER_OPERATIONS),
                false => response,
            }
        }
        CONTROLLERS => {
            refused(ResponseError::MismatchedEndpointType, "This endpoint is a broker, not a controller.")
        }
        _ => refused(ResponseError::UnsupportedEndpointType, "The endpoint type is unknown."),
    };
    call.respond(&response)
}

/// Describes the one directory, with the bytes of each partition in the journal.
pub fn handle_describe_log_dirs(shared: &Shared, call: &Call) -> HandlerResult {
    let request: DescribeLogDirsRequest = call.request()?;
    let core = shared.lock();
    let topics = &core.state().topics;
    let described = match request.topics {
        None => topics.iter().map(|(name, topic)| describe(name, topic, 0..count(topic))).collect(),
        Some(wanted) => {
            let mut named: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
            for wanted in &wanted {
                named.entry(&wanted.topic).or_default().extend(&wanted.partitions);
            }
            let known = named.into_iter().filter_map(|(name, indexes)| {
                let topic = topics.get(name)?;
                Some(describe(name, topic, indexes.into_iter()))
            });
            known.filter(|topic| !topic.partitions.is_empty()).collect()
        }
    };
    let result = DescribeLogDirsResult::default()
        .with_log_dir(core.log_dir().display().to_string().into())
        .with_topics(described);
    call.respond(&DescribeLogDirsResponse::default().with_results(vec![result]))
}

fn count(topic: &Topic) -> i32 {
    topic.partitions.len() as i32
}

fn describe(name: &str, topic: &Topic, indexes: impl Iterator<Item = i32>) -> DescribeLogDirsTopic {
    let partitions = indexes.filter_map(|index| {
        let partition = topic.partition(index)?;
        let described = DescribeLogDirsPartition::default().with_partition_index(index);
        Some(described.with_partition_size(partition.size()))
    });
    DescribeLogDirsTopic::default()
        .with_name(StrBytes::from_string(name.to_owned()).into())
        .with_partitions(partitions.collect())
}
