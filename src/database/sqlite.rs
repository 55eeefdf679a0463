//! A SQLite file that a single process owns.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::{Connection, QueryResult, SqliteConnection};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::runtime::Handle;

use super::{Access, DatabaseError};

/// The characters to percent-encode in the path of a URL for SQLite (<https://www.sqlite.org/uri.html>).
const IN_PATH: AsciiSet = CONTROLS.add(b'?').add(b'#').add(b'%');

/// An open file, with its migrations applied.
pub struct SqliteFile {
    pub connection: SyncConnectionWrapper<SqliteConnection>,
    /// Prevents other owners from opening the file: each would track its own set of operations in progress.
    _lock: Option<File>,
}

/// Runs statements on a file to their end, even if the caller is dropped.
///
/// diesel-async blocks the thread while an abandoned statement ends, which panics on a thread of the HTTP server. A
/// client abandons one when it disconnects. Wait for the file before: a client that disconnects ends that wait.
#[derive(Clone)]
pub struct Finisher(Handle);

impl Finisher {
    /// Returns a finisher whose work runs on the current runtime.
    pub fn on_this_runtime() -> Self {
        Self(Handle::current())
    }

    pub async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DatabaseError>> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        // The task panicked, or its runtime has ended.
        self.0.spawn(work).await.map_err(DatabaseError::internal)?
    }
}

/// Opens `path`. The owner creates a missing file and applies the migrations.
///
/// # Errors
/// Fails when the file cannot be opened or migrated, or another process owns it.
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
            let connection = connect_to_existing(text).with_context(|| opened.clone())?;
            return Ok(SqliteFile { connection: SyncConnectionWrapper::new(connection), _lock: None });
        }
        let lock = lock(&path).with_context(|| opened.clone())?;
        let mut connection = SqliteConnection::establish(text).with_context(|| opened.clone())?;
        // With a write-ahead log, each commit is one write and one fsync, and readers do not wait for it.
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

/// Connects to a file that another connection may be using.
fn connect_to_existing(path: &str) -> anyhow::Result<SqliteConnection> {
    // Opened for writing, because readers of a write-ahead log update its shared state.
    let url = format!("file:{}?mode=rw", utf8_percent_encode(path, &IN_PATH));
    let mut connection = SqliteConnection::establish(&url)?;
    connection.batch_execute("PRAGMA busy_timeout = 5000;")?;
    Ok(connection)
}

/// Prevents all other connections, those of the owner included, from writing to a file until the returned connection is
/// dropped.
///
/// # Errors
/// Fails when the file does not exist, or is in use for 5 s.
pub async fn lock_exclusively(path: PathBuf) -> anyhow::Result<SqliteConnection> {
    let lock = move || -> anyhow::Result<SqliteConnection> {
        let text = path.to_str().context("the path is not UTF-8")?;
        let mut connection = connect_to_existing(text)?;
        connection.batch_execute("BEGIN EXCLUSIVE")?;
        Ok(connection)
    };
    let locked = tokio::task::spawn_blocking(lock).await.context("locking the database panicked")?;
    locked.context("cannot lock the database")
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another process has opened it"),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Runs `work` in a transaction that acquires the write lock immediately.
///
/// # Errors
/// Returns the error of `work` rather than that of the rollback: SQLite may already have rolled back
/// (<https://www.sqlite.org/lang_transaction.html#response_to_errors_within_a_transaction>).
pub fn transaction<T>(
    connection: &mut SqliteConnection,
    work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T>,
) -> QueryResult<T> {
    let mut cause = None;
    let done = connection.immediate_transaction(|connection| {
        work(connection).map_err(|error| {
            cause = Some(error);
            DieselError::RollbackTransaction
        })
    });
    done.map_err(|error| cause.unwrap_or(error))
}

/// The result codes that concern the database rather than a statement, by their `sqlite3_errstr` text
/// (<https://www.sqlite.org/rescode.html>). diesel does not expose the code without `unsafe`, and SQLite does not
/// translate the texts.
const UNAVAILABLE: [&str; 8] = [
    "database is locked",           // SQLITE_BUSY
    "database table is locked",     // SQLITE_LOCKED
    "database or disk is full",     // SQLITE_FULL
    "disk I/O error",               // SQLITE_IOERR
    "unable to open database file", // SQLITE_CANTOPEN
    "out of memory",                // SQLITE_NOMEM
    "interrupted",                  // SQLITE_INTERRUPT
    "locking protocol",             // SQLITE_PROTOCOL
];
const READ_ONLY: &str = "attempt to write a readonly database"; // SQLITE_READONLY
const REFUSED: [&str; 2] = ["string or blob too big", "datatype mismatch"]; // SQLITE_TOOBIG, SQLITE_MISMATCH

/// Classifies an error of SQLite. PostgreSQL errors are classified by SQLSTATE.
impl From<DieselError> for DatabaseError {
    fn from(error: DieselError) -> Self {
        let (kind, information) = match &error {
            DieselError::DatabaseError(kind, information) => (kind, information),
            DieselError::DeserializationError(reason) => return Self::Unreadable(anyhow!("{reason}")),
            _ => return Self::internal(error),
        };
        let text = information.message();
        match kind {
            DatabaseErrorKind::UniqueViolation
            | DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation => Self::Refused(error.into()),
            _ if text == READ_ONLY => Self::ReadOnly(error.into()),
            _ if UNAVAILABLE.contains(&text) => Self::unavailable(error),
            _ if REFUSED.contains(&text) => Self::Refused(error.into()),
            _ => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use diesel::RunQueryDsl as _;

    use super::*;

    fn fails(connection: &mut SqliteConnection, statement: &str) -> DatabaseError {
        diesel::sql_query(statement).execute(connection).unwrap_err().into()
    }

    #[test]
    fn errors_of_the_engine_are_classified() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db");
        let mut one = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        let create = "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT UNIQUE CHECK (text <> 'bad'));
            INSERT INTO t VALUES (1, 'one');";
        one.batch_execute(create).unwrap();
        let duplicate = fails(&mut one, "INSERT INTO t VALUES (2, 'one')");
        assert!(matches!(duplicate, DatabaseError::Refused(_)), "{duplicate}");
        let bad = fails(&mut one, "INSERT INTO t VALUES (2, 'bad')");
        assert!(matches!(bad, DatabaseError::Refused(_)), "{bad}");
        let wrong_type = fails(&mut one, "INSERT INTO t VALUES ('x', 'two')");
        assert!(matches!(wrong_type, DatabaseError::Refused(_)), "{wrong_type}");
        let unknown = fails(&mut one, "SELECT * FROM missing");
        assert!(matches!(unknown, DatabaseError::Internal(_)), "{unknown}");

        let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        other.batch_execute("BEGIN IMMEDIATE").unwrap();
        let busy = fails(&mut one, "INSERT INTO t VALUES (2, 'two')");
        assert!(matches!(busy, DatabaseError::Unavailable(_)), "{busy}");
        other.batch_execute("ROLLBACK").unwrap();

        one.batch_execute("PRAGMA query_only = 1").unwrap();
        let read_only = fails(&mut one, "INSERT INTO t VALUES (2, 'two')");
        assert!(matches!(read_only, DatabaseError::ReadOnly(_)), "{read_only}");
        one.batch_execute("PRAGMA query_only = 0; PRAGMA max_page_count = 1").unwrap();
        let full = fails(&mut one, "INSERT INTO t VALUES (2, hex(zeroblob(40000)))");
        assert!(matches!(full, DatabaseError::Unavailable(_)), "{full}");
    }
}
