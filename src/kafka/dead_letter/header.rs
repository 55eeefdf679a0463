//! The names of the headers of dead letters.

/// The prefix of the headers that describe a dead letter, apart from [`SPRING`].
pub const HEADERS: &str = "dlq.";
pub const REASON: &str = "dlq.reason";
pub const TOPIC: &str = "dlq.topic";
pub const PARTITION: &str = "dlq.partition";
pub const OFFSET: &str = "dlq.offset";
pub const TIMESTAMP: &str = "dlq.timestamp";
pub const GROUP: &str = "dlq.group";
pub const VALUE_BYTES: &str = "dlq.value.bytes";
pub const VALUE_SHA256: &str = "dlq.value.sha256";
pub const KEY_BYTES: &str = "dlq.key.bytes";
pub const KEY_SHA256: &str = "dlq.key.sha256";
pub const HEADERS_COUNT: &str = "dlq.headers.count";
pub const HEADERS_BYTES: &str = "dlq.headers.bytes";
pub const HEADERS_SHA256: &str = "dlq.headers.sha256";
/// The number of headers of the record whose names are not UTF-8, which the dead letter omits.
pub const HEADERS_UNREADABLE: &str = "dlq.headers.unreadable";
pub const SETTLED: &str = "dlq.settled";
pub const SETTLED_PARTITION: &str = "dlq.settled.partition";
pub const SETTLED_OFFSET: &str = "dlq.settled.offset";

/// How often the record was put back on its topic. A record that is put back has it.
pub const REPLAYS: &str = "dlq.replays";

/// The origin once more, as Spring Kafka writes it and as consoles for its dead letters read it: the topic as text, the
/// partition as 4 and the offset as 8 bytes, the most significant first.
pub const SPRING_TOPIC: &str = "kafka_dlt-original-topic";
pub const SPRING_PARTITION: &str = "kafka_dlt-original-partition";
pub const SPRING_OFFSET: &str = "kafka_dlt-original-offset";
pub const SPRING: [&str; 3] = [SPRING_TOPIC, SPRING_PARTITION, SPRING_OFFSET];

/// The headers of each dead letter and their meanings.
pub const DOCUMENTED_HEADERS: [(&str, &str); 7] = [
    (REASON, "Why the record cannot be processed."),
    (TOPIC, "The topic of the record."),
    (PARTITION, "The partition of the record."),
    (OFFSET, "The offset of the record."),
    (TIMESTAMP, "The time of the record in milliseconds since the Unix epoch."),
    (GROUP, "The consumer group that refused the record."),
    (SPRING_TOPIC, "The topic of the record once more, as Spring Kafka names it."),
];

/// The headers whose values are not text, and their meanings.
pub const DOCUMENTED_BINARY_HEADERS: [(&str, &str); 2] = [
    (
        SPRING_PARTITION,
        "The partition of the record as Spring Kafka writes it: 4 bytes, the most significant first.",
    ),
    (
        SPRING_OFFSET,
        "The offset of the record as Spring Kafka writes it: 8 bytes, the most significant first.",
    ),
];
