//! Looks into the dead-letter topics, and settles what lies there.

mod letter_id;
mod show;

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use chrono::{DateTime, SecondsFormat};
use clap::{Args, Subcommand};
use serde_json::json;
use tokio::runtime::Handle;

use crate::event::{VEHICLE_CREATED, VEHICLE_PROCESSED};
use crate::kafka::{
    DeadLetter, KafkaArgs, Naming, OutgoingRecord, Settlement, TransactionalProducer, for_each_dead_letter,
};
use crate::output::Output;
use letter_id::LetterId;

/// One at a time: a second fences the first, whose transactions then fail.
const TRANSACTIONAL_ID: &str = "vehicle-platform-dlq";

/// Letters settled in one transaction at most.
const BATCH_LIMIT: usize = 500;
const BATCH_BYTES: usize = 16 * 1024 * 1024;

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
    /// Put records back on their topic, each once; mend the cause first, or they come back
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
    /// A letter, as it is listed: <topic>/<partition>/<offset>
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
    /// Letters, as they are listed: <topic>/<partition>/<offset>
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
/// When the brokers do not answer, or there is no such letter.
pub async fn run(args: DlqArgs) -> anyhow::Result<()> {
    let work = move || match args.command {
        DlqCommand::List(args) => list(&args),
        DlqCommand::Show(args) => show::show(&args),
        DlqCommand::Replay(args) => settle(&args, Settlement::Replayed),
        DlqCommand::Discard(args) => settle(&args, Settlement::Discarded),
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

fn settle(args: &SettleArgs, how: Settlement) -> anyhow::Result<()> {
    let naming = Naming::new(&args.kafka);
    // Before the letters are read: from here on nobody else settles any.
    let id = naming.group(TRANSACTIONAL_ID);
    let producer = Handle::current().block_on(TransactionalProducer::of_tool(&args.kafka, &id))?;
    let mut settler = Settler {
        producer,
        how,
        ids: Vec::new(),
        records: Vec::new(),
        bytes: 0,
        settled: 0,
        output: Output::stdout(),
    };
    // The state of the letters that were named.
    let mut named: BTreeMap<_, _> = args.letters.iter().map(|id| (*id, None)).collect();
    for_each_letter(&args.kafka, |id, letter, waits| {
        let records = || letter.settle(&naming.topic(id.event), how);
        if let Some(state) = named.get_mut(&id) {
            *state = Some((waits, records()));
        } else if args.all && waits {
            settler.add(id, records())?;
        }
        Ok(())
    })?;
    let mut refused = Vec::new();
    for (id, state) in &named {
        match state {
            Some((true, _)) => {}
            Some((false, _)) => refused.push(format!("{id} was settled before")),
            None => refused.push(format!("there is no letter {id}")),
        }
    }
    if !refused.is_empty() {
        bail!("{}; nothing was changed", refused.join(", "));
    }
    for (id, state) in named {
        settler.add(id, state.map(|(_, records)| records).unwrap_or_default())?;
    }
    settler.finish()
}

/// Settles letters, a batch in a transaction.
struct Settler {
    producer: TransactionalProducer,
    how: Settlement,
    ids: Vec<LetterId>,
    records: Vec<OutgoingRecord>,
    /// Of their values.
    bytes: usize,
    settled: usize,
    output: Output,
}

impl Settler {
    fn add(&mut self, id: LetterId, records: Vec<OutgoingRecord>) -> anyhow::Result<()> {
        self.ids.push(id);
        self.bytes +=
            records.iter().filter_map(|record| record.value.as_deref()).map(<[u8]>::len).sum::<usize>();
        self.records.extend(records);
        if self.ids.len() >= BATCH_LIMIT || self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        // A transaction whose outcome is unknown is told by the letters themselves when the command runs again.
        Handle::current().block_on(self.producer.publish(&self.records)).with_context(|| {
            format!(
                "{} letters were settled; run it again for the others, none is settled twice",
                self.settled
            )
        })?;
        self.settled += self.ids.len();
        self.records.clear();
        self.bytes = 0;
        for id in self.ids.drain(..) {
            self.output.line(format_args!("{} {id}", self.how.as_str()));
        }
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        if !self.ids.is_empty() {
            self.flush()?;
        } else if self.settled == 0 {
            self.output.line(format_args!("no letter waits"));
        }
        Ok(self.output.finish()?)
    }
}

/// RFC 3339, to the millisecond.
fn time(millis: Option<i64>) -> Option<String> {
    let time = DateTime::from_timestamp_millis(millis?)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
