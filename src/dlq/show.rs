//! Shows a single dead letter.

use std::ops::ControlFlow;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::ShowArgs;
use super::letter::time;
use super::selection::Selection;
use crate::kafka::DeadLetter;
use crate::output::Output;
use crate::registry::unframed;

pub(super) fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let mut found = None;
    Selection::default().for_each(&args.kafka, |id, letter, waits| {
        if id == args.letter {
            found = Some((letter, waits));
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let (letter, waits) = found.with_context(|| format!("dead letter {} does not exist", args.letter))?;
    let mut output = Output::stdout();
    if args.raw {
        if let Some(left_out) = letter.left_out().filter(|_| letter.record().value().is_none()) {
            bail!("{left_out} was omitted because the brokers refused it");
        }
        output.raw(letter.record().value().unwrap_or_default());
    } else {
        for (name, value) in describe(&letter, waits) {
            output.line(format_args!("{name:<10} {value}"));
        }
        output.lines(&format!("{:<10} {}", "value", value(letter.record().value())));
    }
    Ok(output.finish()?)
}

fn describe(letter: &DeadLetter, waits: bool) -> Vec<(&'static str, String)> {
    let record = letter.record();
    let unknown = || "unknown".to_owned();
    let origin = letter.origin();
    let mut lines = vec![
        ("state", if waits { "waiting" } else { "resolved: replayed or discarded" }.to_owned()),
        ("reason", letter.reason()),
        ("created", time(record.timestamp).unwrap_or_else(unknown)),
        ("read by", letter.group().unwrap_or_else(unknown)),
        ("written", time(letter.written()).unwrap_or_else(unknown)),
        (
            "origin",
            origin.map_or_else(unknown, |(partition, offset)| {
                format!("partition {partition}, offset {offset}")
            }),
        ),
    ];
    if letter.replays() > 0 {
        lines.push(("replays", format!("{}, after which it came back", letter.replays())));
    }
    if let Some(left_out) = letter.left_out() {
        lines.push(("omitted", format!("{left_out}; the brokers refused the dead letter with it")));
    }
    for (name, value) in letter.own_headers() {
        lines.push(("header", format!("{name}: {}", text(value))));
    }
    lines.push(("key", text(record.key())));
    lines
}

/// Formats a framed value as JSON, and any other value as escaped text.
fn value(bytes: Option<&[u8]>) -> String {
    let json: Option<Value> = bytes.and_then(unframed).and_then(|json| serde_json::from_slice(json).ok());
    json.map_or_else(|| text(bytes), |json| format!("{json:#}"))
}

fn text(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "none".to_owned(),
        // Escapes unprintable bytes, which could control a terminal.
        Some(bytes) => bytes.escape_ascii().to_string(),
    }
}
