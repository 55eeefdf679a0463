//! Follows topics as they grow, without a consumer group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::args::KafkaArgs;
use super::client::{LoggingContext, client_config, default_to};
use super::consumed::Consumed;
use super::observer::{Isolation, Observer, first_newer};
use super::reader::records_wait;
use super::record::Record;
use super::silence::{Extent, SilentPartitions};

const POLL: Duration = Duration::from_millis(100);
/// The interval between looks at the partitions.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The interval while a topic is missing or no broker answers.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The time within which a client delivers the last record again.
const DELIVERY_LIMIT: Duration = Duration::from_secs(20);

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
    /// The topic was created again, and its records are read from the first one.
    Recreated(Arc<str>),
}

/// Reads the committed records of topics from now on. Joins no group and commits no offsets.
pub struct TopicFollower {
    kafka: KafkaArgs,
    observer: Observer,
    topics: Vec<Followed>,
    /// Whether the brokers have answered once. A partition that appears later is read from its first record.
    has_begun: bool,
}

struct Followed {
    topic: Arc<str>,
    backlog: Backlog,
    places: BTreeMap<i32, Place>,
    /// Whether the topic was missing when the brokers answered last.
    is_missing: bool,
    silent: SilentPartitions,
}

/// How far a partition was read.
#[derive(Clone, Copy, Debug)]
struct Place {
    next: i64,
    last: Option<Consumed>,
    /// The end of the partition when following began.
    began: i64,
    /// The time of the newest record that was read, in milliseconds since the Unix epoch. Records need not be in the
    /// order of their times.
    written: Option<i64>,
    /// The end up to which no further record was found.
    empty_until: i64,
    suspicion: Suspicion,
}

/// Whether the partition may have another log, with at least as many records as the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspicion {
    None,
    /// The record at `newer`, before the last one, is newer than all that were read. The client that begins at `since`
    /// delivers the last one to compare it.
    Raised {
        newer: i64,
        since: Instant,
    },
    /// The record at this offset belongs to the same log and was not read, because it was there before.
    Refuted(i64),
}

/// What a look at the partitions shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// The client reads everything that exists.
    Same,
    /// As before, but a topic does not exist.
    Incomplete,
    /// Partitions were added, or a position may not be the right one: a new client has to check all positions.
    Doubtful,
}

impl TopicFollower {
    /// Creates a follower of `topics`, which need not exist yet.
    ///
    /// # Errors
    /// Fails when librdkafka refuses the settings.
    pub fn new(kafka: &KafkaArgs, topics: Vec<(String, Backlog)>) -> anyhow::Result<Self> {
        let followed = |(topic, backlog): (String, Backlog)| Followed {
            topic: topic.into(),
            backlog,
            places: BTreeMap::new(),
            is_missing: false,
            silent: SilentPartitions::default(),
        };
        Ok(Self {
            kafka: kafka.clone(),
            observer: Observer::new(kafka, None, Isolation::ReadCommitted)?,
            topics: topics.into_iter().map(followed).collect(),
            has_begun: false,
        })
    }

    /// Calls `each` for whatever it sees until `stop` is cancelled. This call blocks, on a thread of an async runtime that
    /// may block.
    pub fn run(mut self, stop: &CancellationToken, mut each: impl FnMut(Sight)) {
        while !stop.is_cancelled() {
            if let Err(error) = self.follow(stop, &mut each) {
                tracing::debug!(error = format!("{error:#}"), "cannot follow the topics, will retry");
            }
            // Ends early when `stop` is cancelled.
            let _ = Handle::current().block_on(tokio::time::timeout(RETRY_INTERVAL, stop.cancelled()));
        }
    }

