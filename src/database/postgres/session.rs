//! Applies the session settings to a new connection, and finds out what answers at its other end.

use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;

use super::connector::Link;
use super::postgres_error::PostgresError;
use crate::database::DATABASE_TIMEOUT;

/// A statement ends on the server before the client gives up waiting.
const STATEMENT_TIMEOUT: Duration = DATABASE_TIMEOUT.saturating_sub(Duration::from_millis(500));
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// A transaction whose client no longer acts gives up its locks after this time.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionKind {
    /// The work of the product.
    Work,
    /// A look at the server, which changes no setting: with a shared session that would be another client's.
    Probe,
}

/// A connection that is ready for use.
pub(super) struct Session {
    pub link: Link,
    /// Whether the process at the other end is not the one that the server named first: a pooler is in between.
    pub pooled: bool,
}

impl Session {
    /// # Errors
    /// Those of the server; a read-only error when `read_write` asks for a server that takes writes.
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

    /// Returns the id of the server process that runs a statement now.
    pub async fn process_id(&self) -> Result<String, PostgresError> {
        Ok(query(&self.link, "SELECT pg_backend_pid()").await?.concat())
    }
}

/// The settings, each with its semicolon
/// (<https://www.postgresql.org/docs/current/runtime-config-client.html>, `runtime-config-connection.html`).
fn settings() -> String {
    let [statement, lock, idle] =
        [STATEMENT_TIMEOUT, LOCK_TIMEOUT, IDLE_IN_TRANSACTION_TIMEOUT].map(|timeout| timeout.as_millis());
    // What was answered with a success must survive a crash of the server, whatever the default of the role is.
    // The server notices within 20 seconds that its client has vanished. `tcp_user_timeout` is new in PostgreSQL 12.
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

/// Returns the columns of the last row of the answer.
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
