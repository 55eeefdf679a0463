//! Creates, deletes and fills topics without the platform.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{DEADLINE, eventually};

const PARTITIONS: i32 = 3;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap()
}

pub async fn create_topic(bootstrap: &str, topic: &str, settings: &[(&str, &str)]) {
    let new = NewTopic::new(topic, 3, TopicReplication::Fixed(1));
    let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
    let created = admin(bootstrap).create_topics(&[new], &AdminOptions::new()).await.unwrap();
    created.into_iter().next().unwrap().unwrap();
}

pub async fn delete_topic(bootstrap: &str, topic: &str) {
    let deleted = admin(bootstrap).delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
    deleted.into_iter().next().unwrap().unwrap();
}

/// Deletes all records of a partition, as the end of their retention does.
pub async fn delete_records(bootstrap: &str, topic: &str, partition: i32) {
    let mut until = TopicPartitionList::new();
    until.add_partition_offset(topic, partition, Offset::End).unwrap();
    let deleted = admin(bootstrap).delete_records(&until, &AdminOptions::new()).await.unwrap();
    deleted.elements()[0].error().unwrap();
}

/// Returns a setting of a topic.
pub async fn setting(bootstrap: &str, topic: &str, name: &str) -> String {
    let resources = [ResourceSpecifier::Topic(topic)];
    let described = admin(bootstrap).describe_configs(&resources, &AdminOptions::new()).await.unwrap();
    let resource = described.into_iter().next().unwrap().unwrap();
    resource.get(name).unwrap().value.clone().unwrap()
}

/// Writes values to one partition in order, without a transaction.
pub async fn fill(bootstrap: &str, topic: &str, partition: i32, values: &[Vec<u8>]) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    fill_at(bootstrap, topic, partition, values, i64::try_from(now.as_millis()).unwrap()).await;
}

/// Writes values as [`fill`] does, with the producer's timestamp in milliseconds.
pub async fn fill_at(bootstrap: &str, topic: &str, partition: i32, values: &[Vec<u8>], time: i64) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    let sent = values.iter().map(|value| {
        let record = FutureRecord::<[u8], _>::to(topic).partition(partition).payload(value).timestamp(time);
        producer.send(record, DEADLINE)
    });
    for delivered in futures::future::join_all(sent).await {
        delivered.unwrap();
    }
}

/// Writes values to one partition in order, each list in a transaction. Each value is also its key.
pub async fn fill_in_transactions(bootstrap: &str, topic: &str, partition: i32, lists: &[&[Vec<u8>]]) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", format!("fills-{topic}"))
        .create()
        .unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    for values in lists {
        producer.begin_transaction().unwrap();
        let sent = values.iter().map(|value| {
            producer.send(FutureRecord::to(topic).partition(partition).key(value).payload(value), DEADLINE)
        });
        for delivered in futures::future::join_all(sent).await {
            delivered.unwrap();
        }
        producer.commit_transaction(DEADLINE).unwrap();
    }
}

/// Deletes a non-empty topic of the cluster and creates it again. Brokers may take some time for this.
pub async fn replace_topic(bootstrap: &str, topic: &str) {
    let admin = admin(bootstrap);
    let options = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT));
    // A role that is starting may create the topic first, which is then empty as well.
    eventually("the deletion of a topic", async || {
        let deleted = admin.delete_topics(&[topic], &options).await.ok()?;
        deleted.into_iter().next()?.ok()
    })
    .await;
    let settings = [
        ("cleanup.policy", "delete"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.insync.replicas", "2"),
        ("retention.bytes", "-1"),
        ("retention.ms", "-1"),
    ];
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(3));
    let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
    eventually("a topic to be recreated", async || {
        // The brokers refuse until they have deleted the old topic.
        admin.create_topics([&new], &options).await.ok();
        is_empty(bootstrap, topic).await.filter(|is_empty| *is_empty)
    })
    .await;
}

/// Returns whether nothing was ever written to a topic, or `None` when it does not exist.
pub async fn is_empty(bootstrap: &str, topic: &str) -> Option<bool> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let topic = topic.to_owned();
    let ends = move || {
        let ends =
            (0..PARTITIONS).map(|partition| consumer.fetch_watermarks(&topic, partition, CALL_TIMEOUT));
        ends.collect::<Result<Vec<_>, _>>().ok()
    };
    Some(tokio::task::spawn_blocking(ends).await.unwrap()?.iter().all(|(_, end)| *end == 0))
}
