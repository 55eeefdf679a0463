//! Provides clients, topics and waiting to the tests.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use embedded_kafka_broker::Broker;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::runtime::Runtime;

use crate::raw::Raw;

/// Long enough for the first transaction of a cluster that has just started.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const KEEP_RECORDS: (&str, &str) = ("retention.ms", "-1");

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

static BOOTSTRAP: LazyLock<String> = LazyLock::new(|| {
    if let Ok(servers) = std::env::var("KAFKA_BOOTSTRAP_SERVERS") {
        return servers;
    }
    let broker = wait(Broker::start()).unwrap();
    let address = broker.address().to_string();
    std::mem::forget(broker);
    address
});

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

pub fn bootstrap() -> &'static str {
    &BOOTSTRAP
}

/// Whether the brokers are Apache Kafka 4, which has no `ZooKeeper` and answers some requests differently.
static IS_KAFKA_4: LazyLock<bool> = LazyLock::new(|| {
    let described = Raw::connect().call(0, &ApiVersionsRequest::default());
    described.api_keys.iter().any(|api| api.api_key == ApiKey::DescribeQuorum as i16)
});

pub fn is_kafka_4() -> bool {
    *IS_KAFKA_4
}

/// Returns a name that no other test and no other run uses.
pub fn unique(prefix: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{prefix}-{:016x}", RandomState::new().hash_one(()))
}

/// Calls `attempt` until it returns a value. Panics with "still waiting" after [`PATIENCE`].
#[expect(clippy::disallowed_methods, reason = "a pause between attempts, in a blocking test")]
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = attempt() {
            return answer;
        }
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn config(settings: &[(&str, &str)]) -> ClientConfig {
    config_for(bootstrap(), settings)
}

pub fn config_for(bootstrap: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config
}

pub fn admin() -> AdminClient<DefaultClientContext> {
    config(&[]).create().unwrap()
}

pub fn new_topic(name: &str, partitions: i32) -> NewTopic<'_> {
    NewTopic::new(name, partitions, TopicReplication::Fixed(-1))
}

pub fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE))
}

/// Creates a topic and waits until each broker knows the leaders of all its partitions. It keeps all records: those of
/// many tests have old timestamps, which the brokers would delete from time to time.
pub fn topic(partitions: i32) -> String {
    topic_at(bootstrap(), partitions)
}

pub fn topic_at(bootstrap: &str, partitions: i32) -> String {
    topic_with(bootstrap, partitions, &[KEEP_RECORDS])
}

/// Creates a topic of one partition with only these configs, and waits until each broker knows its leader.
pub fn configured_topic(configs: &[(&str, &str)]) -> String {
    topic_with(bootstrap(), 1, configs)
}

pub fn topic_with(bootstrap: &str, partitions: i32, configs: &[(&str, &str)]) -> String {
    let name = unique("topic");
    let admin: AdminClient<_> = config_for(bootstrap, &[]).create().unwrap();
    let wanted = new_topic(&name, partitions);
    let wanted = configs.iter().fold(wanted, |wanted, (name, value)| wanted.set(name, value));
    let created = wait(admin.create_topics(&[wanted], &options()));
    assert_eq!(created.unwrap(), [Ok(name.clone())]);
    for broker in bootstrap.split(',') {
        Raw::connect_to(broker).await_topic(&name, partitions as usize);
    }
    name
}

pub fn producer(settings: &[(&str, &str)]) -> FutureProducer {
    config(&[("linger.ms", "0")]).set_all(settings).create().unwrap()
}

/// Returns a producer that is ready for its first transaction.
pub fn transactional(id: &str) -> FutureProducer {
    let producer = producer(&[("transactional.id", id)]);
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

pub trait SetAll {
    fn set_all(&mut self, settings: &[(&str, &str)]) -> &mut Self;
}

impl SetAll for ClientConfig {
    fn set_all(&mut self, settings: &[(&str, &str)]) -> &mut Self {
        for (name, value) in settings {
            self.set(*name, *value);
        }
        self
    }
}

/// Sends one record and returns its offset.
pub fn send(producer: &FutureProducer, topic: &str, partition: i32, value: &str) -> KafkaResult<i64> {
    let record = FutureRecord::<(), _>::to(topic).partition(partition).payload(value);
    let delivered = wait(producer.send(record, PATIENCE));
    delivered.map(|delivery| delivery.offset).map_err(|(error, _)| error)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl<M: Message> From<&M> for Record {
    fn from(message: &M) -> Self {
        let headers = message.headers().map(|headers| {
            let pairs = headers.iter();
            pairs.map(|pair| (pair.key.to_owned(), pair.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        }
    }
}

pub fn headers(pairs: &[(&str, Option<&str>)]) -> OwnedHeaders {
    pairs
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: *value }))
}

/// Returns all records that a consumer sees in the topic, up to its current end.
pub fn read_all(topic: &str, isolation: &str) -> Vec<Record> {
    read_all_at(bootstrap(), topic, isolation)
}

pub fn read_all_at(bootstrap: &str, topic: &str, isolation: &str) -> Vec<Record> {
    let consumer: BaseConsumer = config_for(bootstrap, &[("group.id", &unique("reader"))])
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut unfinished: BTreeSet<i32> = eventually("the broker that answers knows the topic", || {
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let partitions = metadata.topics()[0].partitions().iter();
        Some(partitions.map(|part| part.id()).collect()).filter(|known: &BTreeSet<_>| !known.is_empty())
    });
    let mut wanted = TopicPartitionList::new();
    for partition in &unfinished {
        wanted.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&wanted).unwrap();
    let mut records = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !unfinished.is_empty() {
        assert!(Instant::now() < deadline, "the end of the topic is not reached");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => records.push(Record::from(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unfinished.remove(&partition);
            }
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    records
}

/// Returns the values, ordered by partition and offset.
pub fn values(topic: &str, isolation: &str) -> Vec<String> {
    values_of(read_all(topic, isolation))
}

pub fn values_of(mut records: Vec<Record>) -> Vec<String> {
    records.sort_by_key(|record| (record.partition, record.offset));
    let values = records.into_iter().map(|record| record.value.unwrap_or_default());
    values.map(|value| String::from_utf8(value).unwrap()).collect()
}

/// Waits until consumers see exactly these values: a cluster writes its markers after the response.
pub fn expect_values(topic: &str, isolation: &str, expected: &[&str]) {
    let mut seen = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        seen = values(topic, isolation);
        if seen == expected {
            return;
        }
    }
    panic!("{isolation}: saw {seen:?} instead of {expected:?}");
}

/// Returns the committed offset of the group.
pub fn committed(group: &str, topic: &str, partition: i32) -> Option<i64> {
    committed_at(bootstrap(), group, topic, partition)
}

pub fn committed_at(bootstrap: &str, group: &str, topic: &str, partition: i32) -> Option<i64> {
    let settings = [("group.id", group), ("isolation.level", "read_committed")];
    let consumer: BaseConsumer = config_for(bootstrap, &settings).create().unwrap();
    let found = eventually("the coordinator answers", || {
        let wanted = offsets(topic, partition, Offset::Invalid);
        consumer.committed_offsets(wanted, PATIENCE).ok()
    });
    match found.find_partition(topic, partition).unwrap().offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

pub fn offsets(topic: &str, partition: i32, offset: Offset) -> TopicPartitionList {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, offset).unwrap();
    offsets
}

pub fn error_code<T>(result: KafkaResult<T>) -> Option<RDKafkaErrorCode> {
    result.err().and_then(|error| error.rdkafka_error_code())
}
