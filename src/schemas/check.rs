//! Checks whether a registry would accept schemas.

use anyhow::{Context as _, bail};
use json_schema_compatibility::{Incompatibility, Level, incompatibilities};
use serde_json::{Value, json};

use super::local::LocalSchema;
use super::{CheckArgs, subject};
use crate::output::Output;
use crate::registry::{RegistryClient, SchemaText};

/// The mode in which a registry accepts new versions.
const READ_WRITE: &str = "READWRITE";

/// What a registry would do with a schema.
enum Verdict {
    /// The subject does not exist.
    New,
    /// The schema is registered.
    Registered,
    /// The schema is compatible with these versions.
    Compatible(Vec<u32>),
    Incompatible(u32, Vec<Incompatibility>),
    /// The mode of the subject does not allow a new version.
    Refused(String),
}

/// Prints what the registry would do with each schema.
///
/// # Errors
/// Fails when a schema cannot be read, the registry does not respond, or it would refuse a schema.
pub(super) async fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let registry = RegistryClient::new(&args.source.registry)?;
    let mut output = Output::stdout();
    let mut refused = Vec::new();
    let mut reports = Vec::new();
    for schema in args.source.local.read()? {
        let level = match args.compatibility {
            Some(level) => level,
            None => subject::level(&registry, &schema.subject).await?,
        };
        let verdict = judge(&registry, &schema, level).await.with_context(|| schema.subject.clone())?;
        if args.source.json {
            reports.push(as_json(&schema.subject, level, &verdict));
        } else {
            print(&mut output, &schema.subject, level, &verdict);
        }
        if matches!(verdict, Verdict::Incompatible(..) | Verdict::Refused(_)) {
            refused.push(schema.subject);
        }
    }
    if args.source.json {
        output.pretty_json(&json!({ "compatible": refused.is_empty(), "subjects": reports }));
    }
    output.finish()?;
    if !refused.is_empty() {
        bail!("the registry would refuse {}", refused.join(", "));
    }
    Ok(())
}

async fn judge(registry: &RegistryClient, schema: &LocalSchema, level: Level) -> anyhow::Result<Verdict> {
    let LocalSchema { subject, text, parsed } = schema;
    let numbers = registry.versions(subject).await?;
    if !numbers.is_empty() && registry.is_under(subject, &SchemaText::of_json(text.clone())).await? {
        return Ok(Verdict::Registered);
    }
    if let Some(mode) = registry.mode(subject).await?.filter(|mode| mode != READ_WRITE) {
        return Ok(Verdict::Refused(mode));
    }
    if numbers.is_empty() {
        return Ok(Verdict::New);
    }
    let count = match level {
        Level::None => 0,
        level if level.is_transitive() => numbers.len(),
        _ => 1,
    };
    let mut compared = Vec::new();
    for number in numbers.into_iter().rev().take(count) {
        let registered = subject::version(registry, subject, Some(number)).await?;
        let found = incompatibilities(level, parsed, &subject::parse(registry, &registered).await?)?;
        if !found.is_empty() {
            return Ok(Verdict::Incompatible(number, found));
        }
        compared.push(number);
    }
    Ok(Verdict::Compatible(compared))
}

fn print(output: &mut Output, subject: &str, level: Level, verdict: &Verdict) {
    match verdict {
        Verdict::New => output.line(format_args!("{subject}: new, the registry has no version of it")),
        Verdict::Registered => output.line(format_args!("{subject}: registered")),
        Verdict::Compatible(versions) => {
            let versions: Vec<_> = versions.iter().map(u32::to_string).collect();
            let with = if versions.is_empty() {
                "any schema".to_owned()
            } else {
                format!("version {}", versions.join(", "))
            };
            output.line(format_args!("{subject}: compatible with {with} ({level})"));
        }
        Verdict::Refused(mode) => {
            output.line(format_args!("{subject}: REFUSED, the registry is in mode {mode} for it"));
        }
        Verdict::Incompatible(version, found) => {
            output.line(format_args!("{subject}: INCOMPATIBLE with version {version} ({level})"));
            for incompatibility in found {
                let difference = &incompatibility.difference;
                let explanation = incompatibility.explanation();
                output.line(format_args!("  {}  {}", difference.path(), difference.rule));
                if let Some(model) = difference.content_model {
                    output.line(format_args!("    content model: {model}"));
                }
                output.line(format_args!("    problem: {}", explanation.problem));
                output.line(format_args!("    would pass: {}", explanation.remedy));
            }
        }
    }
}

fn as_json(subject: &str, level: Level, verdict: &Verdict) -> Value {
    let (verdict, versions, found) = match verdict {
        Verdict::New => ("new", Vec::new(), &[][..]),
        Verdict::Registered => ("registered", Vec::new(), &[][..]),
        Verdict::Compatible(versions) => ("compatible", versions.clone(), &[][..]),
        Verdict::Refused(_) => ("refused", Vec::new(), &[][..]),
        Verdict::Incompatible(version, found) => ("incompatible", vec![*version], found.as_slice()),
    };
    let found: Vec<_> = found.iter().map(describe).collect();
    json!({
        "subject": subject, "level": level, "verdict": verdict, "versions": versions, "incompatibilities": found
    })
}

fn describe(incompatibility: &Incompatibility) -> Value {
    let difference = &incompatibility.difference;
    let explanation = incompatibility.explanation();
    let causes: Vec<_> = difference
        .causes
        .iter()
        .map(|cause| json!({ "path": cause.path(), "rule": cause.rule.to_string() }))
        .collect();
    json!({
        "path": difference.path(),
        "rule": difference.rule.to_string(),
        "contentModel": difference.content_model.map(|model| model.to_string()),
        "reader": incompatibility.reader(),
        "problem": explanation.problem,
        "remedy": explanation.remedy,
        "causes": causes,
        "message": incompatibility.message(),
    })
}
