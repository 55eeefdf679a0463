//! Holds the configs of a topic: those that are set, as text, and those that the broker acts on, parsed.

mod config_key;
mod table;

use std::collections::BTreeMap;

use crate::batch::{Codec, Rules};
use crate::connection::MAX_REQUEST;
use crate::partition::Retention;
pub use config_key::{ConfigKey, Kind};
pub use table::TOPIC_CONFIGS;
use table::{
    CLEANUP_POLICY, COMPRESSION_TYPE, MAX_COMPACTION_LAG_MS, MAX_MESSAGE_BYTES,
    MESSAGE_TIMESTAMP_AFTER_MAX_MS, MESSAGE_TIMESTAMP_BEFORE_MAX_MS, MESSAGE_TIMESTAMP_DIFFERENCE_MAX_MS,
    MESSAGE_TIMESTAMP_TYPE, MIN_COMPACTION_LAG_MS, RETENTION_BYTES, RETENTION_MS, SEGMENT_BYTES,
};

/// Holds the configs of one topic. The broker accepts the other configs of the table, and reports them.
#[derive(Debug)]
pub struct TopicConfigs {
    /// Names and values in their normal form, without defaults.
    set: BTreeMap<String, String>,
    /// At most [`MAX_REQUEST`]: a batch that is stored without its compression must still fit into a response and into
    /// the journal.
    pub max_message_bytes: usize,
    pub segment_bytes: usize,
    /// Whether each record needs a key, because `cleanup.policy` has `compact`.
    compact: bool,
    /// Whether records may be deleted, because `cleanup.policy` has `delete`.
    pub delete: bool,
    pub retention: Retention,
    /// Whether the time of the append replaces the producer's timestamps.
    pub log_append_time: bool,
    /// Most milliseconds by which a producer's timestamp may be behind the broker's clock.
    timestamp_before_max_ms: i64,
    /// Most milliseconds by which a producer's timestamp may be ahead of the broker's clock.
    timestamp_after_max_ms: i64,
    /// Codec that batches are stored with, if not that of the producer.
    pub codec: Option<Codec>,
}

impl TopicConfigs {
    /// Returns these configs. Ignores those that are not valid, which a journal of an earlier version may hold.
    pub fn new(configs: impl IntoIterator<Item = (String, String)>) -> Self {
        let valid = configs.into_iter().filter_map(|(name, value)| {
            let value = find(&name)?.parse(&value).ok()?;
            Some((name, value))
        });
        let set = valid.collect();
        let size = |name| usize::try_from(number(&set, name)).unwrap_or_default();
        let policies = value(&set, CLEANUP_POLICY);
        let has_policy = |wanted| policies.split(',').any(|policy| policy == wanted);
        // The deprecated config defines the limit unless its successor is set.
        let limit_or_difference = |name| match number(&set, name) {
            i64::MAX => number(&set, MESSAGE_TIMESTAMP_DIFFERENCE_MAX_MS),
            limit => limit,
        };
        Self {
            max_message_bytes: size(MAX_MESSAGE_BYTES).min(MAX_REQUEST),
            segment_bytes: size(SEGMENT_BYTES),
            compact: has_policy("compact"),
            delete: has_policy("delete"),
            // -1 means without limit.
            retention: Retention {
                ms: Some(number(&set, RETENTION_MS)).filter(|ms| *ms >= 0),
                bytes: u64::try_from(number(&set, RETENTION_BYTES)).ok(),
            },
            log_append_time: value(&set, MESSAGE_TIMESTAMP_TYPE) == "LogAppendTime",
            timestamp_before_max_ms: limit_or_difference(MESSAGE_TIMESTAMP_BEFORE_MAX_MS),
            timestamp_after_max_ms: limit_or_difference(MESSAGE_TIMESTAMP_AFTER_MAX_MS),
            codec: Codec::named(value(&set, COMPRESSION_TYPE)),
            set,
        }
    }

    /// Returns what a batch must fulfil that arrives now.
    pub fn rules(&self, now_ms: i64) -> Rules {
        let earliest = now_ms.saturating_sub(self.timestamp_before_max_ms);
        let latest = now_ms.saturating_add(self.timestamp_after_max_ms);
        Rules {
            needs_keys: self.compact,
            log_append_time: self.log_append_time,
            timestamps: earliest..=latest,
            codec: self.codec,
            max_bytes: self.max_message_bytes,
        }
    }

    /// Returns the configs that are set on the topic.
    pub fn set(&self) -> &BTreeMap<String, String> {
        &self.set
    }

    /// Returns all configs with their values, and whether each is set on the topic.
    pub fn all(&self) -> impl Iterator<Item = (&'static ConfigKey, &str, bool)> {
        TOPIC_CONFIGS.iter().map(|key| match self.set.get(key.name) {
            Some(own) => (key, own.as_str(), true),
            None => (key, key.default, false),
        })
    }
}

