//! Whether the cluster can be used: it answers, and has the topics that a role needs.

use std::sync::Arc;

use anyhow::{Context, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::OnceCell;

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::{LoggingContext, client_config, dead_letter_topic};

/// Creates the topics of a role, and looks whether the cluster answers.
pub struct ClusterCheck {
    kafka: KafkaArgs,
    topics: Vec<String>,
    admin: Arc<AdminClient<LoggingContext>>,
    created: OnceCell<()>,
}

impl ClusterCheck {
    /// `topics`: those that the role needs, without their dead-letter topics.
    ///
    /// # Errors
    /// When a setting is not one of librdkafka's.
    pub fn new(kafka: &KafkaArgs, topics: Vec<String>) -> anyhow::Result<Self> {
        let admin = client_config(kafka)
            .create_with_context(LoggingContext)
            .context("cannot set up a Kafka client; see --kafka-property")?;
        Ok(Self { kafka: kafka.clone(), topics, admin: Arc::new(admin), created: OnceCell::new() })
    }

    /// # Errors
    /// When the brokers do not answer, or refuse to create a topic; another try may succeed.
    pub async fn check(&self) -> anyhow::Result<()> {
        self.created.get_or_try_init(|| self.create_topics()).await?;
        let admin = Arc::clone(&self.admin);
        let topic = self.topics.first().cloned();
        let fetch = move || admin.inner().fetch_metadata(topic.as_deref(), CALL_TIMEOUT).map(drop);
        tokio::task::spawn_blocking(fetch)
            .await
            .context("asking for metadata panicked")?
            .with_context(|| self.no_answer())
    }

    fn no_answer(&self) -> String {
        format!("no broker answers at {}", self.kafka.bootstrap_servers())
    }

    async fn create_topics(&self) -> anyhow::Result<()> {
        let kafka = &self.kafka;
        let names: Vec<_> =
            self.topics.iter().flat_map(|topic| [topic.clone(), dead_letter_topic(topic)]).collect();
        let min_insync_replicas = kafka.topic_min_insync_replicas.map(|replicas| replicas.to_string());
        let new_topics: Vec<_> = names
            .iter()
            .map(|name| {
                // -1 asks for the brokers' default (KIP-464).
                let replication = TopicReplication::Fixed(kafka.topic_replication_factor.unwrap_or(-1));
                let topic = NewTopic::new(name, kafka.topic_partitions, replication);
                match &min_insync_replicas {
                    Some(replicas) => topic.set("min.insync.replicas", replicas),
                    None => topic,
                }
            })
            .collect();
        let options =
            AdminOptions::new().request_timeout(Some(CALL_TIMEOUT)).operation_timeout(Some(CALL_TIMEOUT));
        let results =
            self.admin.create_topics(&new_topics, &options).await.with_context(|| self.no_answer())?;
        for result in results {
            match result {
                Ok(topic) => tracing::info!(topic, "created a topic"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => bail!("the brokers refuse to create the topic {topic}: {code}"),
            }
        }
        Ok(())
    }
}