    /// Reads with one client until a position is in doubt. librdkafka may never again read from a partition whose topic
    /// was created again, so only another client goes on.
    fn follow(&mut self, stop: &CancellationToken, each: &mut impl FnMut(Sight)) -> anyhow::Result<()> {
        let list = self.find_places(each)?;
        let consumer: BaseConsumer<_> = follower_config(&self.kafka)
            .create_with_context(LoggingContext)
            .context("cannot set up a Kafka consumer; see --kafka-property (KAFKA_PROPERTIES)")?;
        consumer.assign(&list)?;
        while !stop.is_cancelled() {
            let interval = match self.look(each) {
                Ok(Look::Doubtful) => return Ok(()),
                Ok(Look::Same) => LOOK_INTERVAL,
                Ok(Look::Incomplete) => RETRY_INTERVAL,
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "cannot look at the topics, will retry");
                    RETRY_INTERVAL
                }
            };
            if !self.read(&consumer, Instant::now() + interval, stop, each) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns the offsets to begin with, which are those of the last records that were read, so that it shows whether
    /// the log is still the same one.
    fn find_places(&mut self, each: &mut impl FnMut(Sight)) -> anyhow::Result<TopicPartitionList> {
        let mut all = Vec::new();
        for followed in &self.topics {
            all.push(if self.observer.has_topic(&followed.topic)? {
                self.observer.bounds(&followed.topic)?
            } else {
                BTreeMap::new()
            });
        }
        let mut list = TopicPartitionList::new();
        for (followed, bounds) in self.topics.iter_mut().zip(all) {
            let is_shorter = |place: &Place, end: i64| place.next > end;
            if bounds.iter().any(|(partition, (_, end))| {
                followed.places.get(partition).is_some_and(|place| is_shorter(place, *end))
            }) {
                followed.begin_again(each);
            }
            followed.is_missing = bounds.is_empty();
            for (partition, (first, end)) in bounds {
                let (next, began) = match followed.backlog {
                    _ if self.has_begun => (first, i64::MIN),
                    Backlog::Whole => (first, end),
                    Backlog::Newest(count) => (first.max(end - count), end),
                };
                let new = Place {
                    next,
                    last: None,
                    began,
                    written: None,
                    empty_until: i64::MIN,
                    suspicion: Suspicion::None,
                };
                let place = followed.places.entry(partition).or_insert(new);
                if let Suspicion::Raised { since, .. } = &mut place.suspicion {
                    *since = Instant::now();
                }
                let offset = place.last.map_or(place.next, |last| last.offset).max(first);
                list.add_partition_offset(&followed.topic, partition, Offset::Offset(offset))?;
            }
        }
        self.has_begun = true;
        Ok(list)
    }

    /// Looks at the partitions.
    fn look(&mut self, each: &mut impl FnMut(Sight)) -> anyhow::Result<Look> {
        let mut look = Look::Same;
        for followed in &mut self.topics {
            if !self.observer.has_topic(&followed.topic)? {
                followed.is_missing = true;
                look = Look::Incomplete;
                continue;
            }
            let bounds = self.observer.bounds(&followed.topic)?;
            let is_read = |(partition, (_, end)): (&i32, &(i64, i64))| {
                followed.places.get(partition).is_some_and(|place| place.next <= *end)
            };
            if followed.is_missing
                || !bounds.iter().all(is_read)
                || followed.is_suspicious(&self.observer, each)?
                || followed.is_silent(&self.kafka, &bounds)?
            {
                return Ok(Look::Doubtful);
            }
        }
        Ok(look)
    }

    /// Reads until `until`. Returns whether all positions are still the right ones.
    fn read(
        &mut self,
        consumer: &BaseConsumer<LoggingContext>,
        until: Instant,
        stop: &CancellationToken,
        each: &mut impl FnMut(Sight),
    ) -> bool {
        while Instant::now() < until && !stop.is_cancelled() {
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let followed =
                        self.topics.iter_mut().find(|followed| *followed.topic == *message.topic());
                    let Some(followed) = followed else { continue };
                    if !followed.see(Record::read(&message, &followed.topic), each) {
                        return false;
                    }
                }
                Some(Err(error)) if makes_doubtful(&error) => return false,
                // The client reconnects by itself.
                Some(Err(_)) | None => {}
            }
        }
        true
    }
}

