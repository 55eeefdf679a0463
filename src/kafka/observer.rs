//! Queries the brokers about topics and groups without joining a group.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::{ClosedElsewhere, client_config};
use super::connection_watch::ConnectionWatch;
use super::reach::{CUT_OFF, names_brokers};

/// The records and offsets that are visible to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Those of committed transactions. Reading an offset waits for an open transaction that moves it (KIP-447).
    ReadCommitted,
    ReadUncommitted,
}

/// The time without an answer after which a client is replaced in any case. It is longer than librdkafka waits for a
/// connection (`socket.connection.setup.timeout.ms`).
const GIVE_UP: Duration = Duration::from_secs(60);

type Client = ClosedElsewhere<BaseConsumer<ConnectionWatch>>;

/// Queries the brokers. It caches no results, and every call blocks.
pub(super) struct Observer {
    config: ClientConfig,
    client: Mutex<Arc<Client>>,
}

impl Observer {
    /// Creates an observer that can read the committed offsets of `group`, if there is one.
    pub(super) fn new(kafka: &KafkaArgs, group: Option<&str>, isolation: Isolation) -> anyhow::Result<Self> {
        let config = observer_config(kafka, group, isolation);
        let client = Mutex::new(connect(&config, ConnectionWatch::new(kafka))?);
        Ok(Self { config, client })
    }

    /// Runs a query. When it fails and no broker has answered for some time, replaces the client, which may be cut off for
    /// ever (see [`Reach`](super::reach::Reach)).
    pub(super) fn ask<T>(
        &self,
        query: impl FnOnce(&BaseConsumer<ConnectionWatch>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let client = self.client();
        let consumer = client.get()?;
        handle_events(consumer);
        let result = query(consumer);
        let watch = consumer.context();
        match &result {
            Ok(_) => watch.answered(),
            Err(_) => {
                let limit = if watch.lost_all_brokers() { CUT_OFF } else { GIVE_UP };
                if watch.unanswered_for() >= limit {
                    self.replace(&client, watch.successor());
                }
            }
        }
        result
    }

    fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces a client, unless another query has done so.
    fn replace(&self, failed: &Arc<Client>, watch: ConnectionWatch) {
        let mut current = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, failed) {
            return;
        }
        match connect(&self.config, watch) {
            Ok(client) => *current = client,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "cannot replace a Kafka client that gets no answer"
                );
            }
        }
    }

    /// Adds the reason to the error of a query that no broker answered.
    pub(super) fn explain(&self, error: impl Into<anyhow::Error>) -> anyhow::Error {
        match self.client().get() {
            Ok(consumer) => {
                handle_events(consumer);
                consumer.context().explain(error)
            }
            Err(closed) => closed,
        }
    }

    /// Returns whether the topic exists.
    ///
    /// # Errors
    /// Fails with the reason when no broker answers.
    pub(super) fn has_topic(&self, topic: &str) -> anyhow::Result<bool> {
        self.ask(|consumer| {
            let metadata = metadata(consumer, topic)?;
            let error = metadata.topics().iter().find_map(|topic| topic.error());
            match error.map(RDKafkaErrorCode::from) {
                None => Ok(true),
                Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(false),
                Some(code) => Err(consumer.context().explain(KafkaError::MetadataFetch(code))),
            }
        })
    }

    /// Returns the committed offset of the group in each partition that it ever read: the next offset that it will
    /// read.
    pub(super) fn committed(&self, topic: &str, patience: Duration) -> anyhow::Result<BTreeMap<i32, i64>> {
        self.ask(|consumer| {
            let mut list = TopicPartitionList::new();
            for partition in partitions(consumer, topic)? {
                list.add_partition(topic, partition);
            }
            let mut committed = BTreeMap::new();
            for element in consumer.committed_offsets(list, patience)?.elements() {
                element.error()?;
                if let Offset::Offset(next) = element.offset() {
                    committed.insert(element.partition(), next);
                }
            }
            Ok(committed)
        })
    }

    /// Returns the first offset and the next one to be written of each partition.
    pub(super) fn bounds(&self, topic: &str) -> anyhow::Result<BTreeMap<i32, (i64, i64)>> {
        self.ask(|consumer| {
            let mut bounds = BTreeMap::new();
            for partition in partitions(consumer, topic)? {
                bounds.insert(partition, consumer.fetch_watermarks(topic, partition, CALL_TIMEOUT)?);
            }
            Ok(bounds)
        })
    }
}

fn connect(config: &ClientConfig, watch: ConnectionWatch) -> anyhow::Result<Arc<Client>> {
    let consumer = config
        .create_with_context(watch)
        .context("cannot set up a Kafka consumer; see --kafka-property (KAFKA_PROPERTIES)")?;
    Ok(Arc::new(ClosedElsewhere::new(consumer)))
}

pub(super) fn observer_config(kafka: &KafkaArgs, group: Option<&str>, isolation: Isolation) -> ClientConfig {
    let mut config = client_config(kafka);
    if let Some(group) = group {
        config.set("group.id", group);
    }
    let isolation = match isolation {
        Isolation::ReadCommitted => "read_committed",
        Isolation::ReadUncommitted => "read_uncommitted",
    };
    config.set("enable.auto.commit", "false").set("isolation.level", isolation);
    config
}

/// Returns the offset of the first record of each partition that is newer than a time in milliseconds since the Unix
/// epoch, if there is one. When the brokers set the times, a record before the last one that was read is not newer than it,
/// unless the partition has another log or was led by brokers whose clocks differ. This call blocks.
///
/// # Errors
/// Fails when the brokers do not respond.
pub(super) fn first_newer<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    times: impl IntoIterator<Item = (i32, i64)>,
) -> anyhow::Result<BTreeMap<i32, i64>> {
    let mut list = TopicPartitionList::new();
    for (partition, time) in times {
        // Negative times have a meaning of their own.
        let newer = Offset::Offset(time.saturating_add(1).max(0));
        list.add_partition_offset(topic, partition, newer)?;
    }
    let mut found = BTreeMap::new();
    if list.count() == 0 {
        return Ok(found);
    }
    for element in consumer.offsets_for_times(list, CALL_TIMEOUT)?.elements() {
        element.error()?;
        if let Offset::Offset(newer) = element.offset() {
            found.insert(element.partition(), newer);
        }
    }
    Ok(found)
}

pub(super) fn partitions(consumer: &BaseConsumer<ConnectionWatch>, topic: &str) -> anyhow::Result<Vec<i32>> {
    let metadata = metadata(consumer, topic)?;
    let topic = metadata.topics().first().filter(|topic| topic.error().is_none());
    let topic = topic.context("the topic does not exist (--kafka-prefix)")?;
    Ok(topic.partitions().iter().map(|partition| partition.id()).collect())
}

fn metadata(consumer: &BaseConsumer<ConnectionWatch>, topic: &str) -> anyhow::Result<Metadata> {
    let metadata = consumer.fetch_metadata(Some(topic), CALL_TIMEOUT);
    handle_events(consumer);
    let watch = consumer.context();
    let metadata = metadata.map_err(|error| watch.explain(error))?;
    if !names_brokers(&metadata) {
        return Err(watch.explain(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerNotAvailable)));
    }
    watch.answered();
    Ok(metadata)
}

/// Passes the events since the last call, such as lost connections, to the context of the client.
fn handle_events(consumer: &BaseConsumer<ConnectionWatch>) {
    while consumer.poll(Duration::ZERO).is_some() {}
}
