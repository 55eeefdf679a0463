//! When a role is asked to end, and how long it may take.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::trace;

#[derive(Args, Clone, Debug)]
pub struct ShutdownArgs {
    /// How long the process may take to end after SIGTERM or SIGINT
    #[arg(long, env = "SHUTDOWN_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration, help_heading = "Process")]
    pub shutdown_timeout: Duration,
}

impl ShutdownArgs {
    /// How long requests may take to finish: some time is left for what comes after them.
    pub fn grace(&self) -> Duration {
        self.shutdown_timeout.mul_f64(0.7)
    }

    /// Waits for `work`, the part of a role that is called `what`, but once `shutdown` is cancelled only for this `share` of the
    /// whole time.
    ///
    /// # Errors
    /// Those of `work`; that it did not end in time, or ended before `shutdown` was cancelled.
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
                ensure!(shutdown.is_cancelled(), "{what}: ended before it was asked to");
                Ok(())
            }
            () = too_late => bail!("{what} did not end within {limit:?} (--shutdown-timeout)"),
        }
    }

    /// As [`Self::bound`], for work that can be left at any point, because the next start takes it up there: a broker
    /// that does not answer must not keep the process.
    ///
    /// # Errors
    /// Those of `work`.
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

/// Runs `work` until it ends, or until it has ended on SIGTERM or SIGINT.
///
/// # Errors
/// Those of `work`; or that it did not end within `timeout`.
pub async fn run_until_signal<F>(
    timeout: Duration,
    work: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
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
