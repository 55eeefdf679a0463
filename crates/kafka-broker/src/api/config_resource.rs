//! Identifies what configs belong to (`ConfigResource.Type` of Apache Kafka).

use kafka_protocol::ResponseError;

use super::admin::check_topic_name;
use super::refused::{Refused, refused};
use super::wire::BROKER;
use crate::state::{State, Topic};

/// Names a resource in a request of DescribeConfigs, AlterConfigs or IncrementalAlterConfigs.
pub enum ConfigResource<'a> {
    Topic(&'a str),
    /// The broker, or the defaults of all brokers.
    Broker,
    BrokerDefaults,
    BrokerLogger,
}

impl<'a> ConfigResource<'a> {
    pub fn new(kind: i8, name: &'a str) -> Result<Self, Refused> {
        match kind {
            2 => Ok(Self::Topic(name)),
            4 if name.is_empty() => Ok(Self::BrokerDefaults),
            4 => check_broker_id(name).map(|()| Self::Broker),
            8 => check_broker_id(name).map(|()| Self::BrokerLogger),
            _ => {
                let message = format!("Resources of type {kind} have no configs.");
                refused(ResponseError::InvalidRequest, message)
            }
        }
    }
}

/// Finds a topic by its name, or says why there is none.
pub fn find_topic<'a>(state: &'a State, name: &str) -> Result<&'a Topic, Refused> {
    if let Err(reason) = check_topic_name(name) {
        let message = format!("Topic name is invalid: {reason}");
        return refused(ResponseError::InvalidTopicException, message);
    }
    let topic = state.topics.get(name);
    topic.map_or_else(
        || refused(ResponseError::UnknownTopicOrPartition, format!("The topic '{name}' does not exist.")),
        Ok,
    )
}

fn check_broker_id(name: &str) -> Result<(), Refused> {
    let message = match name.parse::<i32>() {
        Ok(id) if id == BROKER.0 => return Ok(()),
        Ok(id) => format!("Unexpected broker id, expected {}, but received {id}.", BROKER.0),
        Err(_) => format!("Broker id must be an integer, but it is: {name}"),
    };
    refused(ResponseError::InvalidRequest, message)
}
