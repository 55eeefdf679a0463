//! Reads the dead letters of a topic, and which of them are resolved.

use std::collections::{BTreeMap, HashSet};

use anyhow::Context as _;

use super::{DeadLetter, Position, dead_letter_topic, resolved};
use crate::kafka::args::KafkaArgs;
use crate::kafka::reader::TopicReader;

/// The positions of dead letters of a topic that were resolved.
pub struct Resolutions {
    kafka: KafkaArgs,
    dead_letter_topic: String,
    resolved: HashSet<Position>,
    /// The offset in each partition up to which the dead-letter topic was read.
    read: BTreeMap<i32, i64>,
}

impl Resolutions {
    /// Returns none, and reads only those that are committed from now on. This call blocks until the transactions that
    /// are open now have ended.
    ///
    /// # Errors
    /// Fails when the brokers do not respond.
    pub fn from_now(kafka: &KafkaArgs, topic: &str) -> anyhow::Result<Self> {
        let mut resolutions = Self::from_the_beginning(kafka, topic);
        let reader = TopicReader::open(kafka, &resolutions.dead_letter_topic)?;
        resolutions.read = reader.ends();
        Ok(resolutions)
    }

    fn from_the_beginning(kafka: &KafkaArgs, topic: &str) -> Self {
        Self {
            kafka: kafka.clone(),
            dead_letter_topic: dead_letter_topic(topic),
            resolved: HashSet::new(),
            read: BTreeMap::new(),
        }
    }

    /// Reads those that were committed since the last call. This call blocks.
    ///
    /// # Errors
    /// Fails when the brokers do not respond.
    pub fn update(&mut self) -> anyhow::Result<()> {
        let reader = TopicReader::open_from(&self.kafka, &self.dead_letter_topic, &self.read)?;
        let ends = reader.ends();
        reader.for_each(|record| {
            self.resolved.extend(resolved(&record));
            Ok(())
        })?;
        self.read = ends;
        Ok(())
    }

    pub fn contains(&self, position: Position) -> bool {
        self.resolved.contains(&position)
    }
}

/// Calls `each` for the dead letters of `topic`, including resolved ones, in order within a partition. Its second
/// argument is whether the dead letter is unresolved.
///
/// This call blocks. It holds only the positions of the resolved dead letters in memory.
///
/// # Errors
/// Fails when the brokers do not respond or `each` fails.
pub fn for_each_dead_letter(
    kafka: &KafkaArgs,
    topic: &str,
    mut each: impl FnMut(DeadLetter, bool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut resolutions = Resolutions::from_the_beginning(kafka, topic);
    resolutions.update()?;
    let topic = &resolutions.dead_letter_topic;
    let read = TopicReader::open(kafka, topic)?.for_each(|record| {
        let Ok(letter) = DeadLetter::read(record) else { return Ok(()) };
        let waits = !resolutions.contains(letter.position());
        each(letter, waits)
    });
    read.with_context(|| format!("cannot read {topic}"))
}
