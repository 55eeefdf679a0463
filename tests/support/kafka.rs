//! Accesses the platform's topics.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::DEADLINE;

/// Writes a record exactly once.
pub async fn produce(bootstrap: &str, topic: &str, key: Option<&str>, value: &[u8]) {
    let mut record = FutureRecord::to(topic).payload(value);
    if let Some(key) = key {
        record = record.key(key);
    }
    produce_record(bootstrap, record, "none").await;
}

/// Writes a record of any size exactly once, compressed with a codec.
pub async fn produce_record(bootstrap: &str, record: FutureRecord<'_, str, [u8]>, codec: &str) {
    producer(bootstrap, codec).send(record, DEADLINE).await.unwrap();
}

/// Writes records with keys and values exactly once.
pub async fn produce_all(bootstrap: &str, topic: &str, records: &[(String, Vec<u8>)], codec: &str) {
    let producer = producer(bootstrap, codec);
    let sent: Vec<_> = records
        .iter()
        .map(|(key, value)| producer.send(FutureRecord::to(topic).key(key).payload(value), DEADLINE))
        .collect();
    for sent in sent {
        sent.await.unwrap();
    }
}

/// Writes each value as a separate compressed batch.
pub async fn produce_compressed(bootstrap: &str, topic: &str, values: &[Vec<u8>]) {
    let producer = producer(bootstrap, "zstd");
    for value in values {
        producer.send(FutureRecord::<str, _>::to(topic).payload(value), DEADLINE).await.unwrap();
    }
}

fn producer(bootstrap: &str, codec: &str) -> FutureProducer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("message.max.bytes", "100000000")
        .set("compression.type", codec)
        .create()
        .unwrap()
}

/// Creates a topic that refuses batches of more than `max_message_bytes`.
pub async fn create_topic(bootstrap: &str, name: &str, max_message_bytes: &str) {
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let topic =
        NewTopic::new(name, 3, TopicReplication::Fixed(1)).set("max.message.bytes", max_message_bytes);
    let created = admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap();
    assert_eq!(created, [Ok(name.to_owned())]);
}

/// Returns all records of a topic that are committed at this moment.
pub async fn read_all(bootstrap: &str, topic: &str) -> Vec<OwnedMessage> {
    read_each(bootstrap, topic, |record: &BorrowedMessage<'_>| record.detach()).await
}

/// Applies `keep` to each record of a topic that is committed at this moment.
pub async fn read_each<T: Send + 'static>(
    bootstrap: &str,
    topic: &str,
    keep: impl Fn(&BorrowedMessage<'_>) -> T + Send + 'static,
) -> Vec<T> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || read_each_blocking(&bootstrap, &topic, keep)).await.unwrap()
}

fn read_each_blocking<T>(bootstrap: &str, topic: &str, keep: impl Fn(&BorrowedMessage<'_>) -> T) -> Vec<T> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "reads-all")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    let beginning = beginning_of(&consumer, topic);
    consumer.assign(&beginning).unwrap();
    let mut records = Vec::new();
    let mut ended = 0;
    let started = Instant::now();
    while ended < beginning.count() {
        assert!(started.elapsed() < DEADLINE, "cannot read {topic} to its end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => records.push(keep(&message)),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    records
}

/// Returns the first offset of each partition. Waits until the broker that answers knows the topic: each learns of a
/// new topic by itself, and a topic without partitions would look read.
#[expect(clippy::disallowed_methods, reason = "a pause between attempts, in a blocking function")]
pub fn beginning_of(consumer: &impl Consumer, topic: &str) -> TopicPartitionList {
    let started = Instant::now();
    loop {
        let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
        let found = &metadata.topics()[0];
        if found.error().is_none() {
            let mut list = TopicPartitionList::new();
            for partition in found.partitions() {
                list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
            }
            return list;
        }
        assert!(started.elapsed() < DEADLINE, "{topic}: {:?}", found.error());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the text of a header.
pub fn header(message: &OwnedMessage, name: &str) -> Option<String> {
    let headers = message.headers()?;
    let header = headers.iter().find(|header| header.key == name)?;
    Some(String::from_utf8(header.value?.to_vec()).unwrap())
}
