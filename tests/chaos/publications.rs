//! Observes published events from outside and compares them with the readiness that stock reports.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::{ClientConfig, Message as _};
use tokio::time::{MissedTickBehavior, interval};

use crate::load::{Ledger, VIN};
use crate::support::kafka::beginning_of;
use crate::world::{TOPICS, World};

/// The time without a published event after which a stock must not report ready.
const LONGEST_STALL: Duration = Duration::from_secs(60);
/// The time that the nodes needed for publishing must have been running before an answer counts, as this consumer
/// depends on them as well.
const QUIET: Duration = Duration::from_secs(10);
/// The number of consecutive answers, one per second, that count as one false answer: the reported state may be a few
/// seconds old.
const ANSWERS: u32 = 5;
const TICK: Duration = Duration::from_secs(1);

pub struct Publications {
    consumer: StreamConsumer,
    /// How often a topic had been recreated when the current consumer was created.
    recreations: usize,
    published: HashSet<String>,
    /// Accepted vehicles that have not been seen on the topic.
    waiting: HashSet<String>,
    /// The number of ledger entries that are in one of the two sets.
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

    /// Observes events and stock forever.
    pub async fn watch(&mut self, world: &World, ledger: &Ledger) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let key = tokio::select! {
                _ = ticks.tick() => None,
                received = self.consumer.recv() => match received {
                    Ok(record) => record.key().map(|key| String::from_utf8_lossy(key).into_owned()),
                    // The consumer retries.
                    Err(_) => None,
                },
            };
            match key {
                // Poison has another key or none.
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
            // The previous consumer remembers the leaders of a log that no longer exists.
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
            let ready = tokio::time::timeout(TICK, world.platform.is_ready(&url)).await;
            let answers = self.ready.entry(name.clone()).or_default();
            *answers = if ready == Ok(true) { *answers + 1 } else { 0 };
            if *answers == ANSWERS {
                let seconds = stalled.as_secs();
                let what = format!("{name} reports ready, although nothing was published for {seconds} s");
                println!("{:7.1} s  {what}", world.age().as_secs_f64());
                self.false_answers.push(what);
            }
        }
    }

    fn note_progress(&mut self) {
        self.longest_stall = self.longest_stall.max(self.progress.elapsed());
        self.progress = Instant::now();
    }

    /// Returns the longest time without a published event while events were waiting.
    pub fn longest_stall(&self) -> Duration {
        self.longest_stall
    }

    /// Returns the times that a stock reported ready incorrectly.
    pub fn false_answers(&self) -> &[String] {
        &self.false_answers
    }
}

/// Creates a consumer that reads the topic from its beginning.
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
    consumer.assign(&beginning_of(&consumer, &topic)).unwrap();
    consumer
}
