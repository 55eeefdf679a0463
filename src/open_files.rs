//! Raises and reports the limit on open files, which includes sockets.

use std::sync::OnceLock;

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of open files that a role needs for its connections to three brokers and a few clients.
pub const ROLE_FILES: u64 = 128;
/// The limit below which a role works but has to refuse connections early.
const COMFORTABLE: u64 = 1024;

static LIMIT: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit to the hard limit, as servers do: the default soft limit is low for the sake of programs
/// that use `select`. Logs a warning when the limit is still low.
///
/// # Errors
/// Fails when the limit is below `least`, with which the process would run but serve nothing.
pub fn claim(least: u64) -> anyhow::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // When raising fails, the current limit is checked below.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = limit();
    ensure!(
        limit >= least,
        "the limit on open files is {limit}, but at least {least} are needed: raise it (ulimit -n)"
    );
    if limit < COMFORTABLE {
        tracing::warn!(
            limit,
            "the limit on open files (ulimit -n) is low, limiting the number of connections"
        );
    }
    Ok(())
}

/// Returns the soft limit as it was at the first call.
pub fn limit() -> u64 {
    *LIMIT.get_or_init(|| getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}
