//! Checks whether a role on this machine is ready, for images that contain neither a shell nor curl.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::StatusCode;
use serde::Deserialize;

use crate::output::Output;

/// Shorter than the image's 5 s for a health check, so that the command can still report the reason.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Args, Clone, Debug)]
pub struct HealthcheckArgs {
    /// Port that the role serves HTTP on
    #[arg(long, env = "PORT", value_name = "PORT")]
    pub port: u16,
}

/// The response of a role that is not ready.
#[derive(Deserialize)]
struct Waiting {
    missing: BTreeMap<String, String>,
}

/// Succeeds when the role is ready.
///
/// # Errors
/// Fails with the missing dependencies when the role is not ready, and when it does not answer in time.
pub async fn run(args: HealthcheckArgs) -> anyhow::Result<()> {
    let url = format!("http://127.0.0.1:{}/readyz", args.port);
    // A proxy from the environment cannot reach this machine's loopback ports.
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let response = client.get(&url).send().await.context("no role answers")?;
    let status = response.status();
    if status == StatusCode::OK {
        // The exit code is the result, even when the output cannot be written.
        Output::stdout().line(format_args!("ready"));
        return Ok(());
    }
    if status == StatusCode::SERVICE_UNAVAILABLE
        && let Ok(Waiting { missing }) = response.json().await
    {
        let missing: Vec<_> = missing.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
        bail!("not ready, waiting for {}", missing.join(", "));
    }
    bail!("{url} answered {status}: another program may be using this port")
}
