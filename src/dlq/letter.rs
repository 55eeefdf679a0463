//! Describes a dead letter as data.

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

use super::letter_id::LetterId;
use crate::kafka::DeadLetter;

/// A dead letter without its record.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Letter {
    #[serde(rename = "letter", serialize_with = "as_text")]
    pub id: LetterId,
    /// Whether it is neither replayed nor discarded.
    pub waits: bool,
    /// When it was created (RFC 3339).
    pub died: Option<String>,
    pub reason: String,
    /// The group whose member could not process the record.
    pub group: Option<String>,
    /// The position of the record in its own topic.
    pub origin: Option<Origin>,
    /// When the record was written to its own topic (RFC 3339).
    pub written: Option<String>,
    /// The parts that the brokers refused. A dead letter that lacks some cannot be replayed.
    pub left_out: Option<String>,
    /// How often the record was replayed before and came back.
    pub replays: u32,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Origin {
    pub partition: i32,
    pub offset: i64,
}

/// Serializes an id as the command line writes it.
///
/// # Errors
/// Returns the errors of the serializer.
pub(super) fn as_text<S: serde::Serializer>(id: &LetterId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

impl Letter {
    pub fn new(id: LetterId, letter: &DeadLetter, waits: bool) -> Self {
        Self {
            id,
            waits,
            died: time(letter.record().timestamp),
            reason: letter.reason(),
            group: letter.group(),
            origin: letter.origin().map(|(partition, offset)| Origin { partition, offset }),
            written: time(letter.written()),
            left_out: letter.left_out(),
            replays: letter.replays(),
        }
    }
}

/// Formats a timestamp according to RFC 3339, to the millisecond.
pub(super) fn time(millis: Option<i64>) -> Option<String> {
    let time = DateTime::from_timestamp_millis(millis?)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
