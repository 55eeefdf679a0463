//! Handles CreateTopics and CreatePartitions.

use std::collections::HashMap;

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

use super::configs;
use super::wire::BROKER;
use crate::call::{Call, HandlerResult};
use crate::core::Core;
use crate::entry::Entry;
use crate::ids;
use crate::shared::Shared;

/// `num.partitions`
const DEFAULT_PARTITIONS: i32 = 3;
/// `ReplicationControlManager.MAX_PARTITIONS_PER_BATCH`
const MAX_PARTITIONS: i32 = 10_000;
const MAX_NAME: usize = 249;

pub struct Refused {
    error: ResponseError,
    message: String,
}

pub fn refused<T>(error: ResponseError, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { error, message: message.into() })
}

impl From<ResponseError> for Refused {
    fn from(error: ResponseError) -> Self {
        Self { error, message: error.to_string() }
    }
}

pub fn code_and_message<T>(result: &Result<T, Refused>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(_) => (0, None),
        Err(refused) => (refused.error.code(), Some(refused.message.clone().into())),
    }
}

/// Checks a topic name by Kafka's rules (`org.apache.kafka.common.internals.Topic.validate`).
pub fn check_topic_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        Err("the empty string is not allowed".to_owned())
    } else if name == "." || name == ".." {
        Err("'.' or '..' is not allowed".to_owned())
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
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let created = match named.get(&topic.name) {
            Some(1) => create_topic(&mut core, topic, request.validate_only),
            Some(2..) => refused(ResponseError::InvalidRequest, "The topic is named twice."),
            // The first occurrence got the error.
            _ => continue,
        };
        named.remove(&topic.name);
        let (error_code, message) = code_and_message(&created);
        let result = CreatableTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(error_code)
            .with_error_message(message);
        results.push(match created {
            Ok((partitions, id)) => result
                .with_topic_id(id)
                .with_num_partitions(partitions)
                .with_replication_factor(1)
                .with_configs(Some(own_configs(topic))),
            Err(_) => result.with_num_partitions(-1).with_replication_factor(-1),
        });
    }
    call.respond(&CreateTopicsResponse::default().with_topics(results))
}

fn own_configs(topic: &CreatableTopic) -> Vec<CreatableTopicConfigs> {
    const DYNAMIC_TOPIC_CONFIG: i8 = 1;
    let own = topic.configs.iter().map(|config| {
        CreatableTopicConfigs::default()
            .with_name(config.name.clone())
            .with_value(config.value.clone())
            .with_config_source(DYNAMIC_TOPIC_CONFIG)
    });
    own.collect()
}

/// Creates a topic, and returns its number of partitions and its id. If the request is only validated, the id is nil.
fn create_topic(
    core: &mut Core,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<(i32, Uuid), Refused> {
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
    let mut configs = Vec::with_capacity(topic.configs.len());
    for config in &topic.configs {
        if let Err(message) = configs::check(&config.name, config.value.as_deref()) {
            return refused(ResponseError::InvalidConfig, message);
        }
        configs.push((config.name.clone(), config.value.clone().unwrap_or_default()));
    }
    if validate_only {
        return Ok((partitions, Uuid::nil()));
    }
    let id = ids::topic_id();
    core.commit(&Entry::TopicCreated { topic: name.0.clone(), partitions, configs, topic_id: Some(id) })?;
    Ok((partitions, id))
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
        return checked_count(i32::try_from(topic.assignments.len()).unwrap_or(i32::MAX));
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
        1.. => checked_count(count),
        _ => refused(
            ResponseError::InvalidPartitions,
            "Number of partitions must be larger than 0, or -1 to use the default value.",
        ),
    }
}

fn checked_count(count: i32) -> Result<i32, Refused> {
    if count <= MAX_PARTITIONS {
        Ok(count)
    } else {
        let message =
            format!("Excessively large number of partitions: {count} is more than {MAX_PARTITIONS}.");
        refused(ResponseError::PolicyViolation, message)
    }
}

pub fn handle_create_partitions(shared: &Shared, call: &Call) -> HandlerResult {
    let request: CreatePartitionsRequest = call.request()?;
    let mut core = shared.lock();
    let results = request.topics.into_iter().map(|topic| {
        let grown = grow_topic(&mut core, &topic, request.validate_only);
        let (error_code, message) = code_and_message(&grown);
        CreatePartitionsTopicResult::default()
            .with_name(topic.name)
            .with_error_code(error_code)
            .with_error_message(message)
    });
    call.respond(&CreatePartitionsResponse::default().with_results(results.collect()))
}

fn grow_topic(core: &mut Core, topic: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refused> {
    let Some(current) = core.state().topics.get(topic.name.as_str()) else {
        return Err(ResponseError::UnknownTopicOrPartition.into());
    };
    let current = current.partitions.len() as i32;
    if topic.count <= current {
        let message =
            format!("The topic has {current} partitions; {} would not be an increase.", topic.count);
        return refused(ResponseError::InvalidPartitions, message);
    }
    checked_count(topic.count)?;
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
    fn topic_names_follow_the_rules_of_kafka() {
        for good in ["a", "stock.vehicle-created", "A_1", &"x".repeat(249)] {
            assert_eq!(check_topic_name(good), Ok(()));
        }
        for bad in ["", ".", "..", "a b", "ä", "a/b", &"x".repeat(250)] {
            assert!(check_topic_name(bad).is_err(), "{bad}");
        }
    }
}
