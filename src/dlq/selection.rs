//! Selects dead letters by their reason and their age.

use std::ops::ControlFlow;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;

use super::letter_id::LetterId;
use crate::duration::parse_duration;
use crate::event::EventType;
use crate::kafka::{DeadLetter, KafkaArgs, Naming, for_each_dead_letter};

#[derive(Args, Clone, Debug, Default)]
pub struct Selection {
    /// Only dead letters whose reason contains this text, in any case
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// Only dead letters that were created within a duration, such as 2h, or since a time, such as 2026-05-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<DateTime<Utc>>,

    /// Maximum number of dead letters [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max: Option<u64>,
}

/// Parses a time, or a duration before now.
fn parse_since(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let ago = parse_duration(text).ok().and_then(|duration| TimeDelta::from_std(duration).ok());
    let since = ago.and_then(|ago| Utc::now().checked_sub_signed(ago));
    since.ok_or_else(|| "must be a duration such as 2h, or a time such as 2026-05-01T12:00:00Z".to_owned())
}

impl Selection {
    fn includes(&self, letter: &DeadLetter) -> bool {
        let has_reason = |reason: &String| letter.reason().to_lowercase().contains(&reason.to_lowercase());
        // A record without a timestamp may be of any age.
        let is_recent = |since: &DateTime<Utc>| {
            letter.record().timestamp.is_none_or(|created| created >= since.timestamp_millis())
        };
        self.reason.as_ref().is_none_or(has_reason) && self.since.as_ref().is_none_or(is_recent)
    }

    /// Returns what to print when no dead letter was found among those that wait or, with `all`, among all.
    pub fn none_found(&self, all: bool) -> &'static str {
        match (self.reason.is_some() || self.since.is_some(), all) {
            (false, false) => "no dead letters are waiting",
            (false, true) => "there are no dead letters",
            (true, false) => "no waiting dead letter matches",
            (true, true) => "no dead letter matches",
        }
    }

    /// Returns whether `count` dead letters are all that may be selected.
    pub fn is_exhausted_by(&self, count: usize) -> bool {
        self.max.is_some_and(|max| count as u64 >= max)
    }

    /// Calls `each` for the dead letters with the reason and the age, including resolved ones, until it breaks. Its last
    /// argument is whether the dead letter is unresolved. The caller counts. This call blocks.
    ///
    /// # Errors
    /// Fails when the brokers do not answer or `each` fails.
    pub fn for_each(
        &self,
        kafka: &KafkaArgs,
        mut each: impl FnMut(LetterId, DeadLetter, bool) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        let naming = Naming::new(kafka);
        for event in EventType::ALL {
            let read = for_each_dead_letter(kafka, &naming.topic(event), |letter, waits| {
                if self.includes(&letter) {
                    let id = LetterId { event, position: letter.position() };
                    if each(id, letter, waits)?.is_break() {
                        return Err(Enough.into());
                    }
                }
                Ok(())
            });
            match read {
                Err(error) if error.is::<Enough>() => return Ok(()),
                read => read?,
            }
        }
        Ok(())
    }
}

/// Ends the reading of a topic.
#[derive(Debug, thiserror::Error)]
#[error("the rest is not needed")]
struct Enough;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_duration_before_now() {
        let time = parse_since("2026-05-01T14:00:00+02:00").unwrap();
        assert_eq!(time.to_rfc3339(), "2026-05-01T12:00:00+00:00");
        let earliest = Utc::now() - TimeDelta::hours(2);
        let since = parse_since("2h").unwrap();
        assert!((earliest..=Utc::now() - TimeDelta::hours(2)).contains(&since), "{since}");
        assert!(parse_since("100years").unwrap() < parse_since("99years").unwrap());
        for wrong in ["", "yesterday", "2026-05-01", "-2h", "101years"] {
            assert!(parse_since(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_end_of_reading_is_recognized_below_its_context() {
        let error = anyhow::Error::from(Enough).context("cannot read a topic");
        assert!(error.is::<Enough>());
    }
}
