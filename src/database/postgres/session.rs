//! Applies the session settings to a new connection and detects a pooler.

use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;

use super::link::Link;
use super::postgres_error::PostgresError;
use crate::database::DATABASE_TIMEOUT;

/// Shorter than the client's timeout, so that the server ends a statement before the client gives up.
const STATEMENT_TIMEOUT: Duration = DATABASE_TIMEOUT.saturating_sub(Duration::from_millis(500));
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// The time after which an idle transaction releases its locks.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The purpose of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionKind {
    /// Runs the statements of the product.
    Work,
    /// Inspects the server without changing a setting, which in a shared session would affect another client.
    Probe,
}

/// A connection that is ready for use.
pub(super) struct Session {
    pub link: Link,
    /// Whether the server process differs from the one that the server reported at startup, which means that a pooler
    /// is in between.
    pub pooled: bool,
}

impl Session {
    /// Applies the settings that `kind` requires and inspects the session.
    ///
    /// # Errors
    /// Returns the errors of the server, and a read-only error when `read_write` requires a server that accepts
    /// writes.
    pub async fn begin(link: Link, kind: SessionKind, read_write: bool) -> Result<Self, PostgresError> {
        let settings = match kind {
            SessionKind::Work => settings(),
            SessionKind::Probe => String::new(),
        };
        let look = "SELECT pg_backend_pid(), current_setting('transaction_read_only')";
        let row = query(&link, &format!("{settings}{look}")).await?;
        let [process_id, read_only] = row.as_slice() else {
            return Err(PostgresError::unavailable("the server did not describe its session".to_owned()));
        };
        if read_write && read_only != "off" {
            return Err(PostgresError::read_only(
                "the server is read-only, and target_session_attrs is read-write".to_owned(),
            ));
        }
        let named = link.reports.process_id().map(|process_id| process_id.to_string());
        let pooled = named.as_ref() != Some(process_id);
        Ok(Self { link, pooled })
    }

    /// Returns the id of the server process that runs the session's statements at this moment.
    pub async fn process_id(&self) -> Result<String, PostgresError> {
        Ok(query(&self.link, "SELECT pg_backend_pid()").await?.concat())
    }
}

/// Returns the statements that set the session's parameters, each with its semicolon
/// (<https://www.postgresql.org/docs/current/runtime-config-client.html>, `runtime-config-connection.html`).
fn settings() -> String {
    let [statement, lock, idle] =
        [STATEMENT_TIMEOUT, LOCK_TIMEOUT, IDLE_IN_TRANSACTION_TIMEOUT].map(|timeout| timeout.as_millis());
    // Acknowledged writes must survive a crash of the server, regardless of the role's default. With the keepalives,
    // the server detects a vanished client within 20 seconds. `tcp_user_timeout` was added in PostgreSQL 12.
    format!(
        "SET statement_timeout = {statement}; SET lock_timeout = {lock}; \
         SET idle_in_transaction_session_timeout = {idle}; \
         SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3; \
         SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply'); \
         SELECT set_config('tcp_user_timeout', '20000', false) \
         WHERE current_setting('tcp_user_timeout', true) IS NOT NULL; "
    )
}

/// Returns the columns of the last row of the response.
async fn query(link: &Link, sql: &str) -> Result<Vec<String>, PostgresError> {
    let answer = link.client.simple_query(sql).await.map_err(|error| match error.code() {
        Some(_) => PostgresError::from_driver(&error),
        None => PostgresError::closed(link.reports.fatal().as_ref(), &error.to_string()),
    })?;
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = rows.last() else { return Ok(Vec::new()) };
    Ok((0..row.len())
        .map(|column| row.try_get(column).ok().flatten().unwrap_or_default().to_owned())
        .collect())
}
