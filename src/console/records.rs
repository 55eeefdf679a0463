//! Applies the records of the topics to the state.

use std::sync::Arc;

use chrono::Utc;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::ledger::MAX_VIN_CHARS;
use super::state::{Console, State};
use super::vehicle_key::VehicleKey;
use super::ways::{spot, trace_of};
use crate::dlq::LetterId;
use crate::event::{EventType, VEHICLE_CREATED, VEHICLE_PROCESSED};
use crate::kafka::{Backlog, DeadLetter, KafkaArgs, Naming, Record, Sight, TopicFollower, dead_letter_topic};
use crate::registry::unframed;
use crate::vehicle::optional_integer;

/// The number of the newest records of each partition that are read when the console starts.
const BACKLOG: i64 = 2_000;

/// The fields of an event that the console needs.
#[derive(Deserialize)]
struct Brief {
    vin: String,
    #[serde(default, deserialize_with = "optional_integer")]
    id: Option<i64>,
    #[serde(default)]
    price: Option<f64>,
}

impl Brief {
    /// Returns the fields of an event about a vehicle that stock may have accepted.
    fn of(record: &Record) -> Option<Self> {
        let json = unframed(record.value()?)?;
        let brief: Self = serde_json::from_slice(json).ok()?;
        (brief.vin.chars().count() <= MAX_VIN_CHARS).then_some(brief)
    }

    fn vehicle(&self) -> Option<VehicleKey> {
        Some(VehicleKey::new(self.id?, &self.vin))
    }
}

/// Follows the topics of the platform.
pub struct Records {
    console: Arc<Console>,
    follower: TopicFollower,
    topics: Vec<(String, EventType, Kind)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event,
    DeadLetter,
}

impl Records {
    /// # Errors
    /// Fails when librdkafka refuses the settings.
    pub fn new(kafka: &KafkaArgs, console: Arc<Console>) -> anyhow::Result<Self> {
        let naming = Naming::new(kafka);
        let mut topics = Vec::new();
        for event in EventType::ALL {
            topics.push((naming.topic(event), event, Kind::Event));
            topics.push((dead_letter_topic(&naming.topic(event)), event, Kind::DeadLetter));
        }
        let followed = topics.iter().map(|(topic, _, kind)| {
            // A dead letter may have been resolved by any later record.
            let backlog = if *kind == Kind::Event { Backlog::Newest(BACKLOG) } else { Backlog::Whole };
            (topic.clone(), backlog)
        });
        let follower = TopicFollower::new(kafka, followed.collect())?;
        Ok(Self { console, follower, topics })
    }

    /// Follows the topics until `stop` is cancelled. This call blocks.
    pub fn follow(self, stop: &CancellationToken) {
        let Self { console, follower, topics } = self;
        follower.run(stop, |sight| {
            let kind_of = |topic: &str| {
                let found = topics.iter().find(|(known, ..)| known == topic);
                found.map(|(_, event, kind)| (*event, *kind))
            };
            let mut state = console.lock();
            match sight {
                Sight::Record(record) | Sight::Earlier(record) if kind_of(&record.topic).is_none() => {}
                Sight::Record(record) => {
                    if kind_of(&record.topic) == Some((VEHICLE_CREATED, Kind::Event)) {
                        state.totals.published += 1;
                    }
                    apply(&mut state, record, kind_of);
                }
                Sight::Earlier(record) => apply(&mut state, record, kind_of),
                Sight::Recreated(topic) => match kind_of(&topic) {
                    Some((event, Kind::DeadLetter)) => {
                        for vehicle in state.letters.clear(event) {
                            state.ledger.dead(&vehicle, false);
                        }
                    }
                    Some((event, Kind::Event)) => {
                        state.tails.remove(&event);
                        if event == VEHICLE_CREATED {
                            state.flight.clear();
                        }
                        state.ledger.forget_positions(event == VEHICLE_CREATED);
                    }
                    None => {}
                },
            }
        });
    }
}

fn apply(state: &mut State, record: Record, kind_of: impl Fn(&str) -> Option<(EventType, Kind)>) {
    let kind = kind_of(&record.topic);
    if let Some((event, Kind::Event)) = kind {
        state.tails.entry(event).or_default().add(record.partition, record.offset);
    }
    match kind {
        Some((VEHICLE_CREATED, Kind::Event)) => created(state, &record),
        Some((VEHICLE_PROCESSED, Kind::Event)) => processed(state, &record),
        Some((event, Kind::DeadLetter)) => dead(state, event, record),
        Some(_) | None => {}
    }
}

fn created(state: &mut State, record: &Record) {
    let spot = spot(record);
    let view = state.ways.describe(0, record);
    let written = record.timestamp.unwrap_or_else(|| Utc::now().timestamp_millis());
    let brief = Brief::of(record);
    let vehicle = brief.as_ref().and_then(Brief::vehicle);
    state.flight.begin(vehicle.as_ref(), spot, written);
    let Some(brief) = brief else { return };
    if let Some(vehicle) = vehicle {
        state.ledger.created(&vehicle, spot);
    }
    let estimator = state.estimator_of(record.partition);
    let trace = trace_of(record);
    state.ways.step(&brief.vin, |way| {
        way.created = Some(view);
        way.estimator = estimator;
        way.letter = None;
        way.trace = trace.or(way.trace.take());
    });
}

fn processed(state: &mut State, record: &Record) {
    let view = state.ways.describe(1, record);
    let Some(brief) = Brief::of(record) else { return };
    if let Some(vehicle) = brief.vehicle() {
        state.flight.end(&vehicle);
        state.ledger.processed(&vehicle, spot(record));
    }
    state.ways.step(&brief.vin, |way| {
        way.processed = Some(view);
        way.price = brief.price;
    });
}

fn dead(state: &mut State, event: EventType, record: Record) {
    let position = spot(&record);
    match DeadLetter::read(record) {
        Ok(letter) => {
            let id = LetterId { event, position };
            let brief = Brief::of(letter.record());
            let vehicle = brief.as_ref().and_then(Brief::vehicle);
            if state.letters.add(id, &letter, vehicle.clone()) {
                if let Some(vehicle) = vehicle {
                    state.ledger.dead(&vehicle, true);
                    state.flight.end(&vehicle);
                }
                if let Some(brief) = brief {
                    state.ways.step(&brief.vin, |way| way.letter = Some(id.to_string()));
                }
            }
        }
        Err(resolved) => {
            let resolved = LetterId { event, position: resolved };
            if let Some(vehicle) = state.letters.resolve(position, resolved) {
                // It may have another one.
                let is_dead = state.letters.holds(&vehicle);
                state.ledger.dead(&vehicle, is_dead);
            }
        }
    }
}
