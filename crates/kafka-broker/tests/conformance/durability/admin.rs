//! Checks that what administrators change survives a crash.

use kafka_protocol::messages::DescribeConfigsRequest;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::Producer;

use super::Restartable;
use crate::configs::{alter, own};
use crate::delete_records::delete_before;
use crate::group_admin::{delete_groups, delete_offsets};
use crate::harness::*;
use crate::raw::{Raw, text};
use crate::transaction_admin::abort_in_partition;

#[test]
fn altered_configs_survive_and_apply() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 1);
    let mut raw = Raw::connect_to(&broker.address());
    assert_eq!(alter(&mut raw, 2, &topic, &[(0, "max.message.bytes", Some("1000"))]), 0);
    broker.crash();
    let mut raw = Raw::connect_to(&broker.address());
    assert!(own(&mut raw, &topic).contains(&("max.message.bytes".to_owned(), "1000".to_owned())));
    let too_large = send(&broker.producer(&[]), &topic, 0, &"x".repeat(2000));
    assert!(too_large.is_err());
}

#[test]
fn deleted_records_stay_deleted() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 1);
    let producer = broker.producer(&[]);
    for value in ["a", "b", "c"] {
        send(&producer, &topic, 0, value).unwrap();
    }
    let mut raw = Raw::connect_to(&broker.address());
    assert_eq!(delete_before(&mut raw, 2, &topic, 0, 2), (0, 2));
    broker.crash();
    let consumer: BaseConsumer = config_for(&broker.address(), &[]).create().unwrap();
    assert_eq!(consumer.fetch_watermarks(&topic, 0, PATIENCE).unwrap(), (2, 3));
    assert_eq!(broker.values(&topic, "read_committed"), ["c"]);
}

#[test]
fn deleted_groups_and_offsets_stay_deleted() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 2);
    let [deleted, reduced] = ["deleted", "reduced"].map(unique);
    for group in [&deleted, &reduced] {
        let consumer: BaseConsumer = config_for(&broker.address(), &[("group.id", group)]).create().unwrap();
        for partition in 0..2 {
            consumer.commit(&offsets(&topic, partition, Offset::Offset(7)), CommitMode::Sync).unwrap();
        }
    }
    let mut raw = Raw::connect_to(&broker.address());
    assert_eq!(delete_groups(&mut raw, 2, &[&deleted]), [0]);
    assert_eq!(delete_offsets(&mut raw, &reduced, &[(&topic, &[0])]).error_code, 0);
    broker.crash();
    let committed = |group: &str, partition| committed_at(&broker.address(), group, &topic, partition);
    assert_eq!((committed(&deleted, 0), committed(&deleted, 1)), (None, None));
    assert_eq!((committed(&reduced, 0), committed(&reduced, 1)), (None, Some(7)));
}

#[test]
fn a_transaction_that_an_operator_aborted_stays_aborted() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 1);
    let producer = broker.producer(&[("transactional.id", &unique("txn"))]);
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, &topic, 0, "aborted").unwrap();
    let mut raw = Raw::connect_to(&broker.address());
    assert_eq!(abort_in_partition(&mut raw, &topic), 0);
    broker.crash();
    send(&broker.producer(&[]), &topic, 0, "after").unwrap();
    assert_eq!(broker.values(&topic, "read_committed"), ["after"]);
}

/// Apache Kafka describes it each time. A small request could then have a response of any size.
#[test]
fn a_resource_that_is_named_often_is_described_once() {
    let broker = Restartable::new();
    let topic = topic_at(&broker.address(), 1);
    let resource = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text(&topic));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource; 20_000]);
    let response = Raw::connect_to(&broker.address()).call(4, &request);
    assert_eq!(response.results.len(), 1);
}
