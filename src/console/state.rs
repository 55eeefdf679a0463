//! Combines what all sources report into one state, and describes it to the page.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use actix_web::web::Bytes;
use chrono::Utc;
use serde::Serialize;
use serde_json::{Value, json};

use super::event_log::EventLog;
use super::flight::Flight;
use super::history::{History, Sample, Totals};
use super::ledger::Ledger;
use super::letters::Letters;
use super::roles::RoleView;
use super::tail::Tail;
use super::traces::Passed;
use super::ways::Ways;
use crate::event::{EventType, VEHICLE_CREATED, VEHICLE_PROCESSED};
use crate::kafka::GroupView;

/// The number of the newest ads that the page shows.
const SHOWN_ADS: usize = 30;
/// The maximum number of ads that are described between two events; all are counted.
const DESCRIBED_ADS: usize = 30;

/// An ad as the page shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdView {
    pub id: Box<str>,
    pub published: i64,
    pub vehicle: Option<i64>,
    pub vin: String,
    pub name: String,
    pub year: i64,
    pub price: f64,
    pub unit: String,
}

/// The settings that the page needs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    pub version: &'static str,
    pub read_only: bool,
    pub needs_key: bool,
    pub jaeger_url: Option<String>,
    /// The duration of an estimate in milliseconds.
    pub processing: i64,
}

/// The state of the platform, as the console knows it.
pub struct Console {
    pub settings: Settings,
    pub log: EventLog,
    state: Mutex<State>,
}

/// The part of the state that the sources change.
#[derive(Default)]
pub struct State {
    pub ledger: Ledger,
    pub flight: Flight,
    pub letters: Letters,
    pub history: History,
    pub ways: Ways,
    pub totals: Totals,
    pub passed: Passed,
    /// Why the brokers do not answer.
    pub kafka_error: Option<String>,
    pub roles: Vec<RoleView>,
    pub estimators: Option<GroupView>,
    pub advertisers: Option<GroupView>,
    pub post_p99: Option<f64>,
    /// The faults that the page offers.
    pub faults: Option<Value>,
    pub tails: BTreeMap<EventType, Tail>,
    newest_ads: VecDeque<AdView>,
    new_ads: Vec<AdView>,
    new_samples: Vec<Sample>,
    /// The sections as they were last sent.
    sent: BTreeMap<&'static str, String>,
}

