//! Checks that consumers receive what producers sent.

use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{FutureRecord, Producer};

use crate::harness::*;

fn assigned(topic: &str, partition: i32, offset: Offset, settings: &[(&str, &str)]) -> BaseConsumer {
    let consumer: BaseConsumer =
        config(&[("group.id", &unique("reader"))]).set_all(settings).create().unwrap();
    consumer.assign(&offsets(topic, partition, offset)).unwrap();
    consumer
}

fn next_offset(consumer: &BaseConsumer) -> i64 {
    eventually("a record arrives", || {
        consumer.poll(Duration::from_millis(100)).map(|polled| polled.unwrap().offset())
    })
}

#[test]
fn keys_headers_and_timestamps_are_preserved() {
    let topic = topic(1);
    let record = FutureRecord::to(&topic)
        .key("key")
        .payload("value")
        .timestamp(1_600_000_000_123)
        .headers(headers(&[("a", Some("1")), ("a", Some("2")), ("none", None)]));
    wait(producer(&[]).send(record, PATIENCE)).unwrap();
    let records = read_all(&topic, "read_committed");
    let header = |name: &str, value: Option<&str>| (name.to_owned(), value.map(|v| v.as_bytes().to_vec()));
    assert_eq!(
        records,
        [Record {
            partition: 0,
            offset: 0,
            timestamp: Some(1_600_000_000_123),
            key: Some(b"key".to_vec()),
            value: Some(b"value".to_vec()),
            headers: vec![header("a", Some("1")), header("a", Some("2")), header("none", None)],
        }]
    );
}

#[test]
fn tombstones_null_keys_and_empty_values_are_distinct() {
    let topic = topic(1);
    let producer = producer(&[]);
    let tombstone = FutureRecord::<str, str>::to(&topic).key("key");
    wait(producer.send(tombstone, PATIENCE)).unwrap();
    let empty = FutureRecord::<str, str>::to(&topic).key("").payload("");
    wait(producer.send(empty, PATIENCE)).unwrap();
    let no_key = FutureRecord::<str, str>::to(&topic).payload("value");
    wait(producer.send(no_key, PATIENCE)).unwrap();
    let records = read_all(&topic, "read_uncommitted").into_iter();
    let seen: Vec<_> = records.map(|record| (record.key, record.value)).collect();
    assert_eq!(
        seen,
        [(Some(b"key".to_vec()), None), (Some(vec![]), Some(vec![])), (None, Some(b"value".to_vec())),]
    );
}

#[test]
fn every_compression_codec_of_this_librdkafka_works() {
    let value = "compressible ".repeat(200);
    // gzip and zstd need libraries that this build of librdkafka may lack.
    let codecs = ["none", "snappy", "lz4", "gzip", "zstd"].into_iter();
    let built: Vec<_> = codecs
        .filter(|codec| {
            let probe = config(&[("compression.type", codec)]).create::<BaseConsumer>();
            probe.is_ok()
        })
        .collect();
    assert!(["none", "snappy", "lz4"].iter().all(|codec| built.contains(codec)));
    for codec in built {
        let topic = topic(1);
        let producer = producer(&[("compression.type", codec), ("linger.ms", "50")]);
        let sent = (0..50).map(|_| {
            let record = FutureRecord::<(), _>::to(&topic).payload(&value);
            producer.send_result(record).map_err(|(error, _)| error).unwrap()
        });
        for delivery in sent.collect::<Vec<_>>() {
            wait(delivery).unwrap().unwrap();
        }
        let read = values(&topic, "read_committed");
        assert_eq!(read, vec![value.clone(); 50], "{codec}");
    }
}

#[test]
fn many_records_arrive_once_and_in_order_of_their_partition() {
    const RECORDS: usize = 30_000;
    let topic = topic(3);
    let producer = producer(&[
        ("enable.idempotence", "true"),
        ("linger.ms", "5"),
        ("queue.buffering.max.messages", "100000"),
    ]);
    let mut sent = Vec::with_capacity(RECORDS);
    for index in 0..RECORDS {
        let payload = index.to_string();
        let record = FutureRecord::<(), _>::to(&topic).partition((index % 3) as i32).payload(&payload);
        sent.push(producer.send_result(record).map_err(|(error, _)| error).unwrap());
    }
    for delivery in sent {
        wait(delivery).unwrap().unwrap();
    }
    let records = read_all(&topic, "read_committed");
    assert_eq!(records.len(), RECORDS);
    let mut next = [0, 1, 2];
    for record in records {
        let value: usize = String::from_utf8(record.value.unwrap()).unwrap().parse().unwrap();
        let expected = &mut next[record.partition as usize];
        assert_eq!(value, *expected);
        assert_eq!(record.offset, (value / 3) as i64);
        *expected += 3;
    }
}

#[test]
fn large_fetches_from_many_partitions_lose_no_record() {
    const PARTITIONS: i32 = 24;
    let topic = topic(PARTITIONS);
    let value = "x".repeat(100_000);
    let producer = producer(&[]);
    let sent = (0..PARTITIONS * 8).map(|index| {
        let record = FutureRecord::<(), _>::to(&topic).partition(index % PARTITIONS).payload(&value);
        producer.send_result(record).map_err(|(error, _)| error).unwrap()
    });
    for delivery in sent.collect::<Vec<_>>() {
        wait(delivery).unwrap().unwrap();
    }
    let mut seen = vec![0; PARTITIONS as usize];
    for record in read_all(&topic, "read_committed") {
        assert_eq!(record.offset, seen[record.partition as usize]);
        seen[record.partition as usize] += 1;
    }
    assert_eq!(seen, vec![8; PARTITIONS as usize]);
}

