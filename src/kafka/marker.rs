//! A number that is kept on the cluster, and moved by a transaction: the committed offset of a group that has no
//! members.
//!
//! The brokers forget the offsets of such a group `offsets.retention.minutes` (7 days) after its last commit.

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::{Offset, TopicPartitionList};

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::{LoggingContext, client_config};
use super::transaction::Progress;

/// The offset of `group` in partition 0 of a topic.
pub struct Marker {
    consumer: BaseConsumer<LoggingContext>,
    topic: String,
}

impl Marker {
    /// # Errors
    /// When a setting is not one of librdkafka's.
    pub fn new(kafka: &KafkaArgs, group: &str, topic: &str) -> anyhow::Result<Self> {
        let consumer = client_config(kafka)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            // Waits for transactions under way, whose outcome decides the number (KIP-447).
            .set("isolation.level", "read_committed")
            .create_with_context(LoggingContext)
            .context("cannot set up a Kafka consumer; see --kafka-property")?;
        Ok(Self { consumer, topic: topic.to_owned() })
    }

    /// The number, or `None` when there never was one.
    ///
    /// # Errors
    /// When the brokers do not tell.
    pub fn committed(&self) -> anyhow::Result<Option<i64>> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, 0);
        let committed = self
            .consumer
            .committed_offsets(list, CALL_TIMEOUT)
            .context("the brokers do not tell what was published")?;
        let element = committed.find_partition(&self.topic, 0).context("no offset in the answer")?;
        element.error().context("the brokers do not tell what was published")?;
        match element.offset() {
            Offset::Offset(number) => Ok(Some(number)),
            _ => Ok(None),
        }
    }

    pub fn progress(&self, number: i64) -> Progress {
        Progress { topic: self.topic.clone(), next: vec![(0, number)] }
    }

    /// # Errors
    /// When the client has no group, which it was made with.
    pub fn group(&self) -> anyhow::Result<ConsumerGroupMetadata> {
        self.consumer.group_metadata().context("the consumer has no group")
    }
}
