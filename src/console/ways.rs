//! Follows the vehicles that were posted on the page, step by step.

use std::collections::{BTreeSet, HashMap, VecDeque};

use serde::Serialize;

use super::traces::Spot;
use crate::kafka::Record;
use crate::trace::TraceHeaders;

/// The number of vehicles that are followed; the oldest ones are dropped.
const MAX_WAYS: usize = 200;

/// The way of a vehicle. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Way {
    pub vin: String,
    /// When the console sent the vehicle to stock, and how long stock took to answer.
    pub posted: i64,
    pub answered_after: Option<i64>,
    pub status: Option<u16>,
    pub id: Option<i64>,
    /// When stock accepted the vehicle.
    pub accepted: Option<i64>,
    pub trace: Option<String>,
    pub created: Option<RecordView>,
    /// The member of the group that reads the partition, numbered as on the page.
    pub estimator: Option<usize>,
    pub processed: Option<RecordView>,
    pub price: Option<f64>,
    pub ad: Option<String>,
    pub published: Option<i64>,
    /// The id of the dead letter that its record became.
    pub letter: Option<String>,
}

/// A record of the vehicle.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordView {
    partition: i32,
    offset: i64,
    at: Option<i64>,
    /// The first offset of the batch. The brokers give all records of a batch the same time.
    batch: i64,
}

/// The vehicles that are followed, by their vins.
#[derive(Debug, Default)]
pub struct Ways {
    ways: HashMap<String, Way>,
    order: VecDeque<String>,
    /// The vehicles that changed since the last event of the page.
    changed: BTreeSet<String>,
    batches: HashMap<(usize, i32), Batch>,
}

#[derive(Clone, Copy, Debug)]
struct Batch {
    at: Option<i64>,
    first: i64,
    next: i64,
}

impl Ways {
    /// Begins to follow a vehicle.
    pub fn follow(&mut self, way: Way) {
        let vin = way.vin.clone();
        if self.ways.insert(vin.clone(), way).is_none() {
            self.order.push_back(vin.clone());
        }
        self.changed.insert(vin);
        if self.order.len() > MAX_WAYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.ways.remove(&oldest);
            self.changed.remove(&oldest);
        }
    }

    /// Adds a step to the way of a vehicle, if it is followed.
    pub fn step(&mut self, vin: &str, step: impl FnOnce(&mut Way)) {
        if let Some(way) = self.ways.get_mut(vin) {
            step(way);
            self.changed.insert(vin.to_owned());
        }
    }

    /// Describes a record of the topic with the number `topic`.
    pub fn describe(&mut self, topic: usize, record: &Record) -> RecordView {
        let (Record { partition, offset, timestamp, .. }, key) = (record, (topic, record.partition));
        let last = self.batches.get(&key).filter(|last| last.at == *timestamp && last.next == *offset);
        let first = last.map_or(*offset, |last| last.first);
        self.batches.insert(key, Batch { at: *timestamp, first, next: offset + 1 });
        RecordView { partition: *partition, offset: *offset, at: *timestamp, batch: first }
    }

    /// Returns the vehicles that changed since the last call.
    pub fn take_changed(&mut self) -> Vec<&Way> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().filter_map(|vin| self.ways.get(vin)).collect()
    }

    /// Returns all vehicles that are followed, oldest first.
    pub fn all(&self) -> Vec<&Way> {
        self.order.iter().filter_map(|vin| self.ways.get(vin)).collect()
    }
}

/// Returns the id of the trace that a record belongs to.
pub fn trace_of(record: &Record) -> Option<String> {
    let parent = str::from_utf8(record.header(TraceHeaders::PARENT)?).ok()?;
    let id = parent.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Returns the partition and the offset of a record.
pub fn spot(record: &Record) -> Spot {
    (record.partition, record.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_followed_vehicles_are_retained_and_the_oldest_are_dropped() {
        let mut ways = Ways::default();
        for number in 0..MAX_WAYS + 5 {
            ways.follow(Way { vin: format!("vin-{number}"), ..Way::default() });
        }
        ways.step("vin-0", |way| way.id = Some(1));
        assert_eq!(ways.take_changed().len(), MAX_WAYS);
        ways.step("vin-7", |way| way.id = Some(7));
        ways.step("unknown", |way| way.id = Some(8));
        let changed = ways.take_changed();
        assert_eq!((changed.len(), changed[0].id), (1, Some(7)));
        assert_eq!(ways.all()[0].vin, "vin-5");
    }
}
