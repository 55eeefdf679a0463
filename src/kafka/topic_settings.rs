//! Defines the settings of the topics of a role, and reports existing topics that deviate from them.

use std::collections::HashMap;

use anyhow::Context as _;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::client::{ClosedElsewhere, LoggingContext, client_config};

/// The size limit of a dead letter, which consists of its record and additional headers: the default limit of Apache
/// Kafka and room for the headers.
const DEAD_LETTER_MAX_BYTES: i64 = 2_097_152;
const FOREVER: i64 = -1;
/// The reasons why the brokers may not return a setting.
const NOT_RETURNED: &str = "because the brokers did not return its settings: the user needs the permission \
                            DescribeConfigs, and a broker may not know a new topic yet";

/// The purpose of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Data,
    DeadLetters,
}

/// Returns the settings that a topic needs. Unread records are retained. The brokers set the timestamps, so that the
/// clocks of producers do not affect the retention.
pub(super) fn needed(kafka: &KafkaArgs, purpose: Purpose) -> Vec<(&'static str, String)> {
    let retention = match purpose {
        Purpose::Data => kafka.topic_retention.millis(),
        // A dead letter waits until an operator resolves it.
        Purpose::DeadLetters => FOREVER,
    };
    let mut settings = vec![
        ("cleanup.policy", "delete".to_owned()),
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("retention.bytes", FOREVER.to_string()),
        ("retention.ms", retention.to_string()),
    ];
    if purpose == Purpose::DeadLetters {
        settings.push(("max.message.bytes", DEAD_LETTER_MAX_BYTES.to_string()));
    }
    settings
}

/// Returns whether the actual value of a setting satisfies the needed one.
fn serves(name: &str, needed: &str, actual: &str) -> bool {
    let (Ok(needed_number), Ok(number)) = (needed.parse::<i64>(), actual.parse::<i64>()) else {
        return needed == actual;
    };
    let unlimited =
        |number: i64| if number == FOREVER && name.starts_with("retention.") { i64::MAX } else { number };
    unlimited(number) >= unlimited(needed_number)
}

/// Logs the settings of existing topics that do not satisfy the needed ones, and those that the brokers do not return.
/// Does not change them, because the operator owns them.
///
/// # Errors
/// Fails when the brokers do not respond.
pub(super) async fn report(kafka: &KafkaArgs, topics: &[(String, Purpose)]) -> anyhow::Result<()> {
    let names: Vec<_> = topics.iter().map(|(name, _)| name.as_str()).collect();
    for ((topic, purpose), actual) in topics.iter().zip(describe(kafka, &names).await?) {
        let needed = needed(kafka, *purpose);
        let unknown = not_returned(&needed, &actual).join(",");
        if !unknown.is_empty() {
            tracing::warn!(
                topic,
                unknown,
                "cannot check whether the topic may lose unread records, {NOT_RETURNED}"
            );
        }
        let wrong: Vec<_> = needed
            .into_iter()
            .filter(|(name, needed)| actual.get(*name).is_some_and(|actual| !serves(name, needed, actual)))
            .collect();
        if wrong.is_empty() {
            continue;
        }
        let list =
            |of: &dyn Fn(&(&str, String)) -> String| wrong.iter().map(of).collect::<Vec<_>>().join(",");
        let has = list(&|(name, _)| format!("{name}={}", actual.get(*name).map_or("", String::as_str)));
        let command = format!(
            "kafka-configs --bootstrap-server {} --alter --entity-type topics --entity-name {topic} --add-config {}",
            kafka.bootstrap_servers(),
            list(&|(name, needed)| format!("{name}={needed}")),
        );
        tracing::warn!(
            topic,
            has,
            command,
            "the topic may lose unread records, change its settings with the command"
        );
    }
    Ok(())
}

