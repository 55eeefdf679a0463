//! Judges the places where a vin was found.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

/// A place where a vin can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Place {
    Vehicles = 0,
    /// A vehicle that was accepted during the audit. It is known but not judged yet.
    NewVehicles = 1,
    Outbox = 2,
    Created = 3,
    /// An event that an earlier audit published again.
    Reannounced = 4,
    /// An unresolved dead letter of a created event.
    CreatedDead = 5,
    Processed = 6,
    ProcessedDead = 7,
    Ads = 8,
    /// An event that stock could not encode.
    Unencodable = 9,
}

/// The places where one vin was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trail {
    pub(super) vin: String,
    /// When stock accepted the vehicle, in milliseconds since the Unix epoch; `None` when it was not in stock at the
    /// beginning of the audit.
    pub(super) created_at: Option<i64>,
    pub(super) is_new: bool,
    /// The number of events waiting to be published.
    pub(super) outbox: i64,
    /// The number of events that could not be encoded.
    pub(super) unencodable: i64,
    /// The number of created events, without those that were published again.
    pub(super) created: i64,
    pub(super) reannounced: i64,
    pub(super) processed: i64,
    /// The number of events of either kind that their consumer has not committed.
    pub(super) unread: i64,
    /// When the last of them was written.
    pub(super) unread_since: Option<i64>,
    pub(super) dead_letters: i64,
    pub(super) ads: i64,
}

/// A problem of a vehicle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Finding {
    WithoutEvent,
    Unencodable,
    WithoutAd,
    DeadLettered,
    Late,
    DoubledCreated,
    DoubledProcessed,
    DoubledAds,
    AdWithoutVehicle,
    Unreadable,
}

impl Finding {
    pub const ALL: [Self; 10] = [
        Self::WithoutEvent,
        Self::Unencodable,
        Self::WithoutAd,
        Self::DeadLettered,
        Self::Late,
        Self::DoubledCreated,
        Self::DoubledProcessed,
        Self::DoubledAds,
        Self::AdWithoutVehicle,
        Self::Unreadable,
    ];

    /// Returns the description of the finding and the remedy.
    pub fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::WithoutEvent => {
                ("vehicles without an event", "lost before Kafka; --repair publishes them again")
            }
            Self::Unencodable => (
                "vehicles whose event cannot be encoded",
                "audit --vin shows the reason; stock retries when it starts",
            ),
            Self::WithoutAd => {
                ("vehicles without an ad", "lost after their event; --repair publishes them again")
            }
            Self::DeadLettered => {
                ("vehicles in a dead-letter topic", "vehicle-platform dlq list shows the reasons")
            }
            Self::Late => {
                ("vehicles that are late", "still being processed; check that estimate and ads are running")
            }
            Self::DoubledCreated => ("vehicles created twice in Kafka", "ads still shows them once"),
            Self::DoubledProcessed => ("vehicles processed twice", "ads shows the first price"),
            Self::DoubledAds => ("vins with more than one ad", "check the unique index on vin"),
            Self::Unreadable => (
                "vehicles and ads that cannot be read",
                "another program wrote or changed them; correct or remove them",
            ),
            Self::AdWithoutVehicle => {
                ("ads without a vehicle", "written by another producer or for another stock database")
            }
        }
    }

    /// Returns whether publishing the vehicle again resolves the finding.
    pub(super) fn is_repaired_by_announcing(self) -> bool {
        matches!(self, Self::WithoutEvent | Self::WithoutAd)
    }
}

/// The progress of a vehicle without a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Advertised,
    OnItsWay,
}

impl Trail {
    /// Returns the stage of a vehicle without a problem, and the findings. An ad without a vehicle must be confirmed.
    /// `allowed` is the maximum time from one place to the next.
    pub(super) fn judge(&self, now: DateTime<Utc>, allowed: TimeDelta) -> (Option<Stage>, Vec<Finding>) {
        let mut findings = Vec::new();
        let mut stage = None;
        if let Some(created_at) = self.created_at {
            match self.stage(created_at, now, allowed) {
                Ok(reached) => stage = Some(reached),
                Err(finding) => findings.push(finding),
            }
        } else if self.ads > 0 && !self.is_new {
            findings.push(Finding::AdWithoutVehicle);
        }
        if self.created > 1 {
            findings.push(Finding::DoubledCreated);
        }
        // Each created event, including an audit's, may have been processed once.
        if self.processed > (self.created + self.reannounced).max(1) {
            findings.push(Finding::DoubledProcessed);
        }
        if self.ads > 1 {
            findings.push(Finding::DoubledAds);
        }
        (stage, findings)
    }