#[test]
fn a_record_larger_than_the_fetch_limits_still_arrives() {
    let topic = topic(1);
    let value = "x".repeat(500_000);
    let producer = producer(&[]);
    for _ in 0..3 {
        send(&producer, &topic, 0, &value).unwrap();
    }
    let limits = [("fetch.message.max.bytes", "1000"), ("fetch.max.bytes", "1000000")];
    let consumer = assigned(&topic, 0, Offset::Beginning, &limits);
    for expected in 0..3 {
        assert_eq!(next_offset(&consumer), expected);
    }
}

#[test]
fn a_record_above_the_limit_of_the_topic_is_refused() {
    let name = unique("small");
    let admin = admin();
    let small = new_topic(&name, 1).set("max.message.bytes", "1000");
    wait(admin.create_topics(&[small], &options())).unwrap()[0].clone().unwrap();
    let producer = producer(&[]);
    eventually("the topic is known", || send(&producer, &name, 0, "fits").ok());
    let refused = send(&producer, &name, 0, &"x".repeat(2000));
    assert_eq!(error_code(refused), Some(RDKafkaErrorCode::MessageSizeTooLarge));
}

#[test]
fn acks_of_none_one_and_all_work() {
    let topic = topic(1);
    for acks in ["0", "1", "all"] {
        let producer = producer(&[("acks", acks)]);
        send(&producer, &topic, 0, acks).unwrap();
        producer.flush(PATIENCE).unwrap();
        eventually("the record is visible", || {
            values(&topic, "read_committed").contains(&acks.to_owned()).then_some(())
        });
    }
}

#[test]
fn offsets_are_found_by_time() {
    let topic = topic(1);
    let producer = producer(&[("linger.ms", "100")]);
    let times = [1_000, 2_000, 2_000, 5_000];
    let sent = times.map(|time| {
        let record = FutureRecord::<(), _>::to(&topic).payload("x").timestamp(time);
        producer.send_result(record).map_err(|(error, _)| error).unwrap()
    });
    for delivery in sent {
        wait(delivery).unwrap().unwrap();
    }
    let consumer: BaseConsumer = config(&[("group.id", &unique("reader"))]).create().unwrap();
    let at = |time| {
        let wanted = offsets(&topic, 0, Offset::Offset(time));
        let found = consumer.offsets_for_times(wanted, PATIENCE).unwrap();
        found.find_partition(&topic, 0).unwrap().offset()
    };
    assert_eq!(at(0), Offset::Offset(0));
    assert_eq!(at(1_001), Offset::Offset(1));
    assert_eq!(at(2_000), Offset::Offset(1));
    assert_eq!(at(2_001), Offset::Offset(3));
    assert_eq!(at(5_001), Offset::End);
}

#[test]
fn watermarks_are_the_first_and_the_next_offset() {
    let topic = topic(1);
    let producer = producer(&[]);
    for value in ["a", "b"] {
        send(&producer, &topic, 0, value).unwrap();
    }
    let consumer: BaseConsumer = config(&[]).create().unwrap();
    let watermarks = consumer.fetch_watermarks(&topic, 0, PATIENCE).unwrap();
    assert_eq!(watermarks, (0, 2));
}

#[test]
fn an_offset_out_of_range_is_reset_as_the_consumer_configures() {
    let topic = topic(1);
    let producer = producer(&[]);
    for value in ["a", "b"] {
        send(&producer, &topic, 0, value).unwrap();
    }
    let wrong = Offset::Offset(1000);
    let earliest = assigned(&topic, 0, wrong, &[("auto.offset.reset", "earliest")]);
    assert_eq!(next_offset(&earliest), 0);
    let strict = assigned(&topic, 0, wrong, &[("auto.offset.reset", "error")]);
    let error = eventually("the error is reported", || match strict.poll(Duration::from_millis(100)) {
        Some(Err(KafkaError::MessageConsumption(code))) => Some(code),
        Some(polled) => panic!("{polled:?}"),
        None => None,
    });
    assert!(
        matches!(error, RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange),
        "{error}"
    );
}

#[test]
fn a_waiting_fetch_returns_as_soon_as_a_record_arrives() {
    let topic = topic(1);
    let waits = [("fetch.wait.max.ms", "50000"), ("socket.timeout.ms", "60000")];
    let consumer = assigned(&topic, 0, Offset::Beginning, &waits);
    assert!(consumer.poll(Duration::from_millis(500)).is_none());
    send(&producer(&[]), &topic, 0, "late").unwrap();
    let started = std::time::Instant::now();
    assert_eq!(next_offset(&consumer), 0);
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn producing_to_an_unknown_topic_fails() {
    let producer = producer(&[("message.timeout.ms", "5000")]);
    let refused = send(&producer, &unique("unknown"), 0, "lost");
    let code = error_code(refused).unwrap();
    assert!(
        matches!(
            code,
            RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::MessageTimedOut
        ),
        "{code}"
    );
}

#[test]
fn a_consumer_can_begin_within_a_batch() {
    let topic = topic(1);
    let producer = producer(&[("linger.ms", "100")]);
    let sent = (0..10).map(|_| {
        let record = FutureRecord::<(), _>::to(&topic).payload("x");
        producer.send_result(record).map_err(|(error, _)| error).unwrap()
    });
    for delivery in sent.collect::<Vec<_>>() {
        wait(delivery).unwrap().unwrap();
    }
    for offset in [0, 4, 9] {
        let consumer = assigned(&topic, 0, Offset::Offset(offset), &[]);
        assert_eq!(next_offset(&consumer), offset);
    }
}
