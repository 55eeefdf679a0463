//! How far a consumer group is behind the end of its topic.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::LoggingContext;
use super::reader::{observer, partitions};

/// How old the lag may be that is told.
const INTERVAL: Duration = Duration::from_secs(5);

/// Measures the lag of a group by asking the brokers, as Kafka's own tools do: so it is right, too, when no member
/// reads. What ends a transaction takes an offset, and counts.
pub struct GroupLag {
    consumer: Arc<BaseConsumer<LoggingContext>>,
    topic: String,
    lag: Gauge,
}

impl GroupLag {
    /// A metric that is part of `registry`.
    ///
    /// # Errors
    /// When a setting is not one of librdkafka's.
    pub fn register(
        kafka: &KafkaArgs,
        group: &str,
        topic: &str,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let lag = Gauge::default();
        registry.register(
            "group_lag",
            "Offsets between what the whole group has committed and the end of its topic",
            lag.clone(),
        );
        Ok(Self { consumer: Arc::new(observer(kafka, group)?), topic: topic.to_owned(), lag })
    }

    /// Measures now and then, until `shutdown`. While the brokers do not answer, the last lag stands.
    pub async fn watch(&self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            let (consumer, topic) = (Arc::clone(&self.consumer), self.topic.clone());
            let measured = tokio::task::spawn_blocking(move || measure(&consumer, &topic));
            let pause = async {
                match measured.await {
                    Ok(Ok(lag)) => {
                        self.lag.set(lag);
                    }
                    Ok(Err(error)) => tracing::debug!(error = format!("{error:#}"), "the lag is not known"),
                    Err(error) => tracing::error!(%error, "measuring the lag panicked"),
                }
                tokio::time::sleep(INTERVAL).await;
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = pause => {}
            }
        }
    }
}

fn measure(consumer: &BaseConsumer<LoggingContext>, topic: &str) -> anyhow::Result<i64> {
    let mut list = TopicPartitionList::new();
    for partition in partitions(consumer, topic)? {
        list.add_partition(topic, partition);
    }
    let committed =
        consumer.committed_offsets(list, CALL_TIMEOUT).context("the brokers do not tell offsets")?;
    let mut lag = 0;
    for element in committed.elements() {
        let (first, end) = consumer
            .fetch_watermarks(topic, element.partition(), CALL_TIMEOUT)
            .context("the brokers do not tell the end of a partition")?;
        // A group that has committed nothing begins with the first record.
        let next = if let Offset::Offset(next) = element.offset() { next.max(first) } else { first };
        lag += (end - next).max(0);
    }
    Ok(lag)
}