    fn stage(&self, created_at: i64, now: DateTime<Utc>, allowed: TimeDelta) -> Result<Stage, Finding> {
        if self.ads > 0 {
            return Ok(Stage::Advertised);
        }
        if self.outbox > 0 || self.unread > 0 {
            let since = self.unread_since.map_or(created_at, |written| written.max(created_at));
            let age = now.timestamp_millis() - since;
            return if age <= allowed.num_milliseconds() { Ok(Stage::OnItsWay) } else { Err(Finding::Late) };
        }
        if self.dead_letters > 0 {
            return Err(Finding::DeadLettered);
        }
        if self.unencodable > 0 {
            return Err(Finding::Unencodable);
        }
        if self.created + self.reannounced + self.processed > 0 {
            Err(Finding::WithoutAd)
        } else {
            Err(Finding::WithoutEvent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_000_000).unwrap()
    }

    fn vehicle() -> Trail {
        Trail { created_at: Some(0), created: 1, ..Trail::default() }
    }

    fn judge(trail: &Trail) -> (Option<Stage>, Vec<Finding>) {
        trail.judge(now(), TimeDelta::seconds(40))
    }

    #[test]
    fn a_vehicle_with_an_ad_has_no_finding_even_without_its_events() {
        assert_eq!(judge(&Trail { processed: 1, ads: 1, ..vehicle() }), (Some(Stage::Advertised), vec![]));
        assert_eq!(judge(&Trail { created: 0, ads: 1, ..vehicle() }), (Some(Stage::Advertised), vec![]));
    }

    #[test]
    fn a_vehicle_with_unread_events_is_on_its_way_until_it_is_late() {
        let young = Trail { unread: 1, unread_since: Some(990_000), ..vehicle() };
        assert_eq!(judge(&young), (Some(Stage::OnItsWay), vec![]));
        let old = Trail { unread_since: Some(900_000), ..young };
        assert_eq!(judge(&old), (None, vec![Finding::Late]));
        let unpublished = Trail { outbox: 1, created: 0, ..vehicle() };
        assert_eq!(judge(&unpublished), (None, vec![Finding::Late]));
    }

    #[test]
    fn a_vehicle_without_unread_events_is_lost_after_the_last_place() {
        assert_eq!(judge(&vehicle()), (None, vec![Finding::WithoutAd]));
        assert_eq!(judge(&Trail { processed: 1, ..vehicle() }), (None, vec![Finding::WithoutAd]));
        assert_eq!(judge(&Trail { created: 0, ..vehicle() }), (None, vec![Finding::WithoutEvent]));
        assert_eq!(judge(&Trail { dead_letters: 1, ..vehicle() }), (None, vec![Finding::DeadLettered]));
    }

    #[test]
    fn an_event_that_cannot_be_encoded_is_not_lost() {
        let trail = Trail { unencodable: 1, created: 0, ..vehicle() };
        assert_eq!(judge(&trail), (None, vec![Finding::Unencodable]));
    }

    #[test]
    fn duplicates_are_found_except_those_of_a_repair() {
        let doubled = Trail { created: 2, processed: 3, ads: 2, ..vehicle() };
        let findings = vec![Finding::DoubledCreated, Finding::DoubledProcessed, Finding::DoubledAds];
        assert_eq!(judge(&doubled), (Some(Stage::Advertised), findings));
        let repaired = Trail { reannounced: 1, processed: 2, ads: 1, ..vehicle() };
        assert_eq!(judge(&repaired), (Some(Stage::Advertised), vec![]));
    }

    #[test]
    fn an_ad_requires_a_vehicle_but_an_event_may_be_of_another_producer() {
        let ad = Trail { created_at: None, ads: 1, ..vehicle() };
        assert_eq!(judge(&ad), (None, vec![Finding::AdWithoutVehicle]));
        assert_eq!(judge(&Trail { is_new: true, ..ad }), (None, vec![]));
        assert_eq!(judge(&Trail { created_at: None, ..vehicle() }), (None, vec![]));
    }
}
