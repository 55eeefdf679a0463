//! Handles CreateTopics and CreatePartitions.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::describe_configs::{DEFAULT_CONFIG, DYNAMIC_TOPIC_CONFIG};
use super::refused::{Refused, code_and_message, refused};
use super::wire::BROKER;
use crate::call::{Call, HandlerResult};
use crate::core::Core;
use crate::entry::Entry;
use crate::ids;
use crate::shared::Shared;
use crate::topic_configs::{self, TopicConfigs};

/// `num.partitions`
const DEFAULT_PARTITIONS: i32 = 3;
/// Largest number of partitions that one request may create (`QuorumController.MAX_RECORDS_PER_USER_OP`).
const MAX_PARTITIONS: i64 = 10_000;
const TOO_MANY_PARTITIONS: &str = "The request creates more than 10000 partitions.";
const MAX_NAME: usize = 249;

/// Checks a topic name by Kafka's rules (`org.apache.kafka.common.internals.Topic.validate`).
pub fn check_topic_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        Err("the empty string is not allowed".to_owned())
    } else if name == "." || name == ".." {
        Err(format!("'{name}' is not allowed"))
    } else if name.len() > MAX_NAME {
        Err(format!("the length of '{name}' is longer than {MAX_NAME}"))
    } else if !name.chars().all(legal) {
        Err(format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ))
    } else {
        Ok(())
    }
}

pub fn handle_create_topics(shared: &Shared, call: &Call) -> HandlerResult {
    let request: CreateTopicsRequest = call.request()?;
    let mut core = shared.lock();
    let mut named: HashMap<_, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_default() += 1;
    }
    let too_many = exceeds_limit(request.topics.iter().map(requested_partitions));
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let created = match named.get(&topic.name) {
            Some(1) if too_many => refused(ResponseError::PolicyViolation, TOO_MANY_PARTITIONS),
            Some(1) => create_topic(&mut core, topic, request.validate_only),
            _ => refused(ResponseError::InvalidRequest, "The topic is named more than once."),
        };
        let (error_code, message) = code_and_message(&created);
        let result = CreatableTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(error_code)
            .with_error_message(message);
        results.push(match created {
            Ok((partitions, configs, id)) => result
                .with_topic_id(id)
                .with_num_partitions(partitions)
                .with_replication_factor(1)
                .with_configs(Some(all_configs(&configs))),
            Err(_) => result.with_num_partitions(-1).with_replication_factor(-1),
        });
    }
    call.respond(&CreateTopicsResponse::default().with_topics(results))
}

fn all_configs(configs: &TopicConfigs) -> Vec<CreatableTopicConfigs> {
    let all = configs.all().map(|(key, value, is_set)| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(key.name))
            .with_value(Some(value.to_owned().into()))
            .with_config_source(if is_set { DYNAMIC_TOPIC_CONFIG } else { DEFAULT_CONFIG })
    });
    all.collect()
}

/// Creates a topic, and returns its number of partitions, configs and id. If the request is only validated, the id is
/// nil.
fn create_topic(
    core: &mut Core,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<(i32, TopicConfigs, Uuid), Refused> {
    let name = &topic.name;
    if let Err(reason) = check_topic_name(name) {
        let message = format!("Topic name is invalid: {reason}");
        return refused(ResponseError::InvalidTopicException, message);
    }
    if core.state().topics.contains_key(name.as_str()) {
        let message = format!("Topic '{}' already exists.", name.as_str());
        return refused(ResponseError::TopicAlreadyExists, message);
    }
    // Kafka's metric names do not distinguish the two characters.
    let plain = name.replace('.', "_");
    if let Some(other) = core.state().topics.keys().find(|other| other.replace('.', "_") == plain) {
        let message = format!("Topic '{}' collides with existing topic: {other}", name.as_str());
        return refused(ResponseError::InvalidTopicException, message);
    }
    let partitions = partition_count(topic)?;
    let configs = checked_configs(topic)?;
    if validate_only {
        return Ok((partitions, TopicConfigs::new(configs), Uuid::nil()));
    }
    let id = ids::topic_id();
    let set = configs.iter().map(|(name, value)| (name.clone().into(), value.clone().into()));
    let set = set.collect();
    core.commit(&Entry::TopicCreated {
        topic: name.0.clone(),
        partitions,
        configs: set,
        topic_id: Some(id),
    })?;
    Ok((partitions, TopicConfigs::new(configs), id))
}

fn checked_configs(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Refused> {
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let message = format!("Null value not supported for topic configs: {}", config.name);
            return refused(ResponseError::InvalidConfig, message);
        };
        configs.insert(config.name.to_string(), value.to_string());
    }
    topic_configs::check(configs).or_else(|message| refused(ResponseError::InvalidConfig, message))
}

fn requested_partitions(topic: &CreatableTopic) -> i64 {
    match (topic.num_partitions, topic.assignments.len()) {
        (-1, 0) => DEFAULT_PARTITIONS.into(),
        (count, 0) => count.max(0).into(),
        (_, assigned) => i64::try_from(assigned).unwrap_or(i64::MAX),
    }
}

