//! Handles DescribeConfigs, and defines the configs of the broker, which are fixed.

use std::collections::HashSet;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;
use tracing::level_filters::LevelFilter;

use super::config_resource::{ConfigResource, find_topic};
use super::refused::{Refused, code_and_message};
use crate::call::{Call, HandlerResult};
use crate::shared::Shared;
use crate::state::State;
use crate::topic_configs::Kind::{self, Boolean, Int, Long, Text};

// `DescribeConfigsResponse.ConfigSource`
pub const DYNAMIC_TOPIC_CONFIG: i8 = 1;
const STATIC_BROKER_CONFIG: i8 = 4;
pub const DEFAULT_CONFIG: i8 = 5;
const DYNAMIC_BROKER_LOGGER_CONFIG: i8 = 6;

/// Configs of the broker. The version is that of the Apache Kafka whose behaviour it follows, which some UIs read here.
const BROKER_CONFIGS: [(&str, Kind, &str); 16] = [
    ("auto.create.topics.enable", Boolean, "false"),
    ("broker.id", Int, "1"),
    ("default.replication.factor", Int, "1"),
    ("delete.topic.enable", Boolean, "true"),
    ("fetch.max.bytes", Int, "57671680"),
    ("group.initial.rebalance.delay.ms", Int, "100"),
    ("group.max.session.timeout.ms", Int, "1800000"),
    ("group.min.session.timeout.ms", Int, "6000"),
    ("inter.broker.protocol.version", Text, "3.9-IV0"),
    ("log.retention.bytes", Long, "-1"),
    ("log.retention.ms", Long, "604800000"),
    ("message.max.bytes", Int, "1048588"),
    ("num.partitions", Int, "3"),
    ("offset.metadata.max.bytes", Int, "4096"),
    ("socket.request.max.bytes", Int, "104857600"),
    ("transaction.max.timeout.ms", Int, "900000"),
];

pub fn handle_describe_configs(shared: &Shared, call: &Call) -> HandlerResult {
    let request: DescribeConfigsRequest = call.request()?;
    let core = shared.lock();
    // A resource is described once, or a small request that repeats it would have a very large response.
    let mut named = HashSet::new();
    let resources = request.resources.into_iter();
    let resources =
        resources.filter(|resource| named.insert((resource.resource_type, resource.resource_name.clone())));
    let results = resources.map(|resource| {
        let described = describe(core.state(), &resource);
        let (error_code, message) = code_and_message(&described);
        let mut configs = described.unwrap_or_default();
        if let Some(keys) = resource.configuration_keys.filter(|keys| !keys.is_empty()) {
            configs.retain(|config| keys.contains(&config.name));
        }
        if !request.include_synonyms {
            configs.iter_mut().for_each(|config| config.synonyms.clear());
        }
        DescribeConfigsResult::default()
            .with_error_code(error_code)
            .with_error_message(message)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_configs(configs)
    });
    call.respond(&DescribeConfigsResponse::default().with_results(results.collect()))
}

fn describe(
    state: &State,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    Ok(match ConfigResource::new(resource.resource_type, &resource.resource_name)? {
        ConfigResource::Topic(name) => topic_configs(state, name)?,
        ConfigResource::Broker => {
            let configs = BROKER_CONFIGS.into_iter();
            configs
                .map(|(name, kind, value)| {
                    config(name, kind, value, vec![synonym(name, value, STATIC_BROKER_CONFIG)])
                        .with_read_only(true)
                })
                .collect()
        }
        ConfigResource::BrokerLogger => {
            let level = LevelFilter::current().to_string().to_uppercase();
            vec![config("root", Text, &level, Vec::new()).with_config_source(DYNAMIC_BROKER_LOGGER_CONFIG)]
        }
        ConfigResource::BrokerDefaults => Vec::new(),
    })
}

fn topic_configs(state: &State, name: &str) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    let configs = find_topic(state, name)?.configs.all();
    let described = configs.map(|(key, value, is_set)| {
        let own = is_set.then(|| synonym(key.name, value, DYNAMIC_TOPIC_CONFIG));
        let has_default = !key.broker_name.is_empty();
        let default = has_default.then(|| synonym(key.broker_name, key.default, DEFAULT_CONFIG));
        config(key.name, key.kind, value, own.into_iter().chain(default).collect())
    });
    Ok(described.collect())
}

/// Describes a config. Its source is that of the first synonym, which defines its value.
fn config(
    name: &'static str,
    kind: Kind,
    value: &str,
    synonyms: Vec<DescribeConfigsSynonym>,
) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(name))
        .with_value(Some(StrBytes::from_string(value.to_owned())))
        .with_config_source(synonyms.first().map_or(DEFAULT_CONFIG, |first| first.source))
        .with_config_type(kind as i8)
        .with_documentation(None)
        .with_synonyms(synonyms)
}

fn synonym(name: &'static str, value: &str, source: i8) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default()
        .with_name(StrBytes::from_static_str(name))
        .with_value(Some(StrBytes::from_string(value.to_owned())))
        .with_source(source)
}
