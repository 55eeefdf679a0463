//! Creates the topics that a role needs.

use anyhow::{Context, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::types::RDKafkaErrorCode;

use super::args::KafkaArgs;
use super::client::{LoggingContext, client_config, dead_letter_topic};
use super::CALL_TIMEOUT;

/// Creates those of `topics`, and of their dead-letter topics, that do not exist.
///
/// # Errors
/// When the brokers do not answer, or refuse; another try may succeed.
pub async fn ensure_topics(kafka: &KafkaArgs, topics: &[String]) -> anyhow::Result<()> {
    let admin: AdminClient<_> = client_config(kafka)
        .create_with_context(LoggingContext)
        .context("cannot set up a Kafka client; see --kafka-property")?;
    let names: Vec<_> =
        topics.iter().flat_map(|topic| [topic.clone(), dead_letter_topic(topic)]).collect();
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
    let options = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT)).operation_timeout(Some(CALL_TIMEOUT));
    let results = admin
        .create_topics(&new_topics, &options)
        .await
        .with_context(|| format!("no broker answers at {}", kafka.bootstrap_servers()))?;
    for result in results {
        match result {
            Ok(topic) => tracing::info!(topic, "created a topic"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => bail!("the brokers refuse to create the topic {topic}: {code}"),
        }
    }
    Ok(())
}