/// Returns whether a request would create more partitions than one request may.
fn exceeds_limit(partitions: impl Iterator<Item = i64>) -> bool {
    partitions.fold(0, i64::saturating_add) > MAX_PARTITIONS
}

fn partition_count(topic: &CreatableTopic) -> Result<i32, Refused> {
    let (count, factor) = (topic.num_partitions, topic.replication_factor);
    if !topic.assignments.is_empty() {
        if count != -1 || factor != -1 {
            let message = "Both partitions or replication factor and assignments are set.";
            return refused(ResponseError::InvalidRequest, message);
        }
        let mut assigned = topic.assignments.iter().zip(0..);
        let valid = |(partition, broker_ids): (i32, &[_])| partition >= 0 && *broker_ids == [BROKER];
        if !assigned.all(|(assignment, index)| {
            assignment.partition_index == index && valid((index, &assignment.broker_ids))
        }) {
            let message = "Partitions must count from 0 and have broker 1 as their only replica.";
            return refused(ResponseError::InvalidReplicaAssignment, message);
        }
        return Ok(i32::try_from(topic.assignments.len()).unwrap_or(i32::MAX));
    }
    match factor {
        -1 | 1 => {}
        2.. => {
            let message = format!("Replication factor: {factor} larger than available brokers: 1.");
            return refused(ResponseError::InvalidReplicationFactor, message);
        }
        _ => {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            return refused(ResponseError::InvalidReplicationFactor, message);
        }
    }
    match count {
        -1 => Ok(DEFAULT_PARTITIONS),
        1.. => Ok(count),
        _ => refused(
            ResponseError::InvalidPartitions,
            "Number of partitions must be larger than 0, or -1 to use the default value.",
        ),
    }
}

pub fn handle_create_partitions(shared: &Shared, call: &Call) -> HandlerResult {
    let request: CreatePartitionsRequest = call.request()?;
    let mut core = shared.lock();
    let mut named: HashMap<_, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_default() += 1;
    }
    let added = |topic: &CreatePartitionsTopic| {
        let current = core.state().topics.get(topic.name.as_str()).map_or(0, |topic| topic.partitions.len());
        i64::from(topic.count).saturating_sub(i64::try_from(current).unwrap_or(i64::MAX)).max(0)
    };
    let too_many = exceeds_limit(request.topics.iter().map(added));
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let grown = match named.remove(&topic.name) {
            Some(1) if too_many => refused(ResponseError::PolicyViolation, TOO_MANY_PARTITIONS),
            Some(1) => grow_topic(&mut core, &topic, request.validate_only),
            Some(_) => refused(ResponseError::InvalidRequest, "The topic is named more than once."),
            // The first occurrence got the error.
            None => continue,
        };
        let (error_code, message) = code_and_message(&grown);
        results.push(
            CreatePartitionsTopicResult::default()
                .with_name(topic.name)
                .with_error_code(error_code)
                .with_error_message(message),
        );
    }
    call.respond(&CreatePartitionsResponse::default().with_results(results))
}

fn grow_topic(core: &mut Core, topic: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refused> {
    let Some(current) = core.state().topics.get(topic.name.as_str()) else {
        let message = format!("The topic '{}' does not exist.", topic.name.as_str());
        return refused(ResponseError::UnknownTopicOrPartition, message);
    };
    let current = current.partitions.len() as i32;
    if topic.count <= current {
        let message =
            format!("The topic has {current} partitions; {} would not be an increase.", topic.count);
        return refused(ResponseError::InvalidPartitions, message);
    }
    if let Some(assignments) = &topic.assignments {
        let added = usize::try_from(topic.count - current).unwrap_or_default();
        let valid = assignments.len() == added && assignments.iter().all(|one| one.broker_ids == [BROKER]);
        if !valid {
            let message = "Every added partition must have broker 1 as its only replica.";
            return refused(ResponseError::InvalidReplicaAssignment, message);
        }
    }
    if !validate_only {
        core.commit(&Entry::PartitionsAdded { topic: topic.name.0.clone(), total: topic.count })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_partitions_is_limited_for_a_whole_request() {
        let topic = |count| CreatableTopic::default().with_num_partitions(count);
        let exceeds =
            |counts: &[i32]| exceeds_limit(counts.iter().map(|count| requested_partitions(&topic(*count))));
        assert!(!exceeds(&[10_000]));
        assert!(!exceeds(&[9_997, -1]));
        assert!(exceeds(&[9_998, -1]));
        assert!(exceeds(&[i32::MAX; 3]));
    }

    #[test]
    fn topic_names_follow_the_rules_of_kafka() {
        for good in ["a", "stock.vehicle-created", "A_1", &"x".repeat(249)] {
            assert_eq!(check_topic_name(good), Ok(()));
        }
        for bad in ["", ".", "..", "a b", "ä", "a/b", &"x".repeat(250)] {
            assert!(check_topic_name(bad).is_err(), "{bad}");
        }
    }
}
