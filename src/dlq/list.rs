//! Lists dead letters.

use std::ops::ControlFlow;

use super::ListArgs;
use super::letter::Letter;
use super::summary::{ReasonCount, summarize};
use crate::output::Output;

pub(super) fn list(args: &ListArgs) -> anyhow::Result<()> {
    if args.summary { print_summary(args) } else { print_letters(args) }
}

fn print_letters(args: &ListArgs) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    let (mut listed, mut more) = (0, false);
    let read = args.selection.for_each(&args.kafka, |id, letter, waits| {
        if output.is_closed() {
            return Ok(ControlFlow::Break(()));
        }
        if !waits && !args.all {
            return Ok(ControlFlow::Continue(()));
        }
        if args.selection.is_exhausted_by(listed) {
            more = true;
            return Ok(ControlFlow::Break(()));
        }
        let letter = Letter::new(id, &letter, waits);
        if args.json {
            output.json(&letter);
        } else {
            print(&mut output, &letter, listed == 0);
        }
        listed += 1;
        Ok(ControlFlow::Continue(()))
    });
    if !output.is_closed() {
        read?;
    }
    if !args.json {
        if listed == 0 {
            output.line(format_args!("{}", args.selection.none_found(args.all)));
        }
        if more {
            output.line(format_args!("there are more than {listed} (--max)"));
        }
    }
    Ok(output.finish()?)
}

fn print(output: &mut Output, letter: &Letter, is_first: bool) {
    if is_first {
        let (id, created, state, origin) = ("DEAD LETTER", "CREATED", "STATE", "ORIGIN");
        output.line(format_args!("{id:<36}  {created:<24}  {state:<9}  {origin:<14}  REPLAYS  REASON"));
    }
    let Letter { id, waits, died, reason, origin, replays, .. } = letter;
    let state = if *waits { "waiting" } else { "resolved" };
    let origin = origin.map_or("-".to_owned(), |origin| format!("{}/{}", origin.partition, origin.offset));
    let created = died.as_deref().unwrap_or_default();
    output.line(format_args!("{id:<36}  {created:<24}  {state:<9}  {origin:<14}  {replays:<7}  {reason}"));
}

fn print_summary(args: &ListArgs) -> anyhow::Result<()> {
    let counts = summarize(&args.kafka, &args.selection, args.all)?;
    let mut output = Output::stdout();
    if args.json {
        counts.iter().for_each(|count| output.json(count));
        return Ok(output.finish()?);
    }
    if counts.is_empty() {
        output.line(format_args!("{}", args.selection.none_found(args.all)));
    } else {
        let (count, example, last) = ("COUNT", "FOR EXAMPLE", "LAST");
        output.line(format_args!("{count:>8}  {example:<36}  {last:<24}  REASON"));
    }
    for ReasonCount { count, example, last, reason, .. } in &counts {
        let last = last.as_deref().unwrap_or_default();
        output.line(format_args!("{count:>8}  {example:<36}  {last:<24}  {reason}"));
    }
    Ok(output.finish()?)
}
