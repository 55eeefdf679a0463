//! Lists, counts, shows and resolves dead letters.

mod claim;
mod letter;
mod letter_id;
mod list;
mod resolve;
mod selection;
mod show;
mod summary;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

pub use letter::Letter;
pub use letter_id::LetterId;
pub use resolve::{Outcome, Plan, Step, Unresolvable, Which, resolve};
pub use selection::Selection;
pub use summary::{ReasonCount, summarize};

use crate::kafka::{KafkaArgs, Resolution};
use crate::output::{self, Output};

/// How often a record is put back before it is left to an operator.
pub const DEFAULT_MAX_REPLAYS: u32 = 3;

#[derive(Args, Clone, Debug)]
pub struct DlqArgs {
    #[command(subcommand)]
    pub command: DlqCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub enum DlqCommand {
    /// List the unresolved dead letters, with the reason and the origin of each; or count them by reason
    List(ListArgs),
    /// Show a dead letter: its state, reason, origin, headers, key and value
    Show(ShowArgs),
    /// Put records back on their topic, each exactly once. Fix the cause first, or they become dead letters again. A
    /// dead letter that cannot be put back is reported and skipped, and the exit code is 1
    Replay(ReplayArgs),
    /// Resolve dead letters without putting anything back. `audit --repair` publishes such a vehicle again
    Discard(ResolveArgs),
}

#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// List replayed and discarded dead letters as well
    #[arg(long)]
    pub all: bool,

    /// Count the dead letters by reason instead. Numbers and quoted texts in reasons do not distinguish them
    #[arg(long)]
    pub summary: bool,

    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub selection: Selection,

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
pub struct ReplayArgs {
    /// How often a record is replayed: one that came back this often is skipped. Raise it to replay the record after all
    #[arg(long, env = "DLQ_MAX_REPLAYS", value_name = "N", default_value_t = DEFAULT_MAX_REPLAYS)]
    pub max_replays: u32,

    #[command(flatten)]
    pub resolve: ResolveArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ResolveArgs {
    /// Dead letters, as `list` prints them, such as stock.vehicle-created/0/12
    #[arg(
        value_name = "ID",
        required_unless_present = "all",
        conflicts_with_all = ["all", "reason", "since", "max"]
    )]
    pub letters: Vec<LetterId>,

    /// All unresolved dead letters, or those that --reason, --since and --max select
    #[arg(long)]
    pub all: bool,

    /// Print what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub selection: Selection,

    #[command(flatten)]
    pub kafka: KafkaArgs,
}

impl ResolveArgs {
    fn plan(&self, how: Resolution, max_replays: u32) -> Plan {
        let which =
            if self.all { Which::All(self.selection.clone()) } else { Which::These(self.letters.clone()) };
        Plan { which, how, max_replays, dry_run: self.dry_run }
    }
}

/// Runs one of the commands.
///
/// # Errors
/// Fails when the brokers do not answer, a dead letter does not exist, or one cannot be put back.
pub async fn run(args: DlqArgs) -> anyhow::Result<()> {
    let work = move || match args.command {
        DlqCommand::List(args) => list::list(&args),
        DlqCommand::Show(args) => show::show(&args),
        DlqCommand::Replay(ReplayArgs { max_replays, resolve }) => {
            run_plan(&resolve.kafka, &resolve.plan(Resolution::Replayed, max_replays))
        }
        DlqCommand::Discard(args) => run_plan(&args.kafka, &args.plan(Resolution::Discarded, 0)),
    };
    tokio::task::spawn_blocking(work).await.context("the command panicked")?
}

fn run_plan(kafka: &KafkaArgs, plan: &Plan) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    let how = plan.how.as_str();
    let (one, all) = if plan.dry_run { ("would be ", "would have ") } else { ("", "") };
    let Outcome { resolved, skipped } = resolve(kafka, plan, |step| match step {
        Step::Resolved(id) => output.line(format_args!("{one}{how} {id}")),
        Step::Skipped(id, reason) => output::report(format_args!("skipped {id}: {reason}")),
    })?;
    if skipped > 0 {
        bail!(
            "{all}{how} {resolved} dead letters; {skipped} were skipped for the reasons above. For those that are still \
             waiting, raise max.message.bytes where the brokers refuse a record, or resolve them with `dlq discard`"
        );
    }
    if resolved == 0 {
        let none = match &plan.which {
            Which::All(selection) => selection.none_found(false),
            Which::These(_) => "no dead letters are waiting",
        };
        output.line(format_args!("{none}"));
    }
    Ok(output.finish()?)
}
