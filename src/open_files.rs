//! How many files, sockets included, the process may have open at a time.

use std::sync::OnceLock;

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a role has open with three brokers, and some for clients.
pub const ROLE_FILES: u64 = 128;
/// Below it a role works, and has to refuse connections early.
const COMFORTABLE: u64 = 1024;

static LIMIT: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit to the hard one, as servers do: the soft one is low for the sake of programs that use `select`. Logs a
/// limit that is still low.
///
/// # Errors
/// When the limit is below `least`, with which the process would be alive and serve nothing.
pub fn claim(least: u64) -> anyhow::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // What cannot be raised is what there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = limit();
    ensure!(
        limit >= least,
        "at most {limit} files may be open at a time, and this needs {least}: raise the limit (ulimit -n)"
    );
    if limit < COMFORTABLE {
        tracing::warn!(limit, "few files may be open at a time (ulimit -n), serving few connections");
    }
    Ok(())
}

/// Returns the soft limit as it was when it was first asked for.
pub fn limit() -> u64 {
    *LIMIT.get_or_init(|| getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}
