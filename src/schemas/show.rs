//! Shows the subjects of a registry.

use serde_json::{Value, json};

use super::{ShowArgs, subject};
use crate::output::Output;
use crate::registry::RegistryClient;

/// Lists the subjects, or prints the schema of one.
///
/// # Errors
/// Fails when the registry does not respond, or does not have the version.
pub(super) async fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let registry = RegistryClient::new(&args.registry)?;
    let mut output = Output::stdout();
    match &args.subject {
        Some(subject) => {
            let found = subject::version(&registry, subject, args.version).await?;
            let text = &found.text;
            let schema: Value = text.parse().unwrap_or_else(|_| json!(text.schema));
            if args.json {
                output.json(&json!({
                    "subject": subject, "version": found.version, "id": found.id, "schemaType": text.schema_type,
                    "references": text.references, "schema": schema,
                }));
            } else {
                output.pretty_json(&schema);
            }
        }
        None => {
            for name in registry.subjects().await? {
                let versions = registry.versions(&name).await?;
                let latest = registry.version(&name, None).await?.map(|latest| latest.id);
                let level = registry.level(&name).await?;
                if args.json {
                    output.json(
                        &json!({ "subject": name, "versions": versions, "latestId": latest, "level": level }),
                    );
                } else {
                    let versions: Vec<_> = versions.iter().map(u32::to_string).collect();
                    let latest = latest.map_or("-".to_owned(), |id| id.to_string());
                    output.line(format_args!(
                        "{name}  versions {}  latest id {latest}  {level}",
                        versions.join(",")
                    ));
                }
            }
        }
    }
    Ok(output.finish()?)
}
