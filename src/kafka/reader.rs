//! Reads a topic from its first record to what is its last one when the reading begins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::{LoggingContext, client_config, default_to};
use super::observer::{Isolation, Observer, partitions};
use super::record::Record;

/// How long nothing may come. A transaction that its producer left open holds readers back until it times out,
/// which ours do after 20 s.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// The committed records of a topic at one moment. Belongs to no group, and changes nothing.
pub struct TopicReader {
    consumer: BaseConsumer<LoggingContext>,
    topic: String,
    /// The partitions of which something is left to be read.
    left: BTreeMap<i32, Left>,
}

/// What is left to be read of a partition.
struct Left {
    next: i64,
    end: i64,
    /// Whether the brokers said that there is no more, and were asked again.
    doubted: bool,
}

impl TopicReader {
    /// Waits until the transactions are over that are open now, and may hold records back. Blocks.
    ///
    /// # Errors
    /// When there is no such topic, or the brokers do not answer.
    pub fn open(kafka: &KafkaArgs, topic: &str) -> anyhow::Result<Self> {
        let unreadable = || format!("cannot read {topic}");
        let everything = consumer(kafka, "read_uncommitted").with_context(unreadable)?;
        let committed = consumer(kafka, "read_committed").with_context(unreadable)?;
        let mut left = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for partition in partitions(&everything, topic).with_context(unreadable)? {
            let (first, end) =
                everything.fetch_watermarks(topic, partition, CALL_TIMEOUT).with_context(unreadable)?;
            if first == end {
                continue;
            }
            await_stable(&committed, topic, partition, end).with_context(unreadable)?;
            list.add_partition_offset(topic, partition, Offset::Beginning).with_context(unreadable)?;
            left.insert(partition, Left { next: first, end, doubted: false });
        }
        committed.assign(&list).with_context(unreadable)?;
        Ok(Self { consumer: committed, topic: topic.to_owned(), left })
    }

    /// Hands each record over, those of a partition in their order.
    ///
    /// # Errors
    /// When the brokers stop answering, or those of `each`.
    pub fn for_each(mut self, mut each: impl FnMut(Record) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let topic: Arc<str> = self.topic.as_str().into();
        let mut progress = Instant::now();
        let mut last_error = None;
        while !self.left.is_empty() {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let record = Record::read(&message, &topic);
                    let Some(left) = self.left.get_mut(&record.partition) else { continue };
                    left.next = record.offset + 1;
                    left.doubted = false;
                    let end = left.end;
                    if record.offset + 1 >= end {
                        self.left.remove(&record.partition);
                    }
                    if record.offset < end {
                        each(record)?;
                    }
                    progress = Instant::now();
                }
                // What lies between the last record and the end are the marks of transactions, which nobody is shown.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let was_left = self.doubt(partition)?;
                    if was_left {
                        progress = Instant::now();
                    }
                }
                // The brokers removed records that were still to be read.
                Some(Err(error))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset)
                        || self.consumer.client().fatal_error().is_some() =>
                {
                    return Err(error).with_context(|| format!("cannot read {}", self.topic));
                }
                Some(Err(error)) => last_error = Some(error),
                None => {}
            }
            if progress.elapsed() > PATIENCE {
                let reason = last_error.map(|error| error.to_string());
                bail!(
                    "cannot read {}: {}",
                    self.topic,
                    reason.as_deref().unwrap_or("the brokers do not answer")
                );
            }
        }
        Ok(())
    }

    /// A broker that has just become the leader may not yet know how much of what it holds is committed, and takes
    /// its records for all there is. So the end is believed when it is said once more, after the leader has told that
    /// it knows of ours. Tells whether something was left of the partition.
    fn doubt(&mut self, partition: i32) -> anyhow::Result<bool> {
        let Some(left) = self.left.get_mut(&partition) else { return Ok(false) };
        if left.doubted {
            self.left.remove(&partition);
            return Ok(true);
        }
        left.doubted = true;
        let again = await_stable(&self.consumer, &self.topic, partition, left.end).and_then(|()| {
            Ok(self.consumer.seek(&self.topic, partition, Offset::Offset(left.next), CALL_TIMEOUT)?)
        });
        again.with_context(|| format!("cannot read {}", self.topic))?;
        Ok(true)
    }
}

/// What a group has committed in each partition of a topic that it ever read: the next offset that it will read.
/// Waits for transactions under way, which may move it. Blocks.
///
/// # Errors
/// When the brokers do not tell.
pub fn committed_offsets(kafka: &KafkaArgs, group: &str, topic: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
    Observer::new(kafka, Some(group), Isolation::ReadCommitted)?
        .committed(topic, PATIENCE)
        .with_context(|| format!("the brokers do not tell what {group} has committed"))
}

/// Looks for a committed record at or after an offset of each partition in `from`. Returns the partitions of which it was
/// found out in time whether there is one. Blocks.
///
/// # Errors
/// When the client cannot be set up.
pub(super) fn records_wait(
    kafka: &KafkaArgs,
    topic: &str,
    from: &BTreeMap<i32, i64>,
) -> anyhow::Result<BTreeMap<i32, bool>> {
    let consumer = consumer(kafka, "read_committed")?;
    let mut list = TopicPartitionList::new();
    for (partition, next) in from {
        list.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
    }
    consumer.assign(&list)?;
    let mut found = BTreeMap::new();
    let began = Instant::now();
    while found.len() < from.len() && began.elapsed() < CALL_TIMEOUT {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                found.insert(message.partition(), true);
                // The others are not to wait behind its records.
                let mut list = TopicPartitionList::new();
                list.add_partition(topic, message.partition());
                consumer.pause(&list)?;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                found.entry(partition).or_insert(false);
            }
            Some(Err(_)) | None => {}
        }
    }
    Ok(found)
}

fn consumer(kafka: &KafkaArgs, isolation_level: &str) -> anyhow::Result<BaseConsumer<LoggingContext>> {
    reader_config(kafka, isolation_level)
        .create_with_context(LoggingContext)
        .context("cannot set up a Kafka consumer; see --kafka-property")
}

pub(super) fn reader_config(kafka: &KafkaArgs, isolation_level: &str) -> ClientConfig {
    let mut config = client_config(kafka);
    config
        // librdkafka asks for one, even of a consumer that never joins it.
        .set("group.id", "vehicle-platform-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("isolation.level", isolation_level);
    // An answer without records marks the end, so there is nothing to wait for.
    default_to(&mut config, "fetch.wait.max.ms", "10");
    default_to(&mut config, "queued.max.messages.kbytes", "16384");
    config
}

/// Until all that lies before `end` is committed or aborted, and its leader knows that.
#[expect(clippy::disallowed_methods, reason = "a blocking call")]
fn await_stable(
    committed: &BaseConsumer<LoggingContext>,
    topic: &str,
    partition: i32,
    end: i64,
) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        // The consumer's isolation level makes this the last stable offset.
        let stable = committed.fetch_watermarks(topic, partition, CALL_TIMEOUT);
        match stable {
            Ok((_, stable)) if stable >= end => return Ok(()),
            Ok(_) if began.elapsed() > PATIENCE => bail!(
                "partition {partition} has a transaction that was left open; try again when it has timed out"
            ),
            // A leader that was just elected does not tell until it has caught up (KIP-207).
            Err(error) if began.elapsed() > PATIENCE => return Err(error.into()),
            Ok(_) | Err(_) => std::thread::sleep(POLL),
        }
    }
}
