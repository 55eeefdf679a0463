//! Stops a role on a signal and bounds the time that this takes.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::duration::parse_duration;
use crate::trace;

#[derive(Args, Clone, Debug)]
pub struct ShutdownArgs {
    /// Maximum time for the process to end after SIGTERM or SIGINT
    #[arg(long, env = "SHUTDOWN_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = parse_duration, help_heading = "Process")]
    pub shutdown_timeout: Duration,
}

impl ShutdownArgs {
    /// Returns the time for requests to finish, which leaves the rest of the timeout to the phases after them.
    pub fn grace(&self) -> Duration {
        self.shutdown_timeout.mul_f64(0.7)
    }
}

/// Runs a tool, which may be dropped at any point, until it ends or a signal arrives. Without a handler, process 1 of a
/// container would ignore the signals (pid_namespaces(7)).
///
/// # Errors
/// Returns the errors of `work`. Fails when a signal ended it.
pub async fn end_on_signal(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        result = work => result,
        _ = terminate.recv() => bail!("ended by SIGTERM"),
        _ = interrupt.recv() => bail!("ended by SIGINT"),
    }
}

/// Runs `work` until it ends. Cancels its token on SIGTERM or SIGINT.
///
/// # Errors
/// Returns the errors of `work`. Fails when it does not end within `timeout` after a signal.
pub async fn run_until_signal<F>(
    timeout: Duration,
    work: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let shutdown = CancellationToken::new();
    let work = work(shutdown.clone());
    tokio::pin!(work);
    tokio::select! {
        result = &mut work => {
            trace::finish(timeout).await;
            return result;
        }
        _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "stopping"),
        _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "stopping"),
    }
    shutdown.cancel();
    let deadline = Instant::now() + timeout;
    match tokio::time::timeout_at(deadline, work).await {
        Ok(result) => {
            trace::finish(deadline - Instant::now()).await;
            result
        }
        Err(_) => bail!("did not stop within {timeout:?} (--shutdown-timeout)"),
    }
}
