//! Lists the topic configs of Apache Kafka 3.9, with the types, defaults and valid values of its `LogConfig`.

use super::config_key::Kind::{Boolean, Double, Int, List, Long, Text};
use super::config_key::Valid::{
    Any, AtLeast, Between, BetweenOr, Fraction, NoRemoteStorage, OneOf, Replicas, Version,
};
use super::config_key::{ConfigKey, Kind, Valid};

pub const CLEANUP_POLICY: &str = "cleanup.policy";
pub const COMPRESSION_TYPE: &str = "compression.type";
pub const MAX_COMPACTION_LAG_MS: &str = "max.compaction.lag.ms";
pub const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
pub const MESSAGE_TIMESTAMP_AFTER_MAX_MS: &str = "message.timestamp.after.max.ms";
pub const MESSAGE_TIMESTAMP_BEFORE_MAX_MS: &str = "message.timestamp.before.max.ms";
pub const MESSAGE_TIMESTAMP_DIFFERENCE_MAX_MS: &str = "message.timestamp.difference.max.ms";
pub const MESSAGE_TIMESTAMP_TYPE: &str = "message.timestamp.type";
pub const MIN_COMPACTION_LAG_MS: &str = "min.compaction.lag.ms";
pub const RETENTION_BYTES: &str = "retention.bytes";
pub const RETENTION_MS: &str = "retention.ms";
pub const SEGMENT_BYTES: &str = "segment.bytes";

const NO_LIMIT: &str = "9223372036854775807";
const POLICIES: Valid = OneOf(&["compact", "delete"]);
const CODECS: Valid = OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]);
const TIMESTAMP_TYPES: Valid = OneOf(&["CreateTime", "LogAppendTime"]);
/// Size of the smallest record of the oldest format.
const LEAST_SEGMENT: Valid = AtLeast(14);

pub static TOPIC_CONFIGS: [ConfigKey; 36] = [
    key(CLEANUP_POLICY, List, "delete", POLICIES, "log.cleanup.policy"),
    key("compression.gzip.level", Int, "-1", BetweenOr(1, 9, -1), "compression.gzip.level"),
    key("compression.lz4.level", Int, "9", Between(1, 17), "compression.lz4.level"),
    key(COMPRESSION_TYPE, Text, "producer", CODECS, "compression.type"),
    key("compression.zstd.level", Int, "3", Between(-131_072, 22), "compression.zstd.level"),
    key("delete.retention.ms", Long, "86400000", AtLeast(0), "log.cleaner.delete.retention.ms"),
    key("file.delete.delay.ms", Long, "60000", AtLeast(0), "log.segment.delete.delay.ms"),
    key("flush.messages", Long, NO_LIMIT, AtLeast(1), "log.flush.interval.messages"),
    key("flush.ms", Long, NO_LIMIT, AtLeast(0), "log.flush.interval.ms"),
    key("follower.replication.throttled.replicas", List, "", Replicas, ""),
    key("index.interval.bytes", Int, "4096", AtLeast(0), "log.index.interval.bytes"),
    key("leader.replication.throttled.replicas", List, "", Replicas, ""),
    key("local.retention.bytes", Long, "-2", AtLeast(-2), "log.local.retention.bytes"),
    key("local.retention.ms", Long, "-2", AtLeast(-2), "log.local.retention.ms"),
    key(MAX_COMPACTION_LAG_MS, Long, NO_LIMIT, AtLeast(1), "log.cleaner.max.compaction.lag.ms"),
    key(MAX_MESSAGE_BYTES, Int, "1048588", AtLeast(0), "message.max.bytes"),
    key("message.downconversion.enable", Boolean, "true", Any, "log.message.downconversion.enable"),
    key("message.format.version", Text, "3.0-IV1", Version, "log.message.format.version"),
    key(MESSAGE_TIMESTAMP_AFTER_MAX_MS, Long, NO_LIMIT, AtLeast(0), "log.message.timestamp.after.max.ms"),
    key(MESSAGE_TIMESTAMP_BEFORE_MAX_MS, Long, NO_LIMIT, AtLeast(0), "log.message.timestamp.before.max.ms"),
    key(
        MESSAGE_TIMESTAMP_DIFFERENCE_MAX_MS,
        Long,
        NO_LIMIT,
        AtLeast(0),
        "log.message.timestamp.difference.max.ms",
    ),
    key(MESSAGE_TIMESTAMP_TYPE, Text, "CreateTime", TIMESTAMP_TYPES, "log.message.timestamp.type"),
    key("min.cleanable.dirty.ratio", Double, "0.5", Fraction, "log.cleaner.min.cleanable.ratio"),
    key(MIN_COMPACTION_LAG_MS, Long, "0", AtLeast(0), "log.cleaner.min.compaction.lag.ms"),
    key("min.insync.replicas", Int, "1", AtLeast(1), "min.insync.replicas"),
    key("preallocate", Boolean, "false", Any, "log.preallocate"),
    key("remote.log.copy.disable", Boolean, "false", NoRemoteStorage, ""),
    key("remote.log.delete.on.disable", Boolean, "false", NoRemoteStorage, ""),
    key("remote.storage.enable", Boolean, "false", NoRemoteStorage, ""),
    key(RETENTION_BYTES, Long, "-1", Any, "log.retention.bytes"),
    key(RETENTION_MS, Long, "604800000", AtLeast(-1), "log.retention.ms"),
    key(SEGMENT_BYTES, Int, "1073741824", LEAST_SEGMENT, "log.segment.bytes"),
    key("segment.index.bytes", Int, "10485760", AtLeast(4), "log.index.size.max.bytes"),
    key("segment.jitter.ms", Long, "0", AtLeast(0), "log.roll.jitter.ms"),
    key("segment.ms", Long, "604800000", AtLeast(1), "log.roll.ms"),
    key("unclean.leader.election.enable", Boolean, "false", Any, "unclean.leader.election.enable"),
];

const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    valid: Valid,
    broker_name: &'static str,
) -> ConfigKey {
    ConfigKey { name, kind, default, valid, broker_name }
}