/// Returns the names of the needed settings whose actual values are unknown.
fn not_returned(needed: &[(&'static str, String)], actual: &HashMap<String, String>) -> Vec<&'static str> {
    needed.iter().map(|(name, _)| *name).filter(|name| !actual.contains_key(*name)).collect()
}

/// Returns whether the brokers compact a topic: whether they remove records that have a successor with the same key.
///
/// # Errors
/// Fails when the brokers do not respond, do not know the topic, or do not let the user read its settings. A retry may
/// succeed.
pub(super) async fn is_compacted(kafka: &KafkaArgs, topic: &str) -> anyhow::Result<bool> {
    let settings = describe(kafka, &[topic]).await?.pop().unwrap_or_default();
    let policy = settings.get("cleanup.policy");
    let policy =
        policy.with_context(|| format!("cannot find out whether {topic} is compacted, {NOT_RETURNED}"))?;
    Ok(policy.contains("compact"))
}

/// Returns the settings of each topic. They are empty when the brokers refuse to return them, such as for a topic that
/// they do not know, because rdkafka drops the error.
async fn describe(kafka: &KafkaArgs, topics: &[&str]) -> anyhow::Result<Vec<HashMap<String, String>>> {
    let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let options = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT));
    let admin = admin(kafka)?;
    let described = admin.get()?.describe_configs(&resources, &options).await;
    let as_map = |resource: ConfigResource| {
        resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
    };
    let described = described.context("the brokers did not return the settings of the topics")?;
    Ok(described.into_iter().map(|result| result.map(as_map).unwrap_or_default()).collect())
}

/// Creates an admin client. It is rarely needed and occupies some megabytes, so it is created on demand.
pub(super) fn admin(kafka: &KafkaArgs) -> anyhow::Result<ClosedElsewhere<AdminClient<LoggingContext>>> {
    let admin = client_config(kafka).create_with_context(LoggingContext);
    Ok(ClosedElsewhere::new(
        admin.context("cannot set up a Kafka client; see --kafka-property (KAFKA_PROPERTIES)")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "embedded")]
    #[tokio::test]
    async fn the_settings_of_a_topic_are_unknown_until_the_brokers_know_it() {
        use rdkafka::admin::{NewTopic, TopicReplication};

        let broker = embedded_kafka_broker::Broker::builder().start().await.unwrap();
        let kafka = KafkaArgs::single_node(broker.address());
        for (policy, compacted) in [("delete", false), ("compact", true), ("compact,delete", true)] {
            let topic = policy.replace(',', "-");
            let unknown = is_compacted(&kafka, &topic).await.unwrap_err().to_string();
            assert!(unknown.contains(&topic) && unknown.contains("DescribeConfigs"), "{unknown}");
            let settings = needed(&kafka, Purpose::Data);
            let names: Vec<_> = settings.iter().map(|(name, _)| *name).collect();
            let actual = describe(&kafka, &[&topic]).await.unwrap().pop().unwrap();
            assert_eq!(not_returned(&settings, &actual), names);

            let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", policy);
            let admin = admin(&kafka).unwrap();
            let created = admin.get().unwrap().create_topics([&new], &AdminOptions::new()).await.unwrap();
            assert_eq!(created, [Ok(topic.clone())]);
            assert_eq!(is_compacted(&kafka, &topic).await.unwrap(), compacted, "{policy}");
            let actual = describe(&kafka, &[&topic]).await.unwrap().pop().unwrap();
            assert!(not_returned(&settings, &actual).is_empty(), "{actual:?}");
        }
        broker.shutdown().await;
    }

    #[test]
    fn a_setting_serves_when_it_retains_at_least_as_much() {
        for (name, needed, actual, serving) in [
            ("retention.ms", "-1", "604800000", false),
            ("retention.ms", "-1", "-1", true),
            ("retention.ms", "1000", "-1", true),
            ("retention.ms", "1000", "999", false),
            ("max.message.bytes", "2097152", "1048588", false),
            ("max.message.bytes", "2097152", "4194304", true),
            ("message.timestamp.type", "LogAppendTime", "CreateTime", false),
            ("cleanup.policy", "delete", "compact,delete", false),
            ("cleanup.policy", "delete", "delete", true),
        ] {
            assert_eq!(serves(name, needed, actual), serving, "{name}: {actual} for {needed}");
        }
    }
}
