//! Checks that the cluster can be used: that it responds and has the topics that a role needs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::BaseProducer;
use rdkafka::types::RDKafkaErrorCode;

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::{ClosedElsewhere, LoggingContext};
use super::dead_letter::dead_letter_topic;
use super::delivery::DeliveryLog;
use super::observer::{Isolation, Observer};
use super::topic_settings::{self, Purpose};
use super::transaction::producer_config;
use super::worker::consumer_config;

/// The time after which a missing topic counts as deleted. A broker that has just started may not know a topic yet.
const GONE_LIMIT: Duration = Duration::from_secs(3);

/// A check of the cluster that also creates the topics of a role.
pub struct ClusterCheck {
    kafka: KafkaArgs,
    topics: Vec<(String, Purpose)>,
    /// The topics that existed, and since when they have been missing.
    seen: Mutex<HashMap<String, Option<Instant>>>,
    reported: AtomicBool,
    observer: Arc<Observer>,
}

impl ClusterCheck {
    /// Creates a check for the `topics` of a role, to which it adds their dead-letter topics, and for the `group` of
    /// the role, if it has one.
    ///
    /// # Errors
    /// Fails when librdkafka refuses the settings of any client of a role.
    pub fn new(kafka: &KafkaArgs, topics: Vec<String>, group: Option<&str>) -> anyhow::Result<Self> {
        let context = "the settings cannot work together; see --kafka-property (KAFKA_PROPERTIES)";
        let producer = producer_config(kafka, "check").create_with_context(DeliveryLog::default());
        drop(ClosedElsewhere::<BaseProducer<_>>::new(producer.context(context)?));
        let consumer = consumer_config(kafka, group.unwrap_or("check")).create_with_context(LoggingContext);
        drop(ClosedElsewhere::<BaseConsumer<_>>::new(consumer.context(context)?));
        let observer = Observer::new(kafka, group, Isolation::ReadUncommitted)?;
        let dead_letters: Vec<_> =
            topics.iter().map(|topic| (dead_letter_topic(topic), Purpose::DeadLetters)).collect();
        let topics = topics.into_iter().map(|topic| (topic, Purpose::Data)).chain(dead_letters).collect();
        Ok(Self {
            kafka: kafka.clone(),
            topics,
            seen: Mutex::default(),
            reported: AtomicBool::new(false),
            observer: Arc::new(observer),
        })
    }

    pub(super) fn observer(&self) -> Arc<Observer> {
        Arc::clone(&self.observer)
    }

    pub(super) fn kafka(&self) -> &KafkaArgs {
        &self.kafka
    }

    /// Creates the topics that have been missing since the process started. Cheap when no topic is missing.
    ///
    /// A topic that existed and is now missing is not created again. It was deleted, and a new topic with the same name
    /// would hide the loss of its unread records.
    ///
    /// # Errors
    /// Fails when the brokers do not respond or refuse to create a topic, or a topic was deleted. A retry may succeed.
    pub async fn check(&self) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        let mut gone = Vec::new();
        for (name, purpose) in &self.topics {
            let exists = self.exists(name.clone()).await?;
            match self.note(name, exists) {
                Presence::Exists => {}
                Presence::Missing => missing.push((name, *purpose)),
                Presence::Deleted => gone.push(name.as_str()),
            }
        }
        if !gone.is_empty() {
            bail!(
                "{} was deleted; create it again, or restart this role, which creates it (unread records are lost: \
                 vehicle-platform audit finds them)",
                gone.join(", ")
            );
        }
        if !missing.is_empty() {
            // The next check reads their settings: a broker may not know a new topic yet.
            return self.create(&missing).await;
        }
        if !self.reported.load(Ordering::Relaxed) {
            let reported = topic_settings::report(&self.kafka, &self.topics).await;
            reported.map_err(|error| self.observer.explain(error))?;
            self.reported.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn note(&self, topic: &str, exists: bool) -> Presence {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if exists {
            seen.insert(topic.to_owned(), None);
            return Presence::Exists;
        }
        let Some(since) = seen.get_mut(topic) else { return Presence::Missing };
        let gone = since.get_or_insert_with(Instant::now).elapsed() >= GONE_LIMIT;
        if gone { Presence::Deleted } else { Presence::Exists }
    }

    async fn exists(&self, topic: String) -> anyhow::Result<bool> {
        let observer = Arc::clone(&self.observer);
        tokio::task::spawn_blocking(move || observer.has_topic(&topic))
            .await
            .context("reading the metadata panicked")?
    }

    async fn create(&self, missing: &[(&String, Purpose)]) -> anyhow::Result<()> {
        let kafka = &self.kafka;
        let min_insync_replicas = kafka.topic_min_insync_replicas.to_string();
        let needed: Vec<_> =
            missing.iter().map(|(_, purpose)| topic_settings::needed(kafka, *purpose)).collect();
        let topics: Vec<_> = missing
            .iter()
            .zip(&needed)
            .map(|((name, _), settings)| {
                let replication = TopicReplication::Fixed(kafka.topic_replication_factor);
                let topic = NewTopic::new(name, kafka.topic_partitions, replication)
                    .set("min.insync.replicas", &min_insync_replicas);
                settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let options =
            AdminOptions::new().request_timeout(Some(CALL_TIMEOUT)).operation_timeout(Some(CALL_TIMEOUT));
        let admin = topic_settings::admin(kafka)?;
        let results = admin
            .get()?
            .create_topics(&topics, &options)
            .await
            .map_err(|error| self.observer.explain(error))?;
        let mut refused = Vec::new();
        for result in results {
            match result {
                Ok(topic) => tracing::info!(topic, "created topic"),
                // Another role created it at the same time.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, RDKafkaErrorCode::InvalidReplicationFactor)) => {
                    let factor = kafka.topic_replication_factor;
                    refused.push(format!(
                        "{topic}: there are fewer than {factor} brokers (--topic-replication-factor)"
                    ));
                }
                Err((topic, code)) => refused.push(format!("{topic}: {code}")),
            }
        }
        if !refused.is_empty() {
            bail!("the brokers refuse to create {}", refused.join(", "));
        }
        Ok(())
    }
}

/// Whether a topic exists.
enum Presence {
    Exists,
    /// The topic has not existed since the process started.
    Missing,
    /// The topic existed before.
    Deleted,
}
