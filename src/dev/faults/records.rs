//! Appends records to a topic: some that no schema can read, and copies of its newest ones.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Context as _;

use crate::kafka::{CommitError, KafkaArgs, OutgoingRecord, Record, TopicReader, TransactionalProducer};

/// The transactional ids. Faults of different kinds may run at the same time.
const POISON_ID: &str = "dev-faults-poison";
const DUPLICATES_ID: &str = "dev-faults-duplicates";
/// The number of records that are looked at, or appended again.
const NEWEST: usize = 20;
/// The number of offsets that a record is expected to take: its own and that of a transaction marker.
const OFFSETS_PER_RECORD: i64 = 2;
/// How many times as far back it reads when it found too few records.
const FURTHER: i64 = 8;
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
        let offsets = TopicReader::open(&kafka, &topic)?.offsets().clone();
        let newest = newest_of(&offsets, count, |from, each| {
            TopicReader::open_from(&kafka, &topic, from)?.for_each(|record| {
                each(record);
                Ok(())
            })
        })?;
        Ok(newest.iter().map(|record| record.to_outgoing(topic.clone())).collect())
    };
    tokio::task::spawn_blocking(read).await.context("reading the topic panicked")?
}

/// Returns the `count` newest records of a topic with these offsets, oldest first. Calls `read` with offsets to read
/// from.
///
/// Some offsets are those of transaction markers and of aborted records, so it reads further back, and all of that part
/// again, until each partition has enough records or was read from its first one.
fn newest_of(
    offsets: &BTreeMap<i32, Range<i64>>,
    count: usize,
    mut read: impl FnMut(&BTreeMap<i32, i64>, &mut dyn FnMut(Record)) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Record>> {
    let mut reach = i64::try_from(count)?.saturating_mul(OFFSETS_PER_RECORD);
    loop {
        let start = |offsets: &Range<i64>| (offsets.end - reach).max(offsets.start);
        let from: BTreeMap<_, _> =
            offsets.iter().map(|(partition, offsets)| (*partition, start(offsets))).collect();
        let (mut newest, mut found) = (BTreeMap::new(), BTreeMap::<_, usize>::new());
        read(&from, &mut |record| {
            *found.entry(record.partition).or_default() += 1;
            newest.insert((record.timestamp, record.partition, record.offset), record);
            if newest.len() > count {
                newest.pop_first();
            }
        })?;
        let is_enough = |(partition, from): (&i32, &i64)| {
            *from == offsets[partition].start || found.get(partition).is_some_and(|found| *found >= count)
        };
        if from.iter().all(is_enough) {
            return Ok(newest.into_values().collect());
        }
        reach = reach.saturating_mul(FURTHER);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the offsets of the newest records of a topic with a partition that has these records and one from which all
    /// were deleted, and the number of records that were read.
    fn newest(offsets: &[i64], first: i64, end: i64) -> (Vec<i64>, usize) {
        let mut read = 0;
        let emptied = 1_000_000..1_000_000;
        let newest = newest_of(&[(0, first..end), (1, emptied)].into(), 20, |from, each| {
            for offset in offsets.iter().filter(|offset| **offset >= from[&0]) {
                read += 1;
                let written =
                    OutgoingRecord { topic: "t".to_owned(), key: None, value: None, headers: Vec::new() };
                each(Record::of(&written, 0, *offset, Some(*offset)));
            }
            Ok(())
        });
        (newest.unwrap().iter().map(|record| record.offset).collect(), read)
    }

    #[test]
    fn only_the_end_of_a_long_topic_is_read() {
        let all: Vec<_> = (0..100_000).collect();
        assert_eq!(newest(&all, 0, 100_000), ((99_980..100_000).collect(), 40));
        // Each record is followed by a transaction marker.
        let committed: Vec<_> = (0..100_000).step_by(2).collect();
        assert_eq!(newest(&committed, 0, 100_000), ((99_960..100_000).step_by(2).collect(), 20));
    }

    #[test]
    fn more_is_read_when_the_end_has_few_records() {
        let old: Vec<_> = (0..1_000).collect();
        let (found, read) = newest(&old, 0, 3_000);
        assert_eq!(found, (980..1_000).collect::<Vec<_>>());
        assert!(read <= 1_000, "{read}");
        assert_eq!(newest(&old, 990, 1_000_000).0, (990..1_000).collect::<Vec<_>>());
        assert_eq!(newest(&[], 5, 5).0, [0; 0]);
    }
}
