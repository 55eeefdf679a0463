//! Asks a role on this machine whether it is ready: for images that hold neither a shell nor curl.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::StatusCode;
use serde::Deserialize;

use crate::output::Output;

/// Shorter than the 5 s that the image gives a health check, so that it ends with a message.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Args, Clone, Debug)]
pub struct HealthcheckArgs {
    /// Port that the role serves HTTP on
    #[arg(long, env = "PORT", value_name = "PORT")]
    pub port: u16,
}

/// What a role answers that is not ready.
#[derive(Deserialize)]
struct Waiting {
    missing: BTreeMap<String, String>,
}

/// Ends well when the role is ready.
///
/// # Errors
/// When it is not, naming what it waits for; when nothing answers in time.
pub async fn run(args: HealthcheckArgs) -> anyhow::Result<()> {
    let url = format!("http://127.0.0.1:{}/readyz", args.port);
    // A proxy that the environment names knows nothing of this machine's own ports.
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let response = client.get(&url).send().await.context("no role answers")?;
    let status = response.status();
    if status == StatusCode::OK {
        // The exit code is the result, whether the word can be written or not.
        Output::stdout().line(format_args!("ready"));
        return Ok(());
    }
    if status == StatusCode::SERVICE_UNAVAILABLE
        && let Ok(Waiting { missing }) = response.json().await
    {
        let missing: Vec<_> = missing.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
        bail!("not ready, waiting for {}", missing.join(", "));
    }
    bail!("{url} answered {status}: is another program on this port?")
}