impl Console {
    pub fn new(settings: Settings) -> Self {
        Self { settings, log: EventLog::new(), state: Mutex::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an event with what changed since the last one, if anything did.
    pub fn publish(&self) {
        let mut state = self.lock();
        let delta = state.delta();
        // The log is appended to under the lock, so that a snapshot knows which event it stands for.
        if let Some(delta) = delta {
            self.log.append(&delta);
        }
    }

    /// Returns the event that describes the whole state, and the number of the latest event that it contains.
    pub fn snapshot(&self) -> (u64, Bytes) {
        let state = self.lock();
        let data = state.whole(&self.settings);
        let number = self.log.latest();
        (number, self.log.snapshot(number, &data))
    }
}

impl State {
    /// Adds an ad to the newest ones.
    pub fn show_ad(&mut self, ad: AdView) {
        self.newest_ads.push_back(ad.clone());
        if self.newest_ads.len() > SHOWN_ADS {
            self.newest_ads.pop_front();
        }
        self.new_ads.push(ad);
        if self.new_ads.len() > DESCRIBED_ADS {
            self.new_ads.remove(0);
        }
    }

    /// Ends a second of the plots.
    pub fn sample(&mut self, processing: i64) {
        let sample = Sample {
            at: Utc::now().timestamp_millis(),
            estimate_lag: self.estimators.as_ref().map(|group| self.lag(group, VEHICLE_CREATED)),
            ads_lag: self.advertisers.as_ref().map(|group| self.lag(group, VEHICLE_PROCESSED)),
            post_p99: self.post_p99,
            ..Sample::default()
        };
        let sample = self.history.sample(self.totals, processing, sample);
        self.new_samples.push(sample);
    }

    /// Returns the number of the estimator that reads `partition`, from 1.
    pub fn estimator_of(&self, partition: i32) -> Option<usize> {
        let members = &self.estimators.as_ref()?.members;
        members.iter().position(|member| member.partitions.contains(&partition)).map(|index| index + 1)
    }

    fn lag(&self, group: &GroupView, event: EventType) -> i64 {
        self.tails.get(&event).map_or(0, |tail| tail.lag(group))
    }

    fn group(&self, group: Option<&GroupView>, event: EventType) -> Value {
        let Some(group) = group else { return Value::Null };
        let members: Vec<_> = group
            .members
            .iter()
            .map(|member| {
                let (in_flight, written) = if event == VEHICLE_CREATED {
                    self.flight.in_partitions(&member.partitions)
                } else {
                    (0, Vec::new())
                };
                json!({
                    "id": member.id, "host": member.host, "partitions": member.partitions,
                    "inFlight": in_flight, "written": written,
                })
            })
            .collect();
        json!({
            "state": group.state, "lag": self.lag(group, event), "partitions": group.bounds.len(), "members": members,
        })
    }

    /// Returns the sections of the page that are replaced as a whole.
    fn sections(&self) -> Vec<(&'static str, String)> {
        let totals = json!({
            "accepted": self.totals.accepted, "published": self.totals.published, "ads": self.totals.ads,
        });
        let groups = json!({
            "estimate": self.group(self.estimators.as_ref(), VEHICLE_CREATED),
            "ads": self.group(self.advertisers.as_ref(), VEHICLE_PROCESSED),
        });
        let texts = [
            ("counts", serde_json::to_string(&self.ledger.summary())),
            ("totals", serde_json::to_string(&totals)),
            ("roles", serde_json::to_string(&self.roles)),
            ("kafka", serde_json::to_string(&json!({ "error": self.kafka_error }))),
            ("groups", serde_json::to_string(&groups)),
            ("letters", serde_json::to_string(&self.letters.view())),
            ("faults", serde_json::to_string(&self.faults)),
        ];
        texts.into_iter().filter_map(|(name, text)| Some((name, text.ok()?))).collect()
    }

    fn delta(&mut self) -> Option<String> {
        let mut changed = BTreeMap::new();
        for (name, text) in self.sections() {
            if self.sent.get(name) != Some(&text) {
                changed.insert(name, text.clone());
                self.sent.insert(name, text);
            }
        }
        let ads = std::mem::take(&mut self.new_ads);
        let samples = std::mem::take(&mut self.new_samples);
        let ways = self.ways.take_changed();
        for (name, is_empty, text) in [
            ("ads", ads.is_empty(), serde_json::to_string(&ads)),
            ("samples", samples.is_empty(), serde_json::to_string(&samples)),
            ("vehicles", ways.is_empty(), serde_json::to_string(&ways)),
        ] {
            if !is_empty && let Ok(text) = text {
                changed.insert(name, text);
            }
        }
        if changed.is_empty() { None } else { Some(object(&changed)) }
    }

    fn whole(&self, settings: &Settings) -> String {
        let mut all: BTreeMap<_, _> = self.sections().into_iter().collect();
        for (name, text) in [
            ("settings", serde_json::to_string(settings)),
            ("ads", serde_json::to_string(&self.newest_ads)),
            ("samples", serde_json::to_string(self.history.samples())),
            ("vehicles", serde_json::to_string(&self.ways.all())),
        ] {
            all.extend(text.ok().map(|text| (name, text)));
        }
        object(&all)
    }
}

/// Returns the object with these names, which need no escapes, and these values, which are JSON.
fn object(members: &BTreeMap<&'static str, String>) -> String {
    let members: Vec<_> = members.iter().map(|(name, json)| format!("\"{name}\":{json}")).collect();
    format!("{{{}}}", members.join(","))
}
