//! Follows topics as they grow, without a consumer group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::{LoggingContext, client_config, default_to};
use super::record::Record;

const POLL: Duration = Duration::from_millis(100);
/// The interval between looks for new partitions.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The interval while a topic is missing or no broker answers.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The records that exist before following begins and that are read nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    Whole,
    /// At most this number of the newest offsets of each partition.
    Newest(i64),
}

/// What a follower sees.
#[derive(Debug)]
pub enum Sight {
    Record(Record),
    /// A record that was written before following began.
    Earlier(Record),
    /// The records of this topic are not those that were read before: the topic was created again.
    Recreated(Arc<str>),
}

/// Reads the committed records of topics from now on. Joins no group and commits no offsets.
pub struct TopicFollower {
    consumer: BaseConsumer<LoggingContext>,
    topics: Vec<(Arc<str>, Backlog)>,
    /// The next offset in each partition of the topic with this index.
    next: BTreeMap<(usize, i32), i64>,
    /// The ends of the partitions when following began.
    ends: BTreeMap<(usize, i32), i64>,
    /// Whether the brokers have answered once. A partition that appears later is read from its first record.
    has_begun: bool,
}

impl TopicFollower {
    /// Creates a follower of `topics`, which need not exist yet.
    ///
    /// # Errors
    /// Fails when librdkafka refuses the settings.
    pub fn new(kafka: &KafkaArgs, topics: Vec<(String, Backlog)>) -> anyhow::Result<Self> {
        let consumer = follower_config(kafka)
            .create_with_context(LoggingContext)
            .context("cannot set up a Kafka consumer; see --kafka-property (KAFKA_PROPERTIES)")?;
        let topics = topics.into_iter().map(|(topic, backlog)| (topic.into(), backlog)).collect();
        Ok(Self { consumer, topics, next: BTreeMap::new(), ends: BTreeMap::new(), has_begun: false })
    }

    /// Calls `each` for whatever it sees until `stop` is cancelled. This call blocks.
    pub fn run(mut self, stop: &CancellationToken, mut each: impl FnMut(Sight)) {
        let mut doubt = false;
        while !stop.is_cancelled() {
            let looked = self.look(doubt, &mut each);
            let failed = looked.is_err();
            let pause = match looked {
                Ok(true) => LOOK_INTERVAL,
                Ok(false) => RETRY_INTERVAL,
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "cannot follow the topics, will retry");
                    RETRY_INTERVAL
                }
            };
            // A position that could not be checked is still in doubt.
            doubt = self.read(Instant::now() + pause, stop, &mut each) || (doubt && failed);
        }
    }

    /// Reads until `until`, and returns whether a partition does not have the expected offset.
    fn read(&mut self, until: Instant, stop: &CancellationToken, each: &mut impl FnMut(Sight)) -> bool {
        while Instant::now() < until && !stop.is_cancelled() {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let index = self.topics.iter().position(|(topic, _)| **topic == *message.topic());
                    let Some((index, (topic, _))) =
                        index.and_then(|index| Some((index, self.topics.get(index)?)))
                    else {
                        continue;
                    };
                    let record = Record::read(&message, topic);
                    let key = (index, record.partition);
                    self.next.insert(key, record.offset + 1);
                    let is_earlier = self.ends.get(&key).is_some_and(|end| record.offset < *end);
                    each(if is_earlier { Sight::Earlier(record) } else { Sight::Record(record) });
                }
                Some(Err(error)) if makes_doubtful(&error) => return true,
                // The client reconnects by itself.
                Some(Err(_)) | None => {}
            }
        }
        false
    }

    /// Looks which partitions exist and reads new ones too. With `doubt`, also checks the positions in those that it
    /// reads already. Returns whether all topics exist.
    fn look(&mut self, doubt: bool, each: &mut impl FnMut(Sight)) -> anyhow::Result<bool> {
        let mut found = BTreeMap::new();
        let mut complete = true;
        for (index, (topic, backlog)) in self.topics.iter().enumerate() {
            let partitions = partitions_of(&self.consumer, topic)?;
            complete &= !partitions.is_empty();
            let mut recreated = false;
            for partition in partitions {
                let known = self.next.get(&(index, partition)).copied();
                if let Some(next) = known.filter(|_| !doubt) {
                    found.insert((index, partition), next);
                    continue;
                }
                let (first, end) = self.consumer.fetch_watermarks(topic, partition, CALL_TIMEOUT)?;
                let start = match (known, backlog) {
                    (Some(next), _) if (first..=end).contains(&next) => next,
                    (Some(next), _) => {
                        if next > end {
                            recreated = true;
                            self.ends.remove(&(index, partition));
                        }
                        first
                    }
                    (None, backlog) if !self.has_begun => {
                        self.ends.insert((index, partition), end);
                        match backlog {
                            Backlog::Whole => first,
                            Backlog::Newest(count) => first.max(end - count),
                        }
                    }
                    (None, _) => first,
                };
                found.insert((index, partition), start);
            }
            if recreated {
                each(Sight::Recreated(Arc::clone(topic)));
            }
        }
        self.has_begun = true;
        if doubt || !found.keys().eq(self.next.keys()) {
            let mut list = TopicPartitionList::with_capacity(found.len());
            for ((index, partition), next) in &found {
                let (topic, _) = self.topics.get(*index).context("an unknown topic")?;
                list.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
            }
            self.consumer.assign(&list)?;
            self.next = found;
        }
        Ok(complete)
    }
}

/// Returns whether a partition may not have the expected offset after `error`.
fn makes_doubtful(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopic
        )
    )
}

/// Returns the partitions of a topic, or none when it does not exist.
fn partitions_of(consumer: &BaseConsumer<LoggingContext>, topic: &str) -> anyhow::Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), CALL_TIMEOUT).context("no broker answers")?;
    let Some(found) = metadata.topics().first() else { return Ok(Vec::new()) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(found.partitions().iter().map(|partition| partition.id()).collect()),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(Vec::new()),
        Some(code) => Err(KafkaError::MetadataFetch(code).into()),
    }
}

pub(super) fn follower_config(kafka: &KafkaArgs) -> ClientConfig {
    let mut config = client_config(kafka);
    config
        // librdkafka requires a group, even for a consumer that never joins it.
        .set("group.id", "vehicle-platform-follower")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed");
    default_to(&mut config, "queued.max.messages.kbytes", "2048");
    config
}