impl Followed {
    /// Handles a record, and returns whether it belongs to the log that was read before.
    fn see(&mut self, record: Record, each: &mut impl FnMut(Sight)) -> bool {
        let Some(place) = self.places.get_mut(&record.partition) else { return true };
        let consumed = Consumed::of(&record);
        // A client begins with the last record.
        let is_repeated = record.offset < place.next;
        let is_suspicious = matches!(place.suspicion, Suspicion::Raised { .. });
        let is_same =
            if is_repeated { place.last.is_none_or(|last| last == consumed) } else { !is_suspicious };
        if !is_same {
            self.begin_again(each);
            return false;
        }
        if is_repeated {
            if let Suspicion::Raised { newer, .. } = place.suspicion {
                place.suspicion = Suspicion::Refuted(newer);
            }
            return true;
        }
        place.next = record.offset + 1;
        place.last = Some(consumed);
        place.written = place.written.max(record.timestamp);
        let is_earlier = record.offset < place.began;
        each(if is_earlier { Sight::Earlier(record) } else { Sight::Record(record) });
        true
    }

    /// Forgets all positions, because the topic was created again.
    fn begin_again(&mut self, each: &mut impl FnMut(Sight)) {
        self.places.clear();
        each(Sight::Recreated(Arc::clone(&self.topic)));
    }

    /// Returns whether a record before the last one is newer than all that were read: the topic may have been created
    /// again and have grown beyond the last record meanwhile.
    fn is_suspicious(&mut self, observer: &Observer, each: &mut impl FnMut(Sight)) -> anyhow::Result<bool> {
        let times = self.places.iter().filter_map(|(partition, place)| Some((*partition, place.written?)));
        let mut suspicious = false;
        for (partition, newer) in observer.ask(|consumer| first_newer(consumer, &self.topic, times))? {
            suspicious |= self.is_doubtful(partition, newer, Instant::now(), each);
        }
        Ok(suspicious)
    }

    /// Returns whether the position in a partition is in doubt when the record at `newer` is the first one that is newer
    /// than all that were read.
    fn is_doubtful(
        &mut self,
        partition: i32,
        newer: i64,
        now: Instant,
        each: &mut impl FnMut(Sight),
    ) -> bool {
        let Some(place) = self.places.get_mut(&partition).filter(|place| newer < place.next) else {
            return false;
        };
        match place.suspicion {
            Suspicion::Refuted(known) if known == newer => false,
            Suspicion::Raised { since, .. } if now.saturating_duration_since(since) < DELIVERY_LIMIT => false,
            Suspicion::Raised { .. } => {
                // The last record is not there any more.
                self.begin_again(each);
                true
            }
            Suspicion::None | Suspicion::Refuted(_) => {
                place.suspicion = Suspicion::Raised { newer, since: now };
                true
            }
        }
    }

    /// Returns whether records wait in a partition from which the client has read nothing for some time. This call
    /// blocks.
    fn is_silent(&mut self, kafka: &KafkaArgs, bounds: &BTreeMap<i32, (i64, i64)>) -> anyhow::Result<bool> {
        let extents = bounds.iter().filter_map(|(&partition, &(first, end))| {
            let place = self.places.get(&partition).filter(|place| place.empty_until != end)?;
            Some((partition, Extent { committed: Some(place.next), first, end }))
        });
        let extents: BTreeMap<_, _> = extents.collect();
        let Some(partition) = self.silent.suspect(&extents, Instant::now()) else { return Ok(false) };
        self.silent.forget(partition);
        let Some((extent, place)) = extents.get(&partition).zip(self.places.get_mut(&partition)) else {
            return Ok(false);
        };
        let found = records_wait(kafka, &self.topic, &[(partition, extent.next())].into())?;
        match found.get(&partition) {
            Some(true) => Ok(true),
            // Only transaction markers follow.
            Some(false) => {
                place.empty_until = extent.end;
                Ok(false)
            }
            None => Ok(false),
        }
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

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
