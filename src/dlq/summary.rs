//! Counts dead letters by their reason.

use std::collections::HashMap;
use std::ops::ControlFlow;

use serde::Serialize;

use super::letter::{as_text, time};
use super::letter_id::LetterId;
use super::selection::Selection;
use crate::excerpt::excerpt;
use crate::kafka::KafkaArgs;

/// The maximum number of reasons that are distinguished. A reason may quote the record, so a producer could invent any
/// number. Dead letters with further reasons are counted together.
const MAX_REASONS: usize = 200;
const MAX_REASON_CHARS: usize = 300;
const OTHER_REASONS: &str = "other reasons";

/// The dead letters of a topic with the same reason.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReasonCount {
    pub count: u64,
    pub topic: &'static str,
    /// The reason, in which `#` takes the place of numbers and `"..."` that of quoted texts, which differ from record to
    /// record.
    pub reason: String,
    /// When the first and the last of them were created (RFC 3339).
    pub first: Option<String>,
    pub last: Option<String>,
    #[serde(serialize_with = "as_text")]
    pub example: LetterId,
}

/// Counts the selected dead letters by topic and reason, the most frequent ones first. Counts resolved ones only when
/// `all` is set. This call blocks.
///
/// # Errors
/// Fails when the brokers do not answer.
pub fn summarize(kafka: &KafkaArgs, selection: &Selection, all: bool) -> anyhow::Result<Vec<ReasonCount>> {
    struct Group {
        count: u64,
        first: Option<i64>,
        last: Option<i64>,
        example: LetterId,
    }
    let mut groups = HashMap::<_, Group>::new();
    let mut counted = 0;
    selection.for_each(kafka, |id, letter, waits| {
        if !waits && !all {
            return Ok(ControlFlow::Continue(()));
        }
        if selection.is_exhausted_by(counted) {
            return Ok(ControlFlow::Break(()));
        }
        counted += 1;
        let topic = id.event.topic;
        let mut key = (topic, generalized(&excerpt(&letter.reason(), MAX_REASON_CHARS)));
        if groups.len() >= MAX_REASONS && !groups.contains_key(&key) {
            key = (topic, OTHER_REASONS.to_owned());
        }
        let created = letter.record().timestamp;
        let group =
            groups.entry(key).or_insert(Group { count: 0, first: created, last: created, example: id });
        group.count += 1;
        // A missing time sorts before every other.
        group.first = group.first.into_iter().chain(created).min();
        group.last = group.last.max(created);
        Ok(ControlFlow::Continue(()))
    })?;
    let mut counts: Vec<_> = groups
        .into_iter()
        .map(|((topic, reason), Group { count, first, last, example })| ReasonCount {
            count,
            topic,
            reason,
            first: time(first),
            last: time(last),
            example,
        })
        .collect();
    counts.sort_by(|one, other| {
        other.count.cmp(&one.count).then_with(|| (one.topic, &one.reason).cmp(&(other.topic, &other.reason)))
    });
    Ok(counts)
}

/// Replaces numbers and quoted texts in a reason.
fn generalized(reason: &str) -> String {
    let mut general = String::with_capacity(reason.len());
    for (index, part) in reason.split('"').enumerate() {
        if index % 2 == 1 {
            general.push_str("\"...\"");
            continue;
        }
        let mut is_in_number = false;
        for character in part.chars() {
            let is_digit = character.is_ascii_digit();
            match (is_digit, is_in_number) {
                (true, true) => {}
                (true, false) => general.push('#'),
                (false, _) => general.push(character),
            }
            is_in_number = is_digit;
        }
    }
    general
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_a_value_are_the_same() {
        for (reason, general) in [
            ("not framed", "not framed"),
            ("unknown schema: id 1234 in 2 registries", "unknown schema: id # in # registries"),
            (r#"missing "vin 7", got "x""#, r#"missing "...", got "...""#),
            (r#"an open "quote 12"#, r#"an open "...""#),
            ("", ""),
        ] {
            assert_eq!(generalized(reason), general);
        }
    }
}
