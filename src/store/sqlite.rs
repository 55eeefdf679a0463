//! A SQLite file that is one process's alone.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness};

/// An open file, with its migrations applied.
pub struct SqliteFile {
    pub connection: SyncConnectionWrapper<SqliteConnection>,
    /// Keeps other processes out: each would have its own idea of what is in flight.
    _lock: File,
}

/// Opens `path`, which is created when it is missing.
///
/// # Errors
/// When it cannot be opened or migrated, or another process has it.
pub async fn open(path: PathBuf, migrations: EmbeddedMigrations) -> anyhow::Result<SqliteFile> {
    let open = move || -> anyhow::Result<SqliteFile> {
        let opened = format!("cannot open the database sqlite:{}", path.display());
        let lock = lock(&path).with_context(|| opened.clone())?;
        let text =
            path.to_str().ok_or_else(|| anyhow!("the path is not UTF-8")).with_context(|| opened.clone())?;
        let mut connection = SqliteConnection::establish(text).with_context(|| opened.clone())?;
        // With a write-ahead log each commit is one write and one fsync, and readers need not wait for it.
        connection
            .batch_execute(
                "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
            )
            .with_context(|| opened.clone())?;
        connection.run_pending_migrations(migrations).map_err(|error| anyhow!("{opened}: {error}"))?;
        Ok(SqliteFile { connection: SyncConnectionWrapper::new(connection), _lock: lock })
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
