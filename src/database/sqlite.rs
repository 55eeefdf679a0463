//! A SQLite file that is one process's alone.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::Access;

/// What ends the path in a URL that SQLite reads (<https://www.sqlite.org/uri.html>).
const IN_PATH: AsciiSet = CONTROLS.add(b'?').add(b'#').add(b'%');

/// An open file, with its migrations applied.
pub struct SqliteFile {
    pub connection: SyncConnectionWrapper<SqliteConnection>,
    /// Keeps other owners out: each would have its own idea of what is in flight.
    _lock: Option<File>,
}

/// Opens `path`, which its owner creates when it is missing.
///
/// # Errors
/// When it cannot be opened or migrated, or another process owns it as well.
pub async fn open(
    path: PathBuf,
    migrations: EmbeddedMigrations,
    access: Access,
) -> anyhow::Result<SqliteFile> {
    let open = move || -> anyhow::Result<SqliteFile> {
        let opened = format!("cannot open the database sqlite:{}", path.display());
        let text =
            path.to_str().ok_or_else(|| anyhow!("the path is not UTF-8")).with_context(|| opened.clone())?;
        if access == Access::Observer {
            // Not read-only: a reader of a write-ahead log takes part in its bookkeeping.
            let url = format!("file:{}?mode=rw", utf8_percent_encode(text, &IN_PATH));
            let mut connection = SqliteConnection::establish(&url).with_context(|| opened.clone())?;
            connection.batch_execute("PRAGMA busy_timeout = 5000;").with_context(|| opened.clone())?;
            return Ok(SqliteFile { connection: SyncConnectionWrapper::new(connection), _lock: None });
        }
        let lock = lock(&path).with_context(|| opened.clone())?;
        let mut connection = SqliteConnection::establish(text).with_context(|| opened.clone())?;
        // With a write-ahead log each commit is one write and one fsync, and readers need not wait for it.
        connection
            .batch_execute(
                "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
            )
            .with_context(|| opened.clone())?;
        connection.run_pending_migrations(migrations).map_err(|error| anyhow!("{opened}: {error}"))?;
        Ok(SqliteFile { connection: SyncConnectionWrapper::new(connection), _lock: Some(lock) })
    };
    tokio::task::spawn_blocking(open).await.context("opening the database panicked")?
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another process has it open"),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}
