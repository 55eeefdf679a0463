//! Checks topics, their partitions and configs, and metadata.

use rdkafka::admin::{AdminClient, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use crate::harness::*;

fn create(admin: &AdminClient<DefaultClientContext>, topic: NewTopic) -> Option<RDKafkaErrorCode> {
    let created = wait(admin.create_topics(&[topic], &options())).unwrap();
    created.into_iter().next().unwrap().err().map(|(_, code)| code)
}

fn partitions_of(topic: &str) -> usize {
    let consumer: BaseConsumer = config(&[]).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    metadata.topics()[0].partitions().len()
}

fn error_of(topic: &str) -> Option<RDKafkaErrorCode> {
    let consumer: BaseConsumer = config(&[]).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    metadata.topics()[0].error().map(RDKafkaErrorCode::from)
}

#[test]
fn a_created_topic_has_the_partitions_it_was_created_with() {
    let topic = topic(5);
    assert_eq!(partitions_of(&topic), 5);
}

#[test]
fn a_topic_cannot_be_created_twice() {
    let existing = topic(1);
    let again = create(&admin(), new_topic(&existing, 1));
    assert_eq!(again, Some(RDKafkaErrorCode::TopicAlreadyExists));
    assert_eq!(partitions_of(&existing), 1);
}

#[test]
fn a_topic_that_was_only_validated_does_not_exist() {
    let name = unique("validated");
    let only_validate = options().validate_only(true);
    let created = wait(admin().create_topics(&[new_topic(&name, 1)], &only_validate));
    assert_eq!(created.unwrap(), [Ok(name.clone())]);
    assert_eq!(error_of(&name), Some(RDKafkaErrorCode::UnknownTopicOrPartition));
}

#[test]
fn names_counts_factors_and_configs_are_checked() {
    let admin = admin();
    let name = unique("refused");
    let long = "x".repeat(250);
    for bad in ["has space", "..", long.as_str()] {
        let refused = create(&admin, new_topic(bad, 1));
        assert_eq!(refused, Some(RDKafkaErrorCode::InvalidTopic), "{bad}");
    }
    let too_many_replicas = NewTopic::new(&name, 1, TopicReplication::Fixed(1000));
    assert_eq!(create(&admin, too_many_replicas), Some(RDKafkaErrorCode::InvalidReplicationFactor));
    assert_eq!(
        create(&admin, new_topic(&name, 1).set("no.such.config", "1")),
        Some(RDKafkaErrorCode::InvalidConfig)
    );
    assert_eq!(error_of(&name), Some(RDKafkaErrorCode::UnknownTopicOrPartition));
}

#[test]
fn a_deleted_topic_can_be_created_again_and_is_empty() {
    let name = topic(1);
    send(&producer(&[]), &name, 0, "old").unwrap();
    let admin = admin();
    let deleted = wait(admin.delete_topics(&[&name], &options())).unwrap();
    assert_eq!(deleted, [Ok(name.clone())]);
    eventually("the topic is deleted", || {
        (error_of(&name) == Some(RDKafkaErrorCode::UnknownTopicOrPartition)).then_some(())
    });
    eventually("the topic is created again", || {
        match create(&admin, new_topic(&name, 1)) {
            None => Some(()),
            // A cluster may still be deleting the old topic.
            Some(code) => {
                assert_eq!(code, RDKafkaErrorCode::TopicAlreadyExists);
                None
            }
        }
    });
    eventually("the topic is known", || error_of(&name).is_none().then_some(()));
    assert_eq!(values(&name, "read_committed"), [""; 0]);
}

#[test]
fn deleting_an_unknown_topic_is_an_error() {
    let name = unique("unknown");
    let deleted = wait(admin().delete_topics(&[&name], &options())).unwrap();
    assert_eq!(deleted, [Err((name, RDKafkaErrorCode::UnknownTopicOrPartition))]);
}

#[test]
fn partitions_can_be_added_but_not_removed() {
    let name = topic(2);
    let admin = admin();
    let grow = |count| {
        let grown = wait(admin.create_partitions(&[NewPartitions::new(&name, count)], &options()));
        grown.unwrap().into_iter().next().unwrap().err().map(|(_, code)| code)
    };
    assert_eq!(grow(4), None);
    eventually("the new partitions are known", || (partitions_of(&name) == 4).then_some(()));
    assert_eq!(grow(4), Some(RDKafkaErrorCode::InvalidPartitions));
    assert_eq!(grow(1), Some(RDKafkaErrorCode::InvalidPartitions));
    let sent = eventually("the new partition has a leader", || send(&producer(&[]), &name, 3, "new").ok());
    assert_eq!(sent, 0);
}

#[test]
fn configs_given_at_creation_are_reported() {
    let name = unique("configured");
    let admin = admin();
    let topic = new_topic(&name, 1).set("cleanup.policy", "compact").set("max.message.bytes", "2000");
    assert_eq!(create(&admin, topic), None);
    let described = eventually("the configs are known", || {
        let resource = ResourceSpecifier::Topic(&name);
        let described = wait(admin.describe_configs([&resource], &options())).ok()?;
        // The client does not return the error of a broker that does not know the topic yet.
        described.into_iter().next()?.ok().filter(|described| !described.entries.is_empty())
    });
    let value = |config: &str| described.get(config).unwrap().value.clone().unwrap();
    assert_eq!(value("cleanup.policy"), "compact");
    assert_eq!(value("max.message.bytes"), "2000");
    assert_eq!(value("message.timestamp.type"), "CreateTime");
    assert!(described.get("message.timestamp.type").unwrap().is_default);
    assert!(!described.get("cleanup.policy").unwrap().is_default);
}

#[test]
fn the_metadata_of_an_unknown_topic_is_an_error_and_does_not_create_it() {
    let name = unique("unknown");
    for _ in 0..2 {
        assert_eq!(error_of(&name), Some(RDKafkaErrorCode::UnknownTopicOrPartition));
    }
}

#[test]
fn all_topics_and_the_cluster_are_listed() {
    let name = topic(1);
    let consumer: BaseConsumer = config(&[]).create().unwrap();
    let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
    assert!(metadata.topics().iter().any(|topic| topic.name() == name));
    assert!(!metadata.brokers().is_empty());
    let id = consumer.client().fetch_cluster_id(PATIENCE).unwrap();
    assert_eq!(id.len(), 22);
}
