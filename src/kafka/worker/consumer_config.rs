//! The settings of a consumer.

use rdkafka::ClientConfig;

use crate::kafka::args::KafkaArgs;
use crate::kafka::client::{client_config, default_to};

/// The settings of the consumer of `group`.
pub(in crate::kafka) fn consumer_config(kafka: &KafkaArgs, group: &str) -> ClientConfig {
    let mut config = client_config(kafka);
    config
        .set("group.id", group)
        // The least that librdkafka takes, so that `fetch.max.bytes` can be small.
        .set("message.max.bytes", "1000")
        .set("enable.auto.commit", "false")
        // A position that the log does not hold ends the session; the next one decides where to begin.
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky");
    for (key, value) in [
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "1000"),
        ("topic.metadata.refresh.interval.ms", "10000"),
        // A topic that is created while the group waits for it is seen this soon.
        ("topic.metadata.refresh.fast.interval.ms", "250"),
        // A fetch brings at least one batch (KIP-74), and hardly more: a batch that is compressed may take ten thousand
        // times as much in memory.
        ("fetch.max.bytes", "1024"),
        ("max.partition.fetch.bytes", "1024"),
        ("queued.max.messages.kbytes", "4096"),
        // librdkafka's 1 s would be longer than it takes to work through the queue.
        ("fetch.queue.backoff.ms", "10"),
    ] {
        default_to(&mut config, key, value);
    }
    config
}