/// Checks the configs that shall be set on a topic (`LogConfig.validate`), and returns them in their normal form.
///
/// # Errors
/// When a name is unknown or a value is not valid, with a message for the client.
pub fn check(configs: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    let unknown = configs.keys().find(|name| find(name).is_none());
    if let Some(name) = unknown {
        return Err(format!("Unknown topic config name: {name}"));
    }
    let parsed = configs.into_iter().filter_map(|(name, value)| {
        let value = find(&name)?.parse(&value);
        Some(value.map(|value| (name, value)))
    });
    let set: BTreeMap<_, _> = parsed.collect::<Result<_, _>>()?;
    let (least, most) = (number(&set, MIN_COMPACTION_LAG_MS), number(&set, MAX_COMPACTION_LAG_MS));
    if least > most {
        return Err(format!(
            "{MIN_COMPACTION_LAG_MS} ({least}) is more than {MAX_COMPACTION_LAG_MS} ({most})"
        ));
    }
    Ok(set)
}

/// Returns the config with this name.
pub fn find(name: &str) -> Option<&'static ConfigKey> {
    TOPIC_CONFIGS.iter().find(|key| key.name == name)
}

fn value<'a>(set: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    let default = || find(name).map_or("", |key| key.default);
    set.get(name).map_or_else(default, String::as_str)
}

fn number(set: &BTreeMap<String, String>, name: &str) -> i64 {
    value(set, name).parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, value: &str) -> Result<String, String> {
        let mut set = check(BTreeMap::from([(name.to_owned(), value.to_owned())]))?;
        Ok(set.remove(name).unwrap())
    }

    #[test]
    fn defaults_are_valid_and_in_their_normal_form() {
        for key in &TOPIC_CONFIGS {
            assert_eq!(key.parse(key.default).as_deref(), Ok(key.default), "{}", key.name);
        }
        assert!(TOPIC_CONFIGS.is_sorted_by_key(|key| key.name));
    }

    #[test]
    fn values_are_parsed_as_kafka_parses_them() {
        for (name, value, normal) in [
            ("preallocate", " TRUE ", "true"),
            ("retention.ms", " 5 ", "5"),
            ("retention.ms", "-1", "-1"),
            ("segment.bytes", "+0014", "14"),
            ("min.cleanable.dirty.ratio", "1", "1.0"),
            ("min.cleanable.dirty.ratio", "0.5f", "0.5"),
            ("cleanup.policy", " compact , delete", "compact,delete"),
            ("cleanup.policy", "", ""),
            ("compression.gzip.level", "-1", "-1"),
            ("leader.replication.throttled.replicas", "0:1, 12:3", "0:1,12:3"),
            ("follower.replication.throttled.replicas", "*", "*"),
            ("message.format.version", "0.10.2", "0.10.2"),
            ("message.format.version", "2.3.1", "2.3.1"),
            ("message.format.version", "3.9-IV0", "3.9-IV0"),
            ("message.format.version", "4.0-IV1", "4.0-IV1"),
            ("remote.storage.enable", "False", "false"),
        ] {
            assert_eq!(checked(name, value).as_deref(), Ok(normal), "{name}={value}");
        }
        for (name, value) in [
            ("preallocate", "yes"),
            ("retention.ms", "-2"),
            ("retention.ms", "9223372036854775808"),
            ("segment.bytes", "13"),
            ("segment.bytes", "2147483648"),
            ("min.insync.replicas", "0"),
            ("min.cleanable.dirty.ratio", "1.1"),
            ("cleanup.policy", "foo"),
            ("cleanup.policy", "compact,,delete"),
            ("compression.type", "LZ4"),
            ("compression.gzip.level", "0"),
            ("compression.lz4.level", "18"),
            ("message.timestamp.type", "logappendtime"),
            ("leader.replication.throttled.replicas", "0:1,*"),
            ("message.format.version", "3.9-IV1"),
            ("message.format.version", "4.0"),
            ("message.format.version", "5.0"),
            ("min.cleanable.dirty.ratio", "nan"),
            ("min.cleanable.dirty.ratio", "Infinity"),
            ("max.compaction.lag.ms", "0"),
            ("remote.storage.enable", "true"),
            ("no.such.config", "1"),
        ] {
            assert!(checked(name, value).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn a_value_of_any_length_is_not_kept() {
        let longest = "0:1,".repeat(8191);
        assert!(checked("leader.replication.throttled.replicas", &longest).is_ok());
        assert!(checked("leader.replication.throttled.replicas", &format!("{longest}0:1,")).is_err());
    }

    #[test]
    fn the_least_compaction_lag_is_not_above_the_most() {
        let lags = |least: &str, most: &str| {
            let lags = [(MIN_COMPACTION_LAG_MS, least), (MAX_COMPACTION_LAG_MS, most)];
            check(lags.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        };
        assert!(lags("5", "5").is_ok());
        assert!(lags("6", "5").is_err());
    }

    #[test]
    fn the_deprecated_limit_of_timestamps_counts_unless_its_successors_are_set() {
        let configs = TopicConfigs::new([
            (MESSAGE_TIMESTAMP_DIFFERENCE_MAX_MS.to_owned(), "10".to_owned()),
            (MESSAGE_TIMESTAMP_AFTER_MAX_MS.to_owned(), "20".to_owned()),
        ]);
        assert_eq!((configs.timestamp_before_max_ms, configs.timestamp_after_max_ms), (10, 20));
    }
}
