//! Defines the settings of a worker's consumer.

use rdkafka::ClientConfig;

use crate::kafka::args::KafkaArgs;
use crate::kafka::client::{client_config, default_to};

/// Returns the settings of a consumer of `group`.
pub(in crate::kafka) fn consumer_config(kafka: &KafkaArgs, group: &str) -> ClientConfig {
    let mut config = client_config(kafka);
    config
        .set("group.id", group)
        // The minimum of librdkafka, which allows a small `fetch.max.bytes`.
        .set("message.max.bytes", "1000")
        .set("enable.auto.commit", "false")
        // A position outside the log ends the session. The next session determines where to begin.
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky");
    for (key, value) in [
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "1000"),
        ("topic.metadata.refresh.interval.ms", "10000"),
        // The time until a topic that is created while the group waits for it is detected.
        ("topic.metadata.refresh.fast.interval.ms", "250"),
        // A fetch returns at least one batch (KIP-74), and should return no other: a compressed batch may need ten
        // thousand times its size in memory.
        ("fetch.max.bytes", "1000"),
        ("max.partition.fetch.bytes", "1"),
        ("queued.max.messages.kbytes", "4096"),
        // The default of 1 s would be longer than processing the queue takes.
        ("fetch.queue.backoff.ms", "10"),
    ] {
        default_to(&mut config, key, value);
    }
    config
}
