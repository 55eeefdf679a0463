//! Stores a mark of progress on the cluster, which a transaction can move: the committed offset of a group without
//! members, with text of the platform as its metadata.
//!
//! The brokers delete the offsets of such a group `offsets.retention.minutes` (7 days) after its last commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer as _, ConsumerGroupMetadata};

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::observer::{Isolation, Observer};
use super::progress::{Mark, Progress};
use super::transaction::TRANSACTION_TIMEOUT;

/// The pause between attempts to read a mark.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The mark of a group in partition 0 of a topic.
pub struct Marker {
    topic: String,
    group: Arc<ConsumerGroupMetadata>,
    cluster_id: String,
    mark: Option<Mark>,
}

impl Marker {
    /// Reads the mark of `group`. This call blocks. It waits at most two transaction timeouts for a transaction of
    /// another producer that is about to move the mark. After that, there is no mark.
    ///
    /// # Errors
    /// Fails when the brokers do not respond, or librdkafka rejects a setting.
    pub fn read(kafka: &KafkaArgs, group: &str, topic: &str) -> anyhow::Result<Self> {
        let observer = Observer::new(kafka, Some(group), Isolation::ReadCommitted)?;
        let cluster_id = observer.ask(|consumer| {
            let id = consumer.client().fetch_cluster_id(CALL_TIMEOUT);
            id.context("the brokers did not name their cluster in time")
        })?;
        let unknown = "the brokers did not return what was published";
        let until = Instant::now() + 2 * TRANSACTION_TIMEOUT;
        let mark = loop {
            match read_mark(&observer, topic) {
                Ok(mark) => break mark,
                Err(_) if Instant::now() < until && is_unstable(kafka, group, topic) => pause(),
                Err(error) if Instant::now() < until => return Err(error).context(unknown),
                Err(error) => {
                    tracing::warn!(group, %error, "the mark is still blocked by a transaction, continuing without it");
                    break None;
                }
            }
        };
        let group =
            observer.ask(|consumer| consumer.group_metadata().context("the consumer has no group"))?;
        Ok(Self { topic: topic.to_owned(), group: Arc::new(group), cluster_id, mark })
    }

    /// Returns the mark that was read, or `None` when there is none.
    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    /// Returns the id of the cluster, which never changes.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Returns the progress that moves the mark to `mark`.
    pub fn progress(&self, mark: Mark) -> Progress {
        Progress { topic: self.topic.clone(), next: vec![(0, mark)] }
    }

    pub fn group(&self) -> &Arc<ConsumerGroupMetadata> {
        &self.group
    }
}

#[expect(clippy::disallowed_methods, reason = "a blocking call")]
fn pause() {
    std::thread::sleep(RETRY_PAUSE);
}

fn read_mark(observer: &Observer, topic: &str) -> anyhow::Result<Option<Mark>> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let offsets = observer.ask(|consumer| Ok(consumer.committed_offsets(list, CALL_TIMEOUT)?))?;
    let element = offsets.find_partition(topic, 0).context("the response lacks the partition")?;
    element.error()?;
    Ok(Mark::of(&element))
}

/// Returns whether the brokers return the mark only to readers that do not wait for open transactions.
fn is_unstable(kafka: &KafkaArgs, group: &str, topic: &str) -> bool {
    let observer = Observer::new(kafka, Some(group), Isolation::ReadUncommitted);
    observer.and_then(|observer| read_mark(&observer, topic)).is_ok()
}
