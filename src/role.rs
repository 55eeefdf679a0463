//! Defines the arguments that all roles share, and runs the parts of a role until they end together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use futures::future::{LocalBoxFuture, join_all};
use tokio_util::sync::CancellationToken;

use crate::http::{Health, HttpArgs};
use crate::kafka::KafkaArgs;
use crate::registry::RegistryArgs;
use crate::shutdown::ShutdownArgs;

/// The settings that all roles share.
#[derive(Args, Clone, Debug)]
pub struct RoleArgs {
    #[command(flatten)]
    pub http: HttpArgs,

    #[command(flatten)]
    pub kafka: KafkaArgs,

    #[command(flatten)]
    pub registry: RegistryArgs,

    #[command(flatten)]
    pub shutdown: ShutdownArgs,
}

/// A running role: its parts, and the checks that determine its readiness.
///
/// The role ends when its shutdown token is cancelled. It cancels the token when one of its parts ends by itself.
pub struct Role<'a> {
    /// The time limit for the shutdown of the role.
    timeout: Duration,
    shutdown: CancellationToken,
    health: Arc<Health>,
    parts: Vec<LocalBoxFuture<'a, anyhow::Result<()>>>,
    checks: Vec<LocalBoxFuture<'a, ()>>,
}

/// A part of a role: when it stops, and how long the role then waits for it.
pub struct Part {
    name: &'static str,
    share: f64,
    stop: Option<CancellationToken>,
    next: Option<CancellationToken>,
    may_be_abandoned: bool,
}

impl Part {
    /// Creates a part that the role waits for during `share` of the shutdown timeout, from 0 to 1.
    pub fn new(name: &'static str, share: f64) -> Self {
        Self { name, share, stop: None, next: None, may_be_abandoned: false }
    }

    /// Stops the part when `stop` is cancelled instead of when the role shuts down.
    #[must_use]
    pub fn stopped_by(self, stop: &CancellationToken) -> Self {
        Self { stop: Some(stop.clone()), ..self }
    }

    /// Cancels `next` when the part has ended.
    #[must_use]
    pub fn then_stop(self, next: &CancellationToken) -> Self {
        Self { next: Some(next.clone()), ..self }
    }

    /// Allows the role to end successfully without the part, whose work the next start resumes: an unavailable broker
    /// must not delay the end of the process.
    #[must_use]
    pub fn or_abandon(self) -> Self {
        Self { may_be_abandoned: true, ..self }
    }
}

impl<'a> Role<'a> {
    pub fn new(args: &ShutdownArgs, shutdown: CancellationToken) -> Self {
        Self {
            timeout: args.shutdown_timeout,
            shutdown,
            health: Arc::default(),
            parts: Vec::new(),
            checks: Vec::new(),
        }
    }

    /// Returns the readiness that results from the checks.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Adds a part whose `work` runs until the part is stopped.
    pub fn run_part(&mut self, part: Part, work: impl Future<Output = anyhow::Result<()>> + 'a) {
        let Part { name, share, stop, next, may_be_abandoned } = part;
        let shutdown = self.shutdown.clone();
        let stop = stop.unwrap_or_else(|| shutdown.clone());
        let limit = self.timeout.mul_f64(share);
        self.parts.push(Box::pin(async move {
            let _ending = shutdown.drop_guard_ref();
            let _next = next.as_ref().map(CancellationToken::drop_guard_ref);
            match run_within(limit, &stop, name, work).await {
                // A part may end a moment before it is stopped, when the part that it depends on has ended.
                Ok(()) => {
                    ensure!(shutdown.is_cancelled(), "{name} ended unexpectedly");
                    Ok(())
                }
                Err(error) if may_be_abandoned && shutdown.is_cancelled() => {
                    tracing::warn!(%error, "ending without it");
                    Ok(())
                }
                Err(error) => Err(error),
            }
        }));
    }

    /// Adds a check. The role is ready only while all checks succeed. A check also prepares its dependency for use.
    pub fn check(&mut self, name: &'static str, check: impl AsyncFn() -> anyhow::Result<()> + 'a) {
        self.health.expect(name);
        let (health, shutdown) = (self.health(), self.shutdown.clone());
        self.checks.push(Box::pin(async move { health.watch(name, &shutdown, check).await }));
    }

    /// Runs all parts and returns when all have ended.
    ///
    /// # Errors
    /// Returns the error of the first failed part, with the name of the part.
    pub async fn run(self) -> anyhow::Result<()> {
        let (ended, _) = tokio::join!(join_all(self.parts), join_all(self.checks));
        ended.into_iter().collect()
    }
}

/// Runs `work`. After `stop` is cancelled, waits at most `limit` for it to end.
async fn run_within(
    limit: Duration,
    stop: &CancellationToken,
    name: &'static str,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let expired = async {
        stop.cancelled().await;
        tokio::time::sleep(limit).await;
    };
    tokio::select! {
        result = work => result.context(name),
        () = expired => bail!("{name} did not end within {limit:?} (--shutdown-timeout)"),
    }
}
