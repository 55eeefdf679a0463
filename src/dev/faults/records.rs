//! Appends records to a topic: some that no schema can read, and copies of its newest ones.

use std::collections::BTreeMap;

use anyhow::Context as _;

use crate::kafka::{CommitError, KafkaArgs, OutgoingRecord, TopicReader, TransactionalProducer};

/// The transactional ids. Faults of different kinds may run at the same time.
const POISON_ID: &str = "dev-faults-poison";
const DUPLICATES_ID: &str = "dev-faults-duplicates";
/// The number of records that are looked at, or appended again.
const NEWEST: usize = 20;
/// The length of the frame before the JSON of a value.
const FRAME_BYTES: usize = 5;
/// An id that a registry assigns to no schema for a long time.
const UNKNOWN_SCHEMA: u32 = 0x7fff_fff0;

/// Appends one record of each unreadable kind to `topic`.
///
/// # Errors
/// Fails when the brokers do not answer.
pub async fn poison(kafka: &KafkaArgs, topic: &str) -> anyhow::Result<usize> {
    let newest = newest(kafka, topic, NEWEST).await?;
    let frame = newest.iter().rev().find_map(|record| frame(record.value.as_deref()?));
    let records: Vec<_> = unreadable_values(frame)
        .into_iter()
        .map(|value| OutgoingRecord { topic: topic.to_owned(), key: None, value, headers: Vec::new() })
        .collect();
    append(kafka, POISON_ID, &records).await
}

/// Returns the frame of a value, unless it is that of poison.
fn frame(value: &[u8]) -> Option<&[u8]> {
    let frame = value.get(..FRAME_BYTES)?;
    let (magic, id) = frame.split_first()?;
    (*magic == 0 && id != UNKNOWN_SCHEMA.to_be_bytes()).then_some(frame)
}

/// Returns a value of each kind that cannot be read: without a value, without a frame, with an unknown schema and, when
/// the frame of a readable record is known, with JSON that its schema does not allow and with text that is not JSON.
fn unreadable_values(frame: Option<&[u8]>) -> Vec<Option<Vec<u8>>> {
    let unknown = [&[0][..], &UNKNOWN_SCHEMA.to_be_bytes(), b"{}"].concat();
    let mut values = vec![None, Some(b"\xff\xfe not a frame".to_vec()), Some(unknown)];
    if let Some(frame) = frame {
        let framed = |json: &[u8]| Some([frame, json].concat());
        values.extend([framed(b"{\"vin\": 1, \"poison\": true}"), framed(b"{\"vin\": \"")]);
    }
    values
}

/// Appends the newest records of `topic` again, with the same keys, values and headers.
///
/// # Errors
/// Fails when the brokers do not answer.
pub async fn duplicate(kafka: &KafkaArgs, topic: &str) -> anyhow::Result<usize> {
    let records = newest(kafka, topic, NEWEST).await?;
    append(kafka, DUPLICATES_ID, &records).await
}

/// Returns the `count` newest committed records, oldest first.
async fn newest(kafka: &KafkaArgs, topic: &str, count: usize) -> anyhow::Result<Vec<OutgoingRecord>> {
    let (kafka, topic) = (kafka.clone(), topic.to_owned());
    let read = move || -> anyhow::Result<Vec<OutgoingRecord>> {
        let mut newest = BTreeMap::new();
        TopicReader::open(&kafka, &topic)?.for_each(|record| {
            let position = (record.timestamp, record.partition, record.offset);
            newest.insert(position, record.to_outgoing(topic.clone()));
            if newest.len() > count {
                newest.pop_first();
            }
            Ok(())
        })?;
        Ok(newest.into_values().collect())
    };
    tokio::task::spawn_blocking(read).await.context("reading the topic panicked")?
}

async fn append(kafka: &KafkaArgs, id: &str, records: &[OutgoingRecord]) -> anyhow::Result<usize> {
    let mut producer = TransactionalProducer::of_tool(kafka, id).await?;
    loop {
        match producer.publish(records).await {
            Err(CommitError::RefusedSome(_)) => {}
            published => {
                published?;
                return Ok(records.len());
            }
        }
    }
}
