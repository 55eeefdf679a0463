//! Sees events being published, from outside, and compares that with what stock says of itself.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use tokio::time::{MissedTickBehavior, interval};

use crate::load::{Ledger, VIN};
use crate::support::DEADLINE;
use crate::world::{TOPICS, World};

/// A stock that says it is ready while nothing was published for longer does not tell the truth.
const LONGEST_STALL: Duration = Duration::from_secs(60);
/// The nodes that publishing needs must run for this long before an answer counts: the reader here depends on them, too.
const QUIET: Duration = Duration::from_secs(10);
/// Answers in a row, one a second, that count as one false answer: what stock says may be some seconds old.
const ANSWERS: u32 = 5;
const TICK: Duration = Duration::from_secs(1);

pub struct Publications {
    consumer: StreamConsumer,
    /// How often a topic had been created again when this began to read.
    recreations: usize,
    published: HashSet<String>,
    /// Accepted and not yet seen on the topic.
    waiting: HashSet<String>,
    /// How many entries of the ledger are in one of the two.
    known: usize,
    progress: Instant,
    longest_stall: Duration,
    all_up_since: Instant,
    ready: HashMap<String, u32>,
    false_answers: Vec<String>,
}

impl Publications {
    pub fn new(world: &World) -> Self {
        let consumer = reader(world);
        let now = Instant::now();
        Self {
            consumer,
            recreations: 0,
            published: HashSet::new(),
            waiting: HashSet::new(),
            known: 0,
            progress: now,
            longest_stall: Duration::ZERO,
            all_up_since: now,
            ready: HashMap::new(),
            false_answers: Vec::new(),
        }
    }

    /// Never returns.
    pub async fn watch(&mut self, world: &World, ledger: &Ledger) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let key = tokio::select! {
                _ = ticks.tick() => None,
                received = self.consumer.recv() => match received {
                    Ok(record) => record.key().map(|key| String::from_utf8_lossy(key).into_owned()),
                    // It tries again.
                    Err(_) => None,
                },
            };
            match key {
                // Poison has another key, or none.
                Some(vin) if vin.starts_with(VIN) => {
                    self.waiting.remove(&vin);
                    self.published.insert(vin);
                    self.note_progress();
                }
                Some(_) => {}
                None => self.judge(world, ledger).await,
            }
        }
    }

    async fn judge(&mut self, world: &World, ledger: &Ledger) {
        if self.recreations != world.recreations() {
            self.recreations = world.recreations();
            // The old one knows leaders of a log that is gone.
            self.consumer = reader(world);
        }
        let accepted = ledger.after(self.known);
        self.known += accepted.len();
        self.waiting.extend(accepted.into_iter().filter(|vin| !self.published.contains(vin)));
        if self.waiting.is_empty() {
            self.note_progress();
        }
        if !world.publishing_nodes_are_up() {
            self.all_up_since = Instant::now();
        }
        let stalled = self.progress.elapsed();
        self.longest_stall = self.longest_stall.max(stalled);
        if stalled < LONGEST_STALL || self.all_up_since.elapsed() < QUIET {
            self.ready.clear();
            return;
        }
        for (name, url) in world.stocks() {
            let asked = tokio::time::timeout(TICK, world.platform.is_ready(&url)).await;
            let answers = self.ready.entry(name.clone()).or_default();
            *answers = if asked == Ok(true) { *answers + 1 } else { 0 };
            if *answers == ANSWERS {
                let seconds = stalled.as_secs();
                let what = format!("{name} is ready, though nothing was published for {seconds} s");
                println!("{:7.1} s  {what}", world.age().as_secs_f64());
                self.false_answers.push(what);
            }
        }
    }

    fn note_progress(&mut self) {
        self.longest_stall = self.longest_stall.max(self.progress.elapsed());
        self.progress = Instant::now();
    }

    /// The longest that no event was published while some waited.
    pub fn longest_stall(&self) -> Duration {
        self.longest_stall
    }

    /// When a stock said that it was ready and was not.
    pub fn false_answers(&self) -> &[String] {
        &self.false_answers
    }
}

/// Reads the topic from its beginning.
fn reader(world: &World) -> StreamConsumer {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", world.platform.bootstrap())
        .set("group.id", "sees-publications")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("socket.timeout.ms", "5000")
        .set("topic.metadata.refresh.interval.ms", "2000")
        .set("reconnect.backoff.max.ms", "1000")
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg)
        .create()
        .unwrap();
    let topic = world.platform.topic(TOPICS[0]);
    let metadata = consumer.fetch_metadata(Some(&topic), DEADLINE).unwrap();
    let mut beginning = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        beginning.add_partition_offset(&topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&beginning).unwrap();
    consumer
}
