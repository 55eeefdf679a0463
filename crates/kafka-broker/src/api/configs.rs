//! Handles DescribeConfigs, and defines the topic configs.
//!
//! All topic configs of Apache Kafka can be set when a topic is created, and are reported. The broker acts only on
//! `max.message.bytes`, `message.timestamp.type`, `cleanup.policy=delete`, `retention.ms` and `retention.bytes`.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::wire::BROKER;
use crate::call::{Call, HandlerResult};
use crate::shared::Shared;
use crate::state::{State, Topic};
use crate::topic_retention::{CLEANUP_POLICY, DEFAULT_RETENTION_MS, RETENTION_BYTES, RETENTION_MS};

const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const MESSAGE_TIMESTAMP_TYPE: &str = "message.timestamp.type";
/// One MiB plus the overhead of a batch.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;

const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;

// `DescribeConfigsResponse.ConfigSource`
const DYNAMIC_TOPIC_CONFIG: i8 = 1;
const STATIC_BROKER_CONFIG: i8 = 4;
const DEFAULT_CONFIG: i8 = 5;

/// `DescribeConfigsResponse.ConfigType`
#[derive(Clone, Copy)]
enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

use Kind::{Boolean, Double, Int, List, Long, String as Text};

/// Topic configs with their defaults.
const TOPIC_CONFIGS: [(&str, Kind, &str); 30] = [
    (CLEANUP_POLICY, List, "delete"),
    ("compression.gzip.level", Int, "-1"),
    ("compression.lz4.level", Int, "9"),
    ("compression.type", Text, "producer"),
    ("compression.zstd.level", Int, "3"),
    ("delete.retention.ms", Long, "86400000"),
    ("file.delete.delay.ms", Long, "60000"),
    ("flush.messages", Long, "9223372036854775807"),
    ("flush.ms", Long, "9223372036854775807"),
    ("follower.replication.throttled.replicas", List, ""),
    ("index.interval.bytes", Int, "4096"),
    ("leader.replication.throttled.replicas", List, ""),
    ("local.retention.bytes", Long, "-2"),
    ("local.retention.ms", Long, "-2"),
    ("max.compaction.lag.ms", Long, "9223372036854775807"),
    (MAX_MESSAGE_BYTES, Int, "1048588"),
    ("message.timestamp.after.max.ms", Long, "9223372036854775807"),
    ("message.timestamp.before.max.ms", Long, "9223372036854775807"),
    (MESSAGE_TIMESTAMP_TYPE, Text, "CreateTime"),
    ("min.cleanable.dirty.ratio", Double, "0.5"),
    ("min.compaction.lag.ms", Long, "0"),
    ("min.insync.replicas", Int, "1"),
    ("preallocate", Boolean, "false"),
    ("remote.storage.enable", Boolean, "false"),
    (RETENTION_BYTES, Long, "-1"),
    (RETENTION_MS, Long, DEFAULT_RETENTION_MS),
    ("segment.bytes", Int, "1073741824"),
    ("segment.index.bytes", Int, "10485760"),
    ("segment.jitter.ms", Long, "0"),
    ("segment.ms", Long, "604800000"),
];

const BROKER_CONFIGS: [(&str, Kind, &str); 6] = [
    ("auto.create.topics.enable", Boolean, "false"),
    ("broker.id", Int, "1"),
    ("default.replication.factor", Int, "1"),
    ("message.max.bytes", Int, "1048588"),
    ("num.partitions", Int, "3"),
    ("transaction.max.timeout.ms", Int, "900000"),
];

/// Returns the maximum size of a batch in bytes.
pub fn max_message_bytes(topic: &Topic) -> usize {
    let own = topic.configs.get(MAX_MESSAGE_BYTES);
    own.and_then(|value| value.parse().ok()).unwrap_or(DEFAULT_MAX_MESSAGE_BYTES)
}

/// Returns whether the time of the append replaces the producer's timestamps.
pub fn has_log_append_time(topic: &Topic) -> bool {
    topic.configs.get(MESSAGE_TIMESTAMP_TYPE).is_some_and(|kind| kind == "LogAppendTime")
}

/// Checks name and value of a topic config.
pub fn check(name: &str, value: Option<&str>) -> Result<(), String> {
    let known = TOPIC_CONFIGS.iter().find(|(known, ..)| *known == name);
    let (_, kind, _) = known.ok_or_else(|| format!("Unknown topic config name: {name}"))?;
    let value = value.ok_or_else(|| format!("Null value not supported for topic configs: {name}"))?;
    let valid = match kind {
        Boolean => value.parse::<bool>().is_ok(),
        Int => value.parse::<i32>().is_ok(),
        Long => value.parse::<i64>().is_ok(),
        Double => value.parse::<f64>().is_ok(),
        Text if name == MESSAGE_TIMESTAMP_TYPE => matches!(value, "CreateTime" | "LogAppendTime"),
        List | Text => true,
    };
    if valid { Ok(()) } else { Err(format!("Invalid value {value} for configuration {name}")) }
}

pub fn handle_describe_configs(shared: &Shared, call: &Call) -> HandlerResult {
    let request: DescribeConfigsRequest = call.request()?;
    let core = shared.lock();
    let results = request.resources.into_iter().map(|resource| {
        let described = describe_resource(core.state(), &resource, request.include_synonyms);
        let error = described.as_ref().err().copied();
        DescribeConfigsResult::default()
            .with_error_code(error.map_or(0, |error| error.code()))
            .with_error_message(error.map(|error| error.to_string().into()))
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_configs(described.unwrap_or_default())
    });
    call.respond(&DescribeConfigsResponse::default().with_results(results.collect()))
}

fn describe_resource(
    state: &State,
    resource: &DescribeConfigsResource,
    synonyms: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, ResponseError> {
    let wanted = |name: &str| {
        let keys = resource.configuration_keys.as_ref();
        keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
    };
    match resource.resource_type {
        TOPIC_RESOURCE => {
            let topic = state.topics.get(resource.resource_name.as_str());
            let topic = topic.ok_or(ResponseError::UnknownTopicOrPartition)?;
            let configs = TOPIC_CONFIGS.into_iter().filter(|(name, ..)| wanted(name));
            Ok(configs
                .map(|(name, kind, default)| match topic.configs.get(name) {
                    Some(own) => config(name, kind, own, DYNAMIC_TOPIC_CONFIG, synonyms),
                    None => config(name, kind, default, DEFAULT_CONFIG, synonyms),
                })
                .collect())
        }
        BROKER_RESOURCE if resource.resource_name.as_str() == BROKER.0.to_string() => {
            let configs = BROKER_CONFIGS.into_iter().filter(|(name, ..)| wanted(name));
            Ok(configs
                .map(|(name, kind, value)| config(name, kind, value, STATIC_BROKER_CONFIG, synonyms))
                .map(|config| config.with_read_only(true))
                .collect())
        }
        _ => Err(ResponseError::InvalidRequest),
    }
}

fn config(
    name: &'static str,
    kind: Kind,
    value: &str,
    source: i8,
    synonyms: bool,
) -> DescribeConfigsResourceResult {
    let name = StrBytes::from_static_str(name);
    let value = Some(StrBytes::from_string(value.to_owned()));
    let synonym = DescribeConfigsSynonym::default()
        .with_name(name.clone())
        .with_value(value.clone())
        .with_source(source);
    DescribeConfigsResourceResult::default()
        .with_name(name)
        .with_value(value)
        .with_config_source(source)
        .with_config_type(kind as i8)
        .with_synonyms(if synonyms { vec![synonym] } else { Vec::new() })
}
