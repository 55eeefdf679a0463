//! A number that is kept on the cluster, and moved by a transaction: the committed offset of a group that has no
//! members.
//!
//! The brokers forget the offsets of such a group `offsets.retention.minutes` (7 days) after its last commit.

use std::sync::Arc;

use anyhow::Context as _;
use rdkafka::consumer::{Consumer as _, ConsumerGroupMetadata};
use rdkafka::{Offset, TopicPartitionList};

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::observer::{Isolation, Observer};
use super::transaction::Progress;

/// The offset of a group in partition 0 of a topic.
pub struct Marker {
    topic: String,
    group: Arc<ConsumerGroupMetadata>,
    committed: Option<i64>,
}

impl Marker {
    /// Reads the number of `group`.
    ///
    /// # Errors
    /// When the brokers do not tell it, or a setting is not one of librdkafka's.
    pub fn read(kafka: &KafkaArgs, group: &str, topic: &str) -> anyhow::Result<Self> {
        let observer = Observer::new(kafka, Some(group), Isolation::ReadCommitted)?;
        let consumer = observer.consumer()?;
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, 0);
        let unknown = "the brokers do not tell what was published";
        let offsets = consumer.committed_offsets(list, CALL_TIMEOUT).context(unknown)?;
        let element = offsets.find_partition(topic, 0).context(unknown)?;
        element.error().context(unknown)?;
        let committed = match element.offset() {
            Offset::Offset(number) => Some(number),
            _ => None,
        };
        let group = consumer.group_metadata().context("the consumer has no group")?;
        Ok(Self { topic: topic.to_owned(), group: Arc::new(group), committed })
    }

    /// The number as it was read, or `None` when there never was one.
    pub fn committed(&self) -> Option<i64> {
        self.committed
    }

    /// What moves it to `number`.
    pub fn progress(&self, number: i64) -> Progress {
        Progress { topic: self.topic.clone(), next: vec![(0, number)] }
    }

    pub fn group(&self) -> &Arc<ConsumerGroupMetadata> {
        &self.group
    }
}
