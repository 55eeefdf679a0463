//! Looks into the dead-letter topics, and settles what lies there.

mod letter_id;
mod settle;
mod show;

use anyhow::{Context as _, bail};
use chrono::{DateTime, SecondsFormat};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::event::{VEHICLE_CREATED, VEHICLE_PROCESSED};
use crate::kafka::{DeadLetter, KafkaArgs, Naming, Settlement, for_each_dead_letter};
use crate::output::Output;
use letter_id::LetterId;

#[derive(Args, Clone, Debug)]
pub struct DlqArgs {
    #[command(subcommand)]
    pub command: DlqCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub enum DlqCommand {
    /// List the letters that wait, with the reason and where each record lay
    List(ListArgs),
    /// Show all of one letter
    Show(ShowArgs),
    /// Put records back on their topic, each once; fix the cause first, or they come back. A letter that cannot be put back
    /// is named and skipped, and the exit code is 1
    Replay(SettleArgs),
    /// Give letters up: they are not listed any more, and nothing is put back (an audit that repairs announces such a
    /// vehicle anew)
    Discard(SettleArgs),
}

#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// List the letters too that were replayed or discarded
    #[arg(long)]
    pub all: bool,

    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub kafka: KafkaArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// A letter, as it is listed: TOPIC/PARTITION/OFFSET
    #[arg(value_name = "LETTER")]
    pub letter: LetterId,

    /// Print the value alone, byte for byte
    #[arg(long)]
    pub raw: bool,

    #[command(flatten)]
    pub kafka: KafkaArgs,
}

#[derive(Args, Clone, Debug)]
pub struct SettleArgs {
    /// Letters, as they are listed: TOPIC/PARTITION/OFFSET
    #[arg(value_name = "LETTER", required_unless_present = "all", conflicts_with = "all")]
    pub letters: Vec<LetterId>,

    /// All letters that wait
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    pub kafka: KafkaArgs,
}

/// Runs one of the commands.
///
/// # Errors
/// When the brokers do not answer, there is no such letter, or a letter cannot be put back.
pub async fn run(args: DlqArgs) -> anyhow::Result<()> {
    let work = move || match args.command {
        DlqCommand::List(args) => list(&args),
        DlqCommand::Show(args) => show::show(&args),
        DlqCommand::Replay(args) => settle::settle(&args, Settlement::Replayed),
        DlqCommand::Discard(args) => settle::settle(&args, Settlement::Discarded),
    };
    tokio::task::spawn_blocking(work).await.context("the command panicked")?
}

fn for_each_letter(
    kafka: &KafkaArgs,
    mut each: impl FnMut(LetterId, DeadLetter, bool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let naming = Naming::new(kafka);
    for event in [VEHICLE_CREATED, VEHICLE_PROCESSED] {
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
            bail!("nothing more can be written");
        }
        if !waits && !args.all {
            return Ok(());
        }
        let died = time(letter.record().timestamp);
        if args.json {
            let origin = letter
                .origin()
                .map(|(partition, offset)| json!({ "partition": partition, "offset": offset }));
            let line = json!({
                "letter": id.to_string(), "waits": waits, "died": died, "reason": letter.reason(),
                "group": letter.group(), "origin": origin, "written": time(letter.written()),
                "leftOut": letter.left_out(),
            });
            output.json(&line);
        } else {
            if listed == 0 {
                let (letter, died, state, origin) = ("LETTER", "DIED", "STATE", "LAY AT");
                output.line(format_args!("{letter:<36}  {died:<24}  {state:<9}  {origin:<14}  REASON"));
            }
            let state = if waits { "waits" } else { "settled" };
            let origin =
                letter.origin().map_or("-".to_owned(), |(partition, offset)| format!("{partition}/{offset}"));
            let died = died.unwrap_or_default();
            let reason = letter.reason();
            output.line(format_args!("{id:<36}  {died:<24}  {state:<9}  {origin:<14}  {reason}"));
        }
        listed += 1;
        Ok(())
    });
    if !output.is_closed() {
        read?;
    }
    if listed == 0 && !args.json {
        output.line(format_args!("no letter waits"));
    }
    Ok(output.finish()?)
}

/// RFC 3339, to the millisecond.
fn time(millis: Option<i64>) -> Option<String> {
    let time = DateTime::from_timestamp_millis(millis?)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
