//! Checks how configs are described and altered.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, MetadataRequest,
    alter_configs_request, incremental_alter_configs_request,
};

use crate::harness::{bootstrap, configured_topic, eventually, is_kafka_4, unique};
use crate::raw::{Raw, text};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const GROUP: i8 = 32;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

const INVALID_CONFIG: i16 = ResponseError::InvalidConfig.code();
const INVALID_REQUEST: i16 = ResponseError::InvalidRequest.code();
const UNKNOWN_TOPIC: i16 = ResponseError::UnknownTopicOrPartition.code();

/// Sends one request of changes to one resource, and returns the error code.
pub fn alter(raw: &mut Raw, kind: i8, name: &str, changes: &[(i8, &str, Option<&str>)]) -> i16 {
    alter_codes(raw, 1, &[(kind, name, changes)], false)[0]
}

type Changes<'a> = (i8, &'a str, &'a [(i8, &'a str, Option<&'a str>)]);

fn alter_codes(raw: &mut Raw, version: i16, resources: &[Changes], validate_only: bool) -> Vec<i16> {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let resources = resources.iter().map(|(kind, name, changes)| {
        let configs = changes.iter().map(|(operation, name, value)| {
            AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(*operation)
                .with_value(value.map(text))
        });
        AlterConfigsResource::default()
            .with_resource_type(*kind)
            .with_resource_name(text(name))
            .with_configs(configs.collect())
    });
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(resources.collect())
        .with_validate_only(validate_only);
    raw.call(version, &request).responses.iter().map(|response| response.error_code).collect()
}

/// Replaces all configs of a topic, and returns the error code.
fn replace(raw: &mut Raw, version: i16, topic: &str, configs: &[(&str, Option<&str>)]) -> i16 {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let configs = configs
        .iter()
        .map(|(name, value)| AlterableConfig::default().with_name(text(name)).with_value(value.map(text)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic))
        .with_configs(configs.collect());
    raw.call(version, &AlterConfigsRequest::default().with_resources(vec![resource])).responses[0].error_code
}

fn describe(raw: &mut Raw, kind: i8, name: &str) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request =
        DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true);
    raw.call(4, &request).results[0].clone()
}

/// Returns a connection to a broker that knows the topic.
pub fn connect_for(topic: &str) -> Raw {
    let mut raw = Raw::connect();
    eventually("the topic is known", || (describe(&mut raw, TOPIC, topic).error_code == 0).then_some(()));
    raw
}

/// Returns the values of a topic's configs.
fn values(raw: &mut Raw, topic: &str) -> BTreeMap<String, String> {
    let values = describe(raw, TOPIC, topic).configs.into_iter().map(|config| {
        let value = config.value.unwrap_or_default();
        (config.name.to_string(), value.to_string())
    });
    values.collect()
}

/// Returns the configs that are set on the topic.
pub fn own(raw: &mut Raw, topic: &str) -> Vec<(String, String)> {
    const DYNAMIC_TOPIC_CONFIG: i8 = 1;
    let described = describe(raw, TOPIC, topic).configs.into_iter();
    let own = described.filter(|config| config.config_source == DYNAMIC_TOPIC_CONFIG);
    let mut own: Vec<_> =
        own.map(|config| (config.name.to_string(), config.value.unwrap_or_default().to_string())).collect();
    own.sort();
    own
}

/// Waits until the broker knows that these are the configs that are set on the topic.
fn expect_own(raw: &mut Raw, topic: &str, expected: &[(&str, &str)]) {
    let expected = pairs(expected);
    eventually(&format!("{expected:?}"), || (own(raw, topic) == expected).then_some(()));
}

