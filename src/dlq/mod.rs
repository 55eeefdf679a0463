//! Lists, shows and resolves dead letters.

mod letter_id;
mod resolve;
mod show;

use anyhow::{Context as _, bail};
use chrono::{DateTime, SecondsFormat};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::event::EventType;
use crate::kafka::{DeadLetter, KafkaArgs, Naming, Resolution, for_each_dead_letter};
use crate::output::Output;
pub use letter_id::LetterId;
pub use resolve::{Outcome, Unresolvable, resolve};

#[derive(Args, Clone, Debug)]
pub struct DlqArgs {
    #[command(subcommand)]
    pub command: DlqCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub enum DlqCommand {
    /// List the unresolved dead letters, with the reason and the origin of each
    List(ListArgs),
    /// Show a dead letter: its state, reason, origin, headers, key and value
    Show(ShowArgs),
    /// Put records back on their topic, each exactly once. Fix the cause first, or they become dead letters again. A
    /// dead letter that cannot be put back is reported and skipped, and the exit code is 1
    Replay(ResolveArgs),
    /// Resolve dead letters without putting anything back. `audit --repair` publishes such a vehicle again
    Discard(ResolveArgs),
}

#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// List replayed and discarded dead letters as well
    #[arg(long)]
    pub all: bool,

    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub kafka: KafkaArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Dead letter, as `list` prints it, such as stock.vehicle-created/0/12
    #[arg(value_name = "ID")]
    pub letter: LetterId,

    /// Print only the value, byte for byte
    #[arg(long)]
    pub raw: bool,

    #[command(flatten)]
    pub kafka: KafkaArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ResolveArgs {
    /// Dead letters, as `list` prints them, such as stock.vehicle-created/0/12
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub letters: Vec<LetterId>,

    /// All unresolved dead letters
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    pub kafka: KafkaArgs,
}

/// Runs one of the commands.
///
/// # Errors
/// Fails when the brokers do not answer, a dead letter does not exist, or one cannot be put back.
pub async fn run(args: DlqArgs) -> anyhow::Result<()> {
    let work = move || match args.command {
        DlqCommand::List(args) => list(&args),
        DlqCommand::Show(args) => show::show(&args),
        DlqCommand::Replay(args) => resolve::run(&args, Resolution::Replayed),
        DlqCommand::Discard(args) => resolve::run(&args, Resolution::Discarded),
    };
    tokio::task::spawn_blocking(work).await.context("the command panicked")?
}

fn for_each_letter(
    kafka: &KafkaArgs,
    mut each: impl FnMut(LetterId, DeadLetter, bool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let naming = Naming::new(kafka);
    for event in EventType::ALL {
        for_each_dead_letter(kafka, &naming.topic(event), |letter, waits| {
            each(LetterId { event, position: letter.position() }, letter, waits)
        })?;
    }
    Ok(())
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    let mut listed = 0;
    let read = for_each_letter(&args.kafka, |id, letter, waits| {
        if output.is_closed() {
            bail!("the output is closed");
        }
        if !waits && !args.all {
            return Ok(());
        }
        let created = time(letter.record().timestamp);
        if args.json {
            let origin = letter
                .origin()
                .map(|(partition, offset)| json!({ "partition": partition, "offset": offset }));
            let line = json!({
                "letter": id.to_string(), "waits": waits, "died": created, "reason": letter.reason(),
                "group": letter.group(), "origin": origin, "written": time(letter.written()),
                "leftOut": letter.left_out(),
            });
            output.json(&line);
        } else {
            if listed == 0 {
                let (letter, created, state, origin) = ("DEAD LETTER", "CREATED", "STATE", "ORIGIN");
                output.line(format_args!("{letter:<36}  {created:<24}  {state:<9}  {origin:<14}  REASON"));
            }
            let state = if waits { "waiting" } else { "resolved" };
            let origin =
                letter.origin().map_or("-".to_owned(), |(partition, offset)| format!("{partition}/{offset}"));
            let created = created.unwrap_or_default();
            let reason = letter.reason();
            output.line(format_args!("{id:<36}  {created:<24}  {state:<9}  {origin:<14}  {reason}"));
        }
        listed += 1;
        Ok(())
    });
    if !output.is_closed() {
        read?;
    }
    if listed == 0 && !args.json {
        output.line(format_args!("no dead letters are waiting"));
    }
    Ok(output.finish()?)
}

/// Formats a timestamp according to RFC 3339, to the millisecond.
fn time(millis: Option<i64>) -> Option<String> {
    let time = DateTime::from_timestamp_millis(millis?)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
