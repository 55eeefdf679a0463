//! Stops a role on a signal and bounds the time that this takes.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::trace;

#[derive(Args, Clone, Debug)]
pub struct ShutdownArgs {
    /// Maximum time for the process to end after SIGTERM or SIGINT
    #[arg(long, env = "SHUTDOWN_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration, help_heading = "Process")]
    pub shutdown_timeout: Duration,
}

impl ShutdownArgs {
    /// Returns the time for requests to finish, which leaves the rest of the timeout to the phases after them.
    pub fn grace(&self) -> Duration {
        self.shutdown_timeout.mul_f64(0.7)
    }

    /// Waits for `work`, a part of a role named `what`. Once `shutdown` is cancelled, waits at most for this `share`
    /// of the timeout.
    ///
    /// # Errors
    /// Returns the errors of `work`. Fails when `work` exceeds its time or ends before `shutdown` is cancelled.
    pub async fn bound(
        &self,
        share: f64,
        shutdown: &CancellationToken,
        what: &'static str,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let limit = self.shutdown_timeout.mul_f64(share);
        let too_late = async {
            shutdown.cancelled().await;
            tokio::time::sleep(limit).await;
        };
        tokio::select! {
            result = work => {
                result.context(what)?;
                ensure!(shutdown.is_cancelled(), "{what} ended before shutdown was requested");
                Ok(())
            }
            () = too_late => bail!("{what} did not end within {limit:?} (--shutdown-timeout)"),
        }
    }

    /// Waits for `work` as [`Self::bound`] does, but succeeds when it exceeds its time. Meant for work that the next
    /// start resumes, so that an unresponsive broker does not delay the end of the process.
    ///
    /// # Errors
    /// Returns the errors of `work` until `shutdown` is cancelled.
    pub async fn bound_or_leave(
        &self,
        share: f64,
        shutdown: &CancellationToken,
        what: &'static str,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let result = self.bound(share, shutdown, what, work).await;
        if shutdown.is_cancelled()
            && let Err(error) = &result
        {
            tracing::warn!(%error, "ending without it");
            return Ok(());
        }
        result
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