/// Returns the number of the configs that a topic has.
fn config_count() -> usize {
    if is_kafka_4() { 37 } else { 36 }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_config_is_set_and_deleted_and_the_others_remain() {
    let topic = configured_topic(&[("cleanup.policy", "compact")]);
    let mut raw = connect_for(&topic);
    let set = [(SET, "retention.ms", Some("1000")), (SET, "segment.ms", Some("2000"))];
    assert_eq!(alter(&mut raw, TOPIC, &topic, &set), 0);
    let expected = [("cleanup.policy", "compact"), ("retention.ms", "1000"), ("segment.ms", "2000")];
    expect_own(&mut raw, &topic, &expected);
    let delete = [(DELETE, "retention.ms", None), (DELETE, "flush.ms", None), (SET, "segment.ms", Some("3"))];
    assert_eq!(alter(&mut raw, TOPIC, &topic, &delete), 0);
    expect_own(&mut raw, &topic, &[("cleanup.policy", "compact"), ("segment.ms", "3")]);
}

#[test]
fn elements_are_appended_to_lists_and_subtracted() {
    let topic = configured_topic(&[]);
    let mut raw = connect_for(&topic);
    for (operation, element, policy) in [
        (APPEND, "compact", "delete,compact"),
        (APPEND, "compact", "delete,compact"),
        (SUBTRACT, "delete", "compact"),
    ] {
        assert_eq!(alter(&mut raw, TOPIC, &topic, &[(operation, "cleanup.policy", Some(element))]), 0);
        expect_own(&mut raw, &topic, &[("cleanup.policy", policy)]);
    }
    let refused = alter(&mut raw, TOPIC, &topic, &[(APPEND, "retention.ms", Some("1"))]);
    assert_eq!(refused, INVALID_CONFIG);
}

#[test]
fn altering_without_increments_replaces_all_configs_at_each_version() {
    let topic = configured_topic(&[("cleanup.policy", "compact")]);
    let mut raw = connect_for(&topic);
    for (version, value) in [(0, "1000"), (1, "2000"), (2, "3000")] {
        assert_eq!(replace(&mut raw, version, &topic, &[("retention.ms", Some(value))]), 0);
        expect_own(&mut raw, &topic, &[("retention.ms", value)]);
    }
    assert_eq!(replace(&mut raw, 2, &topic, &[("retention.ms", None)]), INVALID_REQUEST);
    assert_eq!(replace(&mut raw, 2, &topic, &[("retention.ms", Some("x"))]), INVALID_CONFIG);
    assert_eq!(replace(&mut raw, 2, &unique("unknown"), &[]), UNKNOWN_TOPIC);
    assert_eq!(own(&mut raw, &topic), pairs(&[("retention.ms", "3000")]));
    assert_eq!(replace(&mut raw, 2, &topic, &[]), 0);
    expect_own(&mut raw, &topic, &[]);
}

#[test]
fn changes_that_are_refused_or_only_validated_change_nothing() {
    let topic = configured_topic(&[]);
    let mut raw = connect_for(&topic);
    let valid: &[_] = &[(SET, "retention.ms", Some("1000"))];
    for version in 0..=1 {
        assert_eq!(alter_codes(&mut raw, version, &[(TOPIC, &topic, valid)], true), [0]);
    }
    let twice = [(TOPIC, topic.as_str(), valid), (TOPIC, topic.as_str(), valid)];
    assert_eq!(alter_codes(&mut raw, 1, &twice, false), [INVALID_REQUEST; 2]);
    for (changes, code) in [
        (&[(SET, "retention.ms", Some("1")), (SET, "retention.ms", Some("2"))][..], INVALID_REQUEST),
        (&[(SET, "retention.ms", None)], INVALID_REQUEST),
        (&[(SET, "retention.ms", Some("1")), (SET, "no.such.config", Some("1"))], INVALID_CONFIG),
        (&[(SET, "retention.ms", Some("1")), (SET, "segment.ms", Some("0"))], INVALID_CONFIG),
    ] {
        assert_eq!(alter(&mut raw, TOPIC, &topic, changes), code, "{changes:?}");
    }
    assert_eq!(alter(&mut raw, TOPIC, &unique("unknown"), valid), UNKNOWN_TOPIC);
    assert_eq!(alter(&mut raw, TOPIC, "", valid), INVALID_REQUEST);
    assert_eq!(alter(&mut raw, 99, "x", valid), INVALID_REQUEST);
    assert_eq!(own(&mut raw, &topic), []);
}

#[test]
fn all_topic_configs_are_described() {
    let topic = configured_topic(&[]);
    let mut raw = connect_for(&topic);
    let names: Vec<String> = values(&mut raw, &topic).into_keys().collect();
    assert_eq!(names.len(), config_count(), "{names:?}");
    for (name, default) in [
        ("unclean.leader.election.enable", "false"),
        ("compression.zstd.level", "3"),
        ("remote.log.copy.disable", "false"),
    ] {
        assert_eq!(values(&mut raw, &topic)[name], default, "{name}");
    }
    for (name, default) in [
        ("message.downconversion.enable", "true"),
        ("message.timestamp.difference.max.ms", "9223372036854775807"),
    ] {
        let value = values(&mut raw, &topic).remove(name);
        assert_eq!(value.as_deref(), (!is_kafka_4()).then_some(default), "{name}");
    }
    let described = describe(&mut raw, TOPIC, &topic).configs;
    let policy = described.iter().find(|config| config.name.as_str() == "cleanup.policy").unwrap();
    let synonyms: Vec<_> = policy.synonyms.iter().map(|synonym| synonym.name.as_str()).collect();
    assert_eq!(synonyms, ["log.cleanup.policy"]);
}

#[test]
fn values_are_accepted_and_described_in_their_normal_form() {
    for (name, value, normal) in [
        ("preallocate", "TRUE", "true"),
        ("retention.ms", " 5 ", "5"),
        ("cleanup.policy", "compact , delete", "compact,delete"),
        ("min.cleanable.dirty.ratio", "1", "1.0"),
        ("unclean.leader.election.enable", "true", "true"),
        ("compression.gzip.level", "9", "9"),
        ("follower.replication.throttled.replicas", "0:1,1:2", "0:1,1:2"),
        ("local.retention.ms", "-2", "-2"),
    ] {
        let topic = configured_topic(&[(name, value)]);
        assert_eq!(values(&mut connect_for(&topic), &topic)[name], normal, "{name}={value}");
    }
}

#[test]
fn the_configs_that_kafka_4_removed_are_accepted_before_it() {
    let topic = configured_topic(&[]);
    let mut raw = connect_for(&topic);
    for (name, value) in
        [("message.downconversion.enable", "false"), ("message.timestamp.difference.max.ms", "0")]
    {
        let code = alter(&mut raw, TOPIC, &topic, &[(SET, name, Some(value))]);
        assert_eq!(code, if is_kafka_4() { INVALID_CONFIG } else { 0 }, "{name}");
        let own = if is_kafka_4() { &[][..] } else { &[(name, value)] };
        expect_own(&mut raw, &topic, own);
        assert_eq!(replace(&mut raw, 2, &topic, &[]), 0);
        expect_own(&mut raw, &topic, &[]);
    }
}

#[test]
fn values_of_the_wrong_type_or_out_of_range_are_refused() {
    let topic = configured_topic(&[]);
    let mut raw = connect_for(&topic);
    for (name, value) in [
        ("cleanup.policy", "foo"),
        ("cleanup.policy", "compact,foo"),
        ("retention.ms", "-5"),
        ("retention.ms", "1.5"),
        ("min.insync.replicas", "0"),
        ("segment.bytes", "13"),
        ("segment.bytes", "99999999999"),
        ("preallocate", "1"),
        ("min.cleanable.dirty.ratio", "-0.1"),
        ("compression.type", "brotli"),
        ("compression.lz4.level", "0"),
        ("message.timestamp.type", "createtime"),
        ("message.format.version", "banana"),
        ("leader.replication.throttled.replicas", "1"),
        ("local.retention.bytes", "-3"),
        ("max.compaction.lag.ms", "0"),
        ("remote.storage.enable", "true"),
    ] {
        let refused = alter(&mut raw, TOPIC, &topic, &[(SET, name, Some(value))]);
        assert_eq!(refused, INVALID_CONFIG, "{name}={value}");
    }
    let lags = [(SET, "min.compaction.lag.ms", Some("2")), (SET, "max.compaction.lag.ms", Some("1"))];
    assert_eq!(alter(&mut raw, TOPIC, &topic, &lags), INVALID_CONFIG);
    assert_eq!(own(&mut raw, &topic), []);
}

#[test]
fn brokers_and_their_loggers_are_described() {
    let mut raw = Raw::connect();
    let metadata = raw.call(9, &MetadataRequest::default().with_topics(Some(Vec::new())));
    let port: i32 = bootstrap().split(',').next().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
    let own = metadata.brokers.iter().find(|broker| broker.port == port).unwrap();
    let id = own.node_id.0.to_string();

    let described = describe(&mut raw, BROKER, &id);
    assert_eq!(described.error_code, 0);
    let configs = &described.configs;
    let broker_id = configs.iter().find(|config| config.name.as_str() == "broker.id").unwrap();
    assert!(broker_id.read_only);
    assert_eq!(broker_id.value.as_ref().unwrap().as_str(), id);
    let defaults = describe(&mut raw, BROKER, "");
    let names: Vec<_> = defaults.configs.iter().map(|config| config.name.as_str()).collect();
    // Kafka 4 sets it when the cluster is formatted.
    let expected = if is_kafka_4() { &["min.insync.replicas"][..] } else { &[] };
    assert_eq!((defaults.error_code, &names[..]), (0, expected));
    let loggers = describe(&mut raw, BROKER_LOGGER, &id);
    assert_eq!(loggers.error_code, 0);
    assert!(loggers.configs.iter().any(|logger| logger.name.as_str() == "root"));
    for (kind, name) in
        [(BROKER, "999"), (BROKER, "x"), (BROKER_LOGGER, "999"), (BROKER_LOGGER, ""), (GROUP, ""), (99, "x")]
    {
        assert_eq!(describe(&mut raw, kind, name).error_code, INVALID_REQUEST, "{kind} {name}");
    }
    // Groups have configs since Kafka 4, whether they exist or not.
    let group = describe(&mut raw, GROUP, &unique("group"));
    let timeout = group.configs.iter().any(|config| config.name.as_str() == "consumer.session.timeout.ms");
    let expected = if is_kafka_4() { (0, true) } else { (INVALID_REQUEST, false) };
    assert_eq!((group.error_code, timeout), expected);
    assert_eq!(describe(&mut raw, TOPIC, &unique("unknown")).error_code, UNKNOWN_TOPIC);
    let invalid = describe(&mut raw, TOPIC, "a b").error_code;
    assert_eq!(invalid, ResponseError::InvalidTopicException.code());

    let fixed = [(SET, "broker.id", Some("7"))];
    assert_eq!(alter(&mut raw, BROKER, &id, &fixed), INVALID_REQUEST);
    assert_eq!(alter(&mut raw, BROKER, "", &fixed), INVALID_REQUEST);
    assert_eq!(alter(&mut raw, BROKER, "999", &[]), INVALID_REQUEST);
    assert_eq!(alter(&mut raw, BROKER, &id, &[]), 0);
}

#[test]
fn only_the_named_configs_are_described() {
    let topic = configured_topic(&[]);
    let mut raw = connect_for(&topic);
    for (keys, count) in
        [(Some(vec![text("retention.ms"), text("no.such.config")]), 1), (Some(vec![]), config_count())]
    {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(&topic))
            .with_configuration_keys(keys);
        let response = raw.call(4, &DescribeConfigsRequest::default().with_resources(vec![resource]));
        let configs = &response.results[0].configs;
        assert_eq!(configs.len(), count);
        assert!(configs.iter().all(|config| config.synonyms.is_empty()));
    }
}
