//! Checks, registers, shows and compares the schemas of events, for operators and CI jobs.

mod check;
mod diff;
mod local;
mod show;
mod subject;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use json_schema_compatibility::Level;

use crate::output::Output;
use crate::registry::{ProvenSchema, RegistryArgs, RegistryClient, SchemaText};
use local::{LocalArgs, LocalSchema};
use serde_json::json;

#[derive(Args, Clone, Debug)]
pub struct SchemasArgs {
    #[command(subcommand)]
    pub command: SchemasCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub enum SchemasCommand {
    /// Check whether a registry would accept the schemas, and explain what it would refuse. The exit code is 1 if it
    /// would refuse one
    Check(CheckArgs),
    /// Register the schemas
    Register(SourceArgs),
    /// List the subjects of a registry, or print the schema of one
    Show(ShowArgs),
    /// List all differences between the schemas and the registered ones, compatible or not
    Diff(DiffArgs),
}

/// The settings of the commands that compare schemas with a registry.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub local: LocalArgs,

    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Compatibility level to apply instead of the registry's: NONE, BACKWARD, FORWARD or FULL, and the latter three
    /// with _TRANSITIVE
    #[arg(long, value_name = "LEVEL")]
    pub compatibility: Option<Level>,

    #[command(flatten)]
    pub source: SourceArgs,
}

#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// Number of the version to compare with [default: the latest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub version: Option<u32>,

    #[command(flatten)]
    pub source: SourceArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Subject to print the schema of, such as stock.vehicle-created-value
    #[arg(value_name = "SUBJECT")]
    pub subject: Option<String>,

    /// Number of the version to print [default: the latest]
    #[arg(long, value_name = "N", requires = "subject", value_parser = clap::value_parser!(u32).range(1..))]
    pub version: Option<u32>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Runs one of the commands.
///
/// # Errors
/// Fails when a file or the registry cannot be read, or a schema is or would be refused.
pub async fn run(args: SchemasArgs) -> anyhow::Result<()> {
    match args.command {
        SchemasCommand::Check(args) => check::check(&args).await,
        SchemasCommand::Register(args) => register(&args).await,
        SchemasCommand::Show(args) => show::show(&args).await,
        SchemasCommand::Diff(args) => diff::diff(&args).await,
    }
}

/// Registers all schemas that the registry accepts.
async fn register(args: &SourceArgs) -> anyhow::Result<()> {
    let registry = RegistryClient::new(&args.registry)?;
    let mut output = Output::stdout();
    let mut refused = Vec::new();
    for LocalSchema { subject, text, .. } in args.local.read()? {
        match registry.register(&subject, &SchemaText::of_json(text)).await {
            Ok(ProvenSchema { id, .. }) if args.json => {
                output.json(&json!({ "subject": subject, "id": id }));
            }
            Ok(ProvenSchema { id, .. }) => output.line(format_args!("{subject}  id {id}")),
            Err(error) => {
                let error = error.to_string();
                if args.json {
                    output.json(&json!({ "subject": subject, "error": error }));
                } else {
                    output.line(format_args!("{subject}  failed: {error}"));
                }
                refused.push(subject);
            }
        }
    }
    output.finish().context("the result cannot be written")?;
    if !refused.is_empty() {
        bail!(
            "not registered: {}; `vehicle-platform schemas check` explains an incompatibility",
            refused.join(", ")
        );
    }
    Ok(())
}
