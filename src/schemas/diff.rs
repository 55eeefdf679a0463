//! Compares schemas with registered ones in both directions.

use anyhow::Context as _;
use json_schema_compatibility::{Difference, differences};
use serde_json::{Value, json};

use super::{DiffArgs, subject};
use crate::output::Output;
use crate::registry::RegistryClient;

/// Prints all differences.
///
/// # Errors
/// Fails when a schema cannot be read, or the registry does not have a version.
pub(super) async fn diff(args: &DiffArgs) -> anyhow::Result<()> {
    let registry = RegistryClient::new(&args.source.registry)?;
    let mut output = Output::stdout();
    for schema in args.source.local.read()? {
        let registered = subject::version(&registry, &schema.subject, args.version).await?;
        let old = subject::parse(&registry, &registered).await.with_context(|| schema.subject.clone())?;
        let backward = differences(&schema.parsed, &old)?;
        let forward = differences(&old, &schema.parsed)?;
        if args.source.json {
            output.json(&json!({
                "subject": schema.subject,
                "version": registered.version,
                "newReadsOld": backward.iter().map(describe).collect::<Vec<_>>(),
                "oldReadsNew": forward.iter().map(describe).collect::<Vec<_>>(),
            }));
        } else {
            output.line(format_args!("{} and version {}", schema.subject, registered.version));
            print(&mut output, "the new schema reads records of the old one", &backward);
            print(&mut output, "the old schema reads records of the new one", &forward);
        }
    }
    Ok(output.finish()?)
}

fn print(output: &mut Output, direction: &str, differences: &[Difference]) {
    let is_compatible = differences.iter().all(|difference| difference.rule.is_compatible());
    output.line(format_args!("  {direction}: {}", if is_compatible { "yes" } else { "not all" }));
    for difference in differences {
        let verdict = if difference.rule.is_compatible() { "compatible" } else { "INCOMPATIBLE" };
        output.line(format_args!("    {verdict:<12}  {}  {}", difference.path(), difference.rule));
    }
}

fn describe(difference: &Difference) -> Value {
    json!({
        "path": difference.path(),
        "rule": difference.rule.to_string(),
        "contentModel": difference.content_model.map(|model| model.to_string()),
        "compatible": difference.rule.is_compatible(),
    })
}
