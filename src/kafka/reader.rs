//! Reads a topic from its first record to the record that is the last one when reading begins.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::{client_config, default_to};
use super::connection_watch::ConnectionWatch;
use super::observer::{Isolation, Observer, partitions};
use super::record::Record;

/// The time without a record after which reading fails. A transaction that its producer left open blocks readers until
/// it times out, after 20 s for transactions of the platform.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// A reader of the records that are committed when it is opened. It joins no group and commits no offsets.
pub struct TopicReader {
    consumer: BaseConsumer<ConnectionWatch>,
    topic: String,
    /// The partitions that were not read to their end yet.
    left: BTreeMap<i32, Left>,
    offsets: BTreeMap<i32, Range<i64>>,
}

/// The remaining offsets of a partition.
struct Left {
    next: i64,
    end: i64,
    /// Whether the brokers have reported the end once and were queried again.
    doubted: bool,
}

impl TopicReader {
    /// Opens a reader. This call blocks until the transactions that are open now have ended.
    ///
    /// # Errors
    /// Fails when the topic does not exist, the brokers do not respond, or a transaction stays open for a minute.
    pub fn open(kafka: &KafkaArgs, topic: &str) -> anyhow::Result<Self> {
        Self::open_from(kafka, topic, &BTreeMap::new())
    }

    /// Opens a reader of the records at or after an offset of each partition; by default, the first one.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn open_from(kafka: &KafkaArgs, topic: &str, from: &BTreeMap<i32, i64>) -> anyhow::Result<Self> {
        let unreadable = || format!("cannot read {topic}");
        let everything = consumer(kafka, "read_uncommitted").with_context(unreadable)?;
        let committed = consumer(kafka, "read_committed").with_context(unreadable)?;
        let (mut left, mut offsets) = (BTreeMap::new(), BTreeMap::new());
        let mut list = TopicPartitionList::new();
        for partition in partitions(&everything, topic).with_context(unreadable)? {
            let (first, end) =
                everything.fetch_watermarks(topic, partition, CALL_TIMEOUT).with_context(unreadable)?;
            let next = from.get(&partition).copied().unwrap_or(first).max(first);
            offsets.insert(partition, first..end);
            if next >= end {
                continue;
            }
            await_stable(&committed, topic, partition, end).with_context(unreadable)?;
            let start = if next > first { Offset::Offset(next) } else { Offset::Beginning };
            list.add_partition_offset(topic, partition, start).with_context(unreadable)?;
            left.insert(partition, Left { next, end, doubted: false });
        }
        committed.assign(&list).with_context(unreadable)?;
        Ok(Self { consumer: committed, topic: topic.to_owned(), left, offsets })
    }

    /// Returns the offset in each partition up to which the reader reads.
    pub fn ends(&self) -> BTreeMap<i32, i64> {
        self.offsets.iter().map(|(partition, offsets)| (*partition, offsets.end)).collect()
    }

    /// Returns the offsets that each partition has, whichever the reader reads.
    pub fn offsets(&self) -> &BTreeMap<i32, Range<i64>> {
        &self.offsets
    }

    /// Calls `each` for every record, in order within a partition.
    ///
    /// # Errors
    /// Fails when the brokers stop responding or `each` fails.
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
                // Only transaction markers, which are not visible to consumers, follow the last record.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let was_left = self.doubt(partition)?;
                    if was_left {
                        progress = Instant::now();
                    }
                }
                // The brokers deleted records that were not read yet.
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
                    reason.as_deref().unwrap_or("the brokers do not respond")
                );
            }
        }
        Ok(())
    }

    /// Handles the reported end of a partition, and returns whether the partition was not finished.
    ///
    /// A broker that has just become the leader may not know yet which of its records are committed, and may report the
    /// end too early. The reader therefore waits until the leader knows the expected end, reads again, and accepts the
    /// end only when it is reported a second time.
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

/// Returns the offset that a group has committed in each partition that it ever read: the next offset that it will
/// read. This call blocks until open transactions, which may move the offsets, have ended.
///
/// # Errors
/// Fails when the brokers do not return the offsets within a minute.
pub fn committed_offsets(kafka: &KafkaArgs, group: &str, topic: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
    Observer::new(kafka, Some(group), Isolation::ReadCommitted)?
        .committed(topic, PATIENCE)
        .with_context(|| format!("the brokers did not return the committed offsets of {group}"))
}

/// Returns whether a committed record exists at or after the given offset of each partition in `from`. Omits partitions
/// for which this could not be determined within 5 s. This call blocks.
///
/// # Errors
/// Fails when the client cannot be set up.
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
                // Do not let its records delay the other partitions.
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

fn consumer(kafka: &KafkaArgs, isolation_level: &str) -> anyhow::Result<BaseConsumer<ConnectionWatch>> {
    reader_config(kafka, isolation_level)
        .create_with_context(ConnectionWatch::new(kafka))
        .context("cannot set up a Kafka consumer; see --kafka-property (KAFKA_PROPERTIES)")
}

pub(super) fn reader_config(kafka: &KafkaArgs, isolation_level: &str) -> ClientConfig {
    let mut config = client_config(kafka);
    config
        // librdkafka requires a group, even for a consumer that never joins it.
        .set("group.id", "vehicle-platform-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("isolation.level", isolation_level);
    // A response without records marks the end, so waiting for more is not useful.
    default_to(&mut config, "fetch.wait.max.ms", "10");
    default_to(&mut config, "queued.max.messages.kbytes", "16384");
    config
}

/// Waits until all records before `end` are committed or aborted and the leader of the partition knows this.
#[expect(clippy::disallowed_methods, reason = "a blocking call")]
fn await_stable(
    committed: &BaseConsumer<ConnectionWatch>,
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
            Ok(_) if began.elapsed() > PATIENCE => {
                bail!("partition {partition} has an open transaction; retry after it has timed out")
            }
            // A newly elected leader returns an error until it has caught up (KIP-207).
            Err(error) if began.elapsed() > PATIENCE => return Err(error.into()),
            Ok(_) | Err(_) => std::thread::sleep(POLL),
        }
    }
}
