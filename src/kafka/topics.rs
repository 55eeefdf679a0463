//! Whether the cluster can be used: it answers, and has the topics that a role needs.

use std::sync::Arc;

use anyhow::{Context, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::types::RDKafkaErrorCode;

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::{ClosedElsewhere, LoggingContext, client_config};
use super::dead_letter::dead_letter_topic;
use super::observer::{Isolation, Observer};

/// A dead letter is its record and some headers more: the limit of Apache Kafka, and room for these.
const DEAD_LETTER_MAX_BYTES: &str = "2097152";

/// Creates the topics of a role, and looks whether the cluster answers.
pub struct ClusterCheck {
    kafka: KafkaArgs,
    topics: Vec<String>,
    observer: Arc<Observer>,
}

impl ClusterCheck {
    /// `topics`: those that the role needs, without their dead-letter topics; `group`: the role's, if it reads.
    ///
    /// # Errors
    /// When a setting is not one of librdkafka's.
    pub fn new(kafka: &KafkaArgs, topics: Vec<String>, group: Option<&str>) -> anyhow::Result<Self> {
        let observer = Observer::new(kafka, group, Isolation::ReadUncommitted)?;
        Ok(Self { kafka: kafka.clone(), topics, observer: Arc::new(observer) })
    }

    pub(super) fn observer(&self) -> Arc<Observer> {
        Arc::clone(&self.observer)
    }

    /// Creates what is missing. Cheap when nothing is.
    ///
    /// # Errors
    /// When the brokers do not answer, or refuse to create a topic; another try may succeed.
    pub async fn check(&self) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        for topic in &self.topics {
            for name in [topic.clone(), dead_letter_topic(topic)] {
                if !self.exists(name.clone()).await? {
                    missing.push(name);
                }
            }
        }
        if missing.is_empty() { Ok(()) } else { self.create(&missing).await }
    }

    async fn exists(&self, topic: String) -> anyhow::Result<bool> {
        let observer = Arc::clone(&self.observer);
        tokio::task::spawn_blocking(move || observer.has_topic(&topic))
            .await
            .context("asking for metadata panicked")?
            .with_context(|| self.no_answer())
    }

    async fn create(&self, names: &[String]) -> anyhow::Result<()> {
        let kafka = &self.kafka;
        let min_insync_replicas = kafka.topic_min_insync_replicas.to_string();
        let topics: Vec<_> = names
            .iter()
            .map(|name| {
                let replication = TopicReplication::Fixed(kafka.topic_replication_factor);
                let topic = NewTopic::new(name, kafka.topic_partitions, replication)
                    .set("min.insync.replicas", &min_insync_replicas);
                if self.topics.contains(name) {
                    topic
                } else {
                    // A letter waits until someone settles it.
                    topic.set("max.message.bytes", DEAD_LETTER_MAX_BYTES).set("retention.ms", "-1")
                }
            })
            .collect();
        let options =
            AdminOptions::new().request_timeout(Some(CALL_TIMEOUT)).operation_timeout(Some(CALL_TIMEOUT));
        // Only now: it is seldom needed, and holds some megabytes.
        let admin: AdminClient<_> = client_config(kafka)
            .create_with_context(LoggingContext)
            .context("cannot set up a Kafka client; see --kafka-property")?;
        let admin = ClosedElsewhere::new(admin);
        let results =
            admin.get()?.create_topics(&topics, &options).await.with_context(|| self.no_answer())?;
        let mut refused = Vec::new();
        for result in results {
            match result {
                Ok(topic) => tracing::info!(topic, "created a topic"),
                // By another role, at the same time.
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

    fn no_answer(&self) -> String {
        format!("no broker answers at {}", self.kafka.bootstrap_servers())
    }
}
