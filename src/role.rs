//! Defines the arguments that all roles share, and runs the parts of a role until they end together.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use futures::future::{LocalBoxFuture, join_all};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::http::{Health, HttpArgs, Need};
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
    parts: Vec<LocalBoxFuture<'a, ()>>,
    checks: Vec<LocalBoxFuture<'a, ()>>,
    /// The error of the part that failed first.
    failure: Arc<OnceLock<anyhow::Error>>,
}

/// A part of a role.
pub struct Part {
    name: &'static str,
    share: f64,
    next: Option<CancellationToken>,
    may_be_abandoned: bool,
}

impl Part {
    /// Creates a part that has to end within `share` of the shutdown timeout, from 0 to 1, after the role's shutdown.
    pub fn new(name: &'static str, share: f64) -> Self {
        Self { name, share, next: None, may_be_abandoned: false }
    }

    /// Cancels `next` when the part has ended.
    #[must_use]
    pub fn then_stop(self, next: &CancellationToken) -> Self {
        Self { next: Some(next.clone()), ..self }
    }

    /// Allows the role to end successfully without the part, because the next start resumes its work or no client waits for
    /// it: an unavailable broker or database must not delay the end of the process. A panic is still an error.
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
            failure: Arc::default(),
        }
    }

    /// Returns the readiness that results from the checks.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Adds a part. Its `work` runs until the role's shutdown, or until the part before it has ended.
    pub fn run_part(&mut self, part: Part, work: impl Future<Output = anyhow::Result<()>> + 'a) {
        let Part { name, share, next, may_be_abandoned } = part;
        let (shutdown, failure) = (self.shutdown.clone(), Arc::clone(&self.failure));
        let limit = self.timeout.mul_f64(share);
        self.parts.push(Box::pin(async move {
            let _ending = shutdown.drop_guard_ref();
            let _next = next.as_ref().map(CancellationToken::drop_guard_ref);
            let expired = async {
                shutdown.cancelled().await;
                tokio::time::sleep(limit).await;
            };
            let ended = tokio::select! {
                ended = work => ended.context(name),
                () = expired => Err(anyhow!("{name} did not end within {limit:?} (--shutdown-timeout)")),
            };
            match ended {
                Ok(()) if shutdown.is_cancelled() => {}
                Ok(()) => fail(&failure, anyhow!("{name} ended unexpectedly")),
                Err(error) if may_be_abandoned && shutdown.is_cancelled() && !error.is::<JoinError>() => {
                    let error = format!("{error:#}");
                    tracing::warn!(part = name, error, "ending without it");
                }
                Err(error) => fail(&failure, error),
            }
        }));
    }

    /// Adds a check. The role is ready only while all checks succeed. A check also prepares its dependency for use. The
    /// outermost message of its error may become public and must be the platform's own.
    pub fn check(
        &mut self,
        name: &'static str,
        need: Need,
        check: impl AsyncFn() -> anyhow::Result<()> + 'a,
    ) {
        self.health.expect(name, need);
        let (health, shutdown) = (self.health(), self.shutdown.clone());
        self.checks.push(Box::pin(async move { health.watch(name, &shutdown, check).await }));
    }

    /// Runs all parts and returns when all have ended.
    ///
    /// # Errors
    /// Returns the error of the part that failed first, with the name of the part.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { parts, checks, failure, .. } = self;
        tokio::join!(join_all(parts), join_all(checks));
        Arc::into_inner(failure).and_then(OnceLock::into_inner).map_or(Ok(()), Err)
    }
}

/// Keeps the first error, which may have caused the others.
fn fail(failure: &OnceLock<anyhow::Error>, error: anyhow::Error) {
    if let Err(error) = failure.set(error) {
        tracing::error!(error = format!("{error:#}"), "a further part of the role failed");
    }
}

/// Runs `work` as a separate task, which another thread may run.
///
/// # Errors
/// Fails when the task panics.
pub async fn on_its_own(
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let task = AbortOnDropHandle::new(tokio::spawn(work.in_current_span()));
    task.await.with_context(|| format!("the {name} panicked"))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn role(timeout: Duration) -> (Role<'static>, CancellationToken) {
        let shutdown = CancellationToken::new();
        (Role::new(&ShutdownArgs { shutdown_timeout: timeout }, shutdown.clone()), shutdown)
    }

    #[tokio::test]
    async fn the_part_that_fails_first_ends_the_others_and_is_the_one_reported() {
        let (mut role, shutdown) = role(Duration::from_millis(100));
        role.run_part(Part::new("stuck", 0.5), pending());
        role.run_part(Part::new("failing", 0.9), async { Err(anyhow!("broken")) });
        assert_eq!(format!("{:#}", role.run().await.unwrap_err()), "failing: broken");
        assert!(shutdown.is_cancelled());
    }

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_an_error() {
        let (mut role, _) = role(Duration::from_secs(5));
        role.run_part(Part::new("short", 0.9), async { Ok(()) });
        assert_eq!(role.run().await.unwrap_err().to_string(), "short ended unexpectedly");
    }

    #[tokio::test]
    async fn parts_stop_one_after_the_other_and_one_that_is_stuck_may_be_abandoned() {
        let (mut role, shutdown) = role(Duration::from_millis(100));
        let (first_ended, stop) = (CancellationToken::new(), shutdown.clone());
        role.run_part(Part::new("first", 0.5).then_stop(&first_ended), async move {
            stop.cancelled().await;
            Ok(())
        });
        role.run_part(Part::new("second", 0.8), async move {
            first_ended.cancelled().await;
            Ok(())
        });
        role.run_part(Part::new("stuck", 0.9).or_abandon(), pending());
        shutdown.cancel();
        role.run().await.unwrap();
    }
}
