//! Checks transactions as consumers see them.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{FutureProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::harness::*;

fn commit(producer: &FutureProducer) {
    producer.commit_transaction(PATIENCE).unwrap();
}

fn abort(producer: &FutureProducer) {
    producer.abort_transaction(PATIENCE).unwrap();
}

/// Returns a consumer that is a member of the group and has the topic's only partition.
fn joined(group: &str, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer =
        config(&[("group.id", group), ("enable.auto.commit", "false"), ("session.timeout.ms", "6000")])
            .create()
            .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    eventually("the member has joined", || {
        let _ = consumer.poll(Duration::from_millis(50));
        (consumer.assignment().unwrap().count() == 1).then_some(())
    });
    consumer
}

fn next(topic: &str, offset: i64) -> TopicPartitionList {
    offsets(topic, 0, Offset::Offset(offset))
}

#[test]
fn committed_records_become_visible_together() {
    let topic = topic(3);
    let producer = transactional(&unique("txn"));
    producer.begin_transaction().unwrap();
    for partition in 0..3 {
        send(&producer, &topic, partition, "pending").unwrap();
    }
    assert_eq!(values(&topic, "read_committed"), [""; 0]);
    commit(&producer);
    expect_values(&topic, "read_committed", &["pending"; 3]);
}

#[test]
fn aborted_records_are_skipped_by_read_committed_consumers() {
    let topic = topic(1);
    let producer = transactional(&unique("txn"));
    producer.begin_transaction().unwrap();
    send(&producer, &topic, 0, "aborted").unwrap();
    abort(&producer);
    producer.begin_transaction().unwrap();
    send(&producer, &topic, 0, "committed").unwrap();
    commit(&producer);
    expect_values(&topic, "read_committed", &["committed"]);
    expect_values(&topic, "read_uncommitted", &["aborted", "committed"]);
}

#[test]
fn an_open_transaction_holds_back_later_records() {
    let topic = topic(1);
    let open = transactional(&unique("txn"));
    let plain = producer(&[]);
    send(&plain, &topic, 0, "before").unwrap();
    open.begin_transaction().unwrap();
    send(&open, &topic, 0, "open").unwrap();
    send(&plain, &topic, 0, "after").unwrap();
    assert_eq!(values(&topic, "read_committed"), ["before"]);
    assert_eq!(values(&topic, "read_uncommitted"), ["before", "open", "after"]);
    abort(&open);
    expect_values(&topic, "read_committed", &["before", "after"]);
}

#[test]
fn the_end_of_a_transaction_takes_one_offset_in_each_partition() {
    let topic = topic(2);
    let producer = transactional(&unique("txn"));
    for end in [commit, abort] {
        producer.begin_transaction().unwrap();
        send(&producer, &topic, 0, "record").unwrap();
        end(&producer);
    }
    let consumer: BaseConsumer = config(&[]).create().unwrap();
    eventually("the second marker is written", || {
        let (_, high) = consumer.fetch_watermarks(&topic, 0, PATIENCE).ok()?;
        (high == 4).then_some(())
    });
    assert_eq!(consumer.fetch_watermarks(&topic, 1, PATIENCE).unwrap(), (0, 0));
}

#[test]
fn transactions_that_interleave_on_one_partition_end_independently() {
    let topic = topic(1);
    let (kept, dropped) = (transactional(&unique("txn")), transactional(&unique("txn")));
    kept.begin_transaction().unwrap();
    dropped.begin_transaction().unwrap();
    for index in 0..3 {
        send(&kept, &topic, 0, &format!("kept {index}")).unwrap();
        send(&dropped, &topic, 0, &format!("dropped {index}")).unwrap();
    }
    abort(&dropped);
    assert_eq!(values(&topic, "read_committed"), [""; 0]);
    commit(&kept);
    expect_values(&topic, "read_committed", &["kept 0", "kept 1", "kept 2"]);
}

#[test]
fn many_transactions_in_a_row_keep_their_records() {
    let topic = topic(2);
    let producer = transactional(&unique("txn"));
    let mut expected = Vec::new();
    for index in 0..30 {
        producer.begin_transaction().unwrap();
        let value = format!("{index:02}");
        send(&producer, &topic, 0, &value).unwrap();
        if index % 3 == 0 {
            abort(&producer);
        } else {
            commit(&producer);
            expected.push(value);
        }
    }
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expect_values(&topic, "read_committed", &expected);
}

#[test]
fn a_transaction_without_records_commits() {
    let producer = transactional(&unique("txn"));
    producer.begin_transaction().unwrap();
    commit(&producer);
}

#[test]
fn offsets_in_a_transaction_become_visible_when_it_commits() {
    let (input, output) = (topic(1), topic(1));
    let group = unique("group");
    let consumer = joined(&group, &input);
    let producer = transactional(&unique("txn"));

    producer.begin_transaction().unwrap();
    send(&producer, &output, 0, "first").unwrap();
    let metadata = consumer.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&next(&input, 5), &metadata, PATIENCE).unwrap();
    abort(&producer);
    assert_eq!(committed(&group, &input, 0), None);

    producer.begin_transaction().unwrap();
    send(&producer, &output, 0, "second").unwrap();
    producer.send_offsets_to_transaction(&next(&input, 7), &metadata, PATIENCE).unwrap();
    commit(&producer);
    assert_eq!(committed(&group, &input, 0), Some(7));
    expect_values(&output, "read_committed", &["second"]);
}

#[test]
fn a_read_of_stable_offsets_waits_while_a_transaction_may_change_them() {
    let input = topic(1);
    let group = unique("group");
    let consumer = joined(&group, &input);
    let producer = transactional(&unique("txn"));
    producer.begin_transaction().unwrap();
    let metadata = consumer.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&next(&input, 5), &metadata, PATIENCE).unwrap();

    let settings = [("group.id", group.as_str()), ("isolation.level", "read_committed")];
    let reader: BaseConsumer = config(&settings).create().unwrap();
    let wanted = || offsets(&input, 0, Offset::Invalid);
    let unstable = reader.committed_offsets(wanted(), Duration::from_secs(3));
    assert!(unstable.is_err(), "{unstable:?}");
    commit(&producer);
    assert_eq!(committed(&group, &input, 0), Some(5));
}

#[test]
fn a_member_of_an_earlier_generation_cannot_commit_its_offsets() {
    let input = topic(1);
    let group = unique("group");
    let zombie = joined(&group, &input);
    let stale = zombie.group_metadata().unwrap();
    drop(zombie);
    let member = joined(&group, &input);

    let producer = transactional(&unique("txn"));
    producer.begin_transaction().unwrap();
    let refused = producer.send_offsets_to_transaction(&next(&input, 5), &stale, PATIENCE);
    let code = error_code(refused).unwrap();
    assert!(
        matches!(code, RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration),
        "{code}"
    );
    abort(&producer);
    assert_eq!(committed(&group, &input, 0), None);

    producer.begin_transaction().unwrap();
    let current = member.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&next(&input, 6), &current, PATIENCE).unwrap();
    commit(&producer);
    assert_eq!(committed(&group, &input, 0), Some(6));
}
