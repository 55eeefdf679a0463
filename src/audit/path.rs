//! Prints the whole path of one vehicle.

use std::io::Write;

use anyhow::bail;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use tokio::runtime::Handle;

use super::Sources;
use super::gather::vin_of;
use crate::database::DatabaseError;
use crate::event::{EventType, REANNOUNCED_HEADER, VEHICLE_CREATED, VEHICLE_PROCESSED};
use crate::excerpt::excerpt;
use crate::kafka::{Record, TopicReader, for_each_dead_letter};
use crate::output::Output;
use crate::trace::TraceHeaders;

/// The number of events read from the outbox at a time.
const PAGE: i64 = 5_000;
/// The maximum number of records of a topic that are shown. A producer may write a vin any number of times.
const MAX_RECORDS: usize = 1_000;
/// The maximum length of a header that is shown, which a producer chooses as well.
const MAX_HEADER_CHARS: usize = 1_000;

/// A place where the vehicle was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    place: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    detail: String,
}

impl Step {
    fn at(place: &'static str, time: Option<DateTime<Utc>>, detail: String) -> Self {
        let time = time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true));
        Self { place, time, topic: None, partition: None, offset: None, detail }
    }

    fn of_record(place: &'static str, record: &Record, detail: String) -> Self {
        let time = record.timestamp.and_then(DateTime::from_timestamp_millis);
        Self {
            topic: Some(record.topic.to_string()),
            partition: Some(record.partition),
            offset: Some(record.offset),
            ..Self::at(place, time, detail)
        }
    }
}

/// The first records with the vin in a topic.
struct Records {
    place: &'static str,
    steps: Vec<Step>,
    omitted: u64,
}

impl Records {
    fn new(place: &'static str) -> Self {
        Self { place, steps: Vec::new(), omitted: 0 }
    }

    fn add(&mut self, record: &Record, detail: impl FnOnce() -> String) {
        if self.steps.len() < MAX_RECORDS {
            self.steps.push(Step::of_record(self.place, record, detail()));
        } else {
            self.omitted += 1;
        }
    }

    fn into_steps(mut self) -> Vec<Step> {
        if self.omitted > 0 {
            self.steps.push(Step::at(self.place, None, format!("{} more are not shown", self.omitted)));
        }
        self.steps
    }
}

/// Prints all places where `vin` was found, in the order of the data flow. Blocks.
///
/// # Errors
/// Fails when the vin is not found anywhere or a system does not answer.
pub(super) fn print_path(
    sources: &Sources,
    runtime: &Handle,
    vin: &str,
    json: bool,
    mut output: Output<impl Write>,
) -> anyhow::Result<()> {
    let mut steps = Vec::new();
    match runtime.block_on(sources.vehicles.find(vin)) {
        Ok(Some(stocked)) => {
            steps.push(Step::at("vehicle", Some(stocked.created_at), format!("/stock/{}", stocked.id)));
        }
        Ok(None) => {}
        Err(DatabaseError::Unreadable(reason)) => {
            steps.push(Step::at("vehicle", None, format!("{reason:#}")));
        }
        Err(error) => return Err(error.into()),
    }
    steps.extend(outbox(sources, runtime, vin)?);
    for (event, place, dead) in [
        (VEHICLE_CREATED, "created event", "dead letter of a created event"),
        (VEHICLE_PROCESSED, "processed event", "dead letter of a processed event"),
    ] {
        steps.extend(events(sources, event, place, vin)?);
        steps.extend(dead_letters(sources, event, dead, vin)?);
    }
    for ad in runtime.block_on(sources.ads.find(vin))? {
        steps.push(match ad {
            Ok(ad) => {
                let detail = format!("/ads/{}, {} {}", ad.id, ad.offer.price, ad.offer.price_unit);
                Step::at("ad", Some(ad.published_at), detail)
            }
            Err(unreadable) => Step::at("ad", None, unreadable.to_string()),
        });
    }
    if steps.is_empty() {
        bail!("no trace of the vin {vin:?} was found");
    }
    if json {
        output.pretty_json(&steps);
        return Ok(output.finish()?);
    }
    for step in steps {
        let position = match (&step.topic, step.partition, step.offset) {
            (Some(topic), Some(partition), Some(offset)) => {
                format!("{topic}, partition {partition}, offset {offset}; ")
            }
            _ => String::new(),
        };
        let time = step.time.unwrap_or_default();
        output.line(format_args!("{time:<24}  {:<32}  {position}{}", step.place, step.detail));
    }
    Ok(output.finish()?)
}

fn outbox(sources: &Sources, runtime: &Handle, vin: &str) -> anyhow::Result<Option<Step>> {
    let mut after = 0;
    loop {
        let page = runtime.block_on(sources.vehicles.unpublished(after, PAGE))?;
        let Some(last) = page.last() else { return Ok(None) };
        after = last.id;
        if let Some(event) = page.iter().find(|event| event.vin == vin) {
            let detail = match &event.failure {
                Some(reason) => format!("event {} cannot be encoded: {reason}", event.id),
                None => format!("event {} is waiting to be published", event.id),
            };
            return Ok(Some(Step::at("outbox", None, detail)));
        }
    }
}

fn events(sources: &Sources, event: EventType, place: &'static str, vin: &str) -> anyhow::Result<Vec<Step>> {
    let mut records = Records::new(place);
    TopicReader::open(&sources.kafka, &sources.naming.topic(event))?.for_each(|record| {
        if vin_of(&record).as_deref() == Some(vin) {
            records.add(&record, || {
                let again = record.header(REANNOUNCED_HEADER).map_or("", |_| ", published again by an audit");
                let trace = record.header(TraceHeaders::PARENT).unwrap_or(b"none").escape_ascii().to_string();
                format!("traceparent {}{again}", excerpt(&trace, MAX_HEADER_CHARS))
            });
        }
        Ok(())
    })?;
    Ok(records.into_steps())
}

fn dead_letters(
    sources: &Sources,
    event: EventType,
    place: &'static str,
    vin: &str,
) -> anyhow::Result<Vec<Step>> {
    let mut records = Records::new(place);
    for_each_dead_letter(&sources.kafka, &sources.naming.topic(event), |letter, waits| {
        if vin_of(letter.record()).as_deref() == Some(vin) {
            records.add(letter.record(), || {
                let state = if waits { "waiting" } else { "resolved" };
                format!("{state}: {}", excerpt(&letter.reason(), MAX_HEADER_CHARS))
            });
        }
        Ok(())
    })?;
    Ok(records.into_steps())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::OutgoingRecord;

    #[test]
    fn a_vin_in_many_records_is_shown_with_the_first_ones() {
        let written = OutgoingRecord { topic: "t".to_owned(), key: None, value: None, headers: Vec::new() };
        let record = Record::of(&written, 0, 7, None);
        let mut records = Records::new("created event");
        for _ in 0..MAX_RECORDS + 2 {
            records.add(&record, String::new);
        }
        let steps = records.into_steps();
        assert_eq!(steps.len(), MAX_RECORDS + 1);
        assert_eq!(steps.last().unwrap().detail, "2 more are not shown");
    }
}
