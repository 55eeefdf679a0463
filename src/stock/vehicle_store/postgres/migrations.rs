//! Runs the migrations of stock's database, each in one implicit transaction, so that a client that dies leaves none
//! open.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use diesel::QueryResult;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{Array, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection as _};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::database::DatabaseError;
use crate::database::postgres::{PostgresAddress, PostgresPool, refuse_shared_sessions};

/// The versions, as diesel's command-line tool names them, and their scripts, in order.
const SCRIPTS: [(&str, &str); 4] = [
    ("0001", include_str!("../../migrations/postgres/0001_vehicles/up.sql")),
    ("0002", include_str!("../../migrations/postgres/0002_event_log/up.sql")),
    ("0003", include_str!("../../migrations/postgres/0003_idempotency_key/up.sql")),
    ("0004", include_str!("../../migrations/postgres/0004_tracestate/up.sql")),
];

/// The time limit for one migration, which moves all events to be published.
const LONGEST: Duration = Duration::from_secs(600);

/// The time that a caller waits for the migrations.
const PATIENCE: Duration = Duration::from_secs(2);

const JOURNAL: &str = "CREATE TABLE IF NOT EXISTS __diesel_schema_migrations (
    version VARCHAR(50) PRIMARY KEY NOT NULL, run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)";

type Task = AbortOnDropHandle<Result<(), DatabaseError>>;

/// The migrations, which at most one task of the process runs.
pub(super) struct Migrations {
    address: PostgresAddress,
    /// The running task and when it started.
    running: Mutex<Option<(Instant, Task)>>,
    done: AtomicBool,
    /// The reason for the last failure, as a suffix for a message.
    failure: std::sync::Mutex<String>,
}

impl Migrations {
    pub(super) fn new(address: PostgresAddress) -> Self {
        Self {
            address,
            running: Mutex::default(),
            done: AtomicBool::new(false),
            failure: std::sync::Mutex::default(),
        }
    }

    /// Checks that the migrations have run.
    ///
    /// # Errors
    /// Fails with the reason when they have not.
    pub(super) fn check(&self) -> Result<(), DatabaseError> {
        if self.are_done() {
            return Ok(());
        }
        let failure = self.failure();
        Err(DatabaseError::Unavailable(anyhow!("its schema has not been migrated yet{failure}")))
    }

    fn failure(&self) -> String {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn are_done(&self) -> bool {
        // `load` alone is diesel's.
        AtomicBool::load(&self.done, Ordering::Relaxed)
    }

    /// Returns once all migrations have run. Fails after [`PATIENCE`] while they are still running, so that a long
    /// migration does not block the caller.
    pub(super) async fn run(&self) -> Result<(), DatabaseError> {
        let mut running = self.running.lock().await;
        if self.are_done() {
            return Ok(());
        }
        let (began, task) = match &mut *running {
            Some(running) => running,
            None => {
                let task = AbortOnDropHandle::new(tokio::spawn(migrate(self.address.clone())));
                running.insert((Instant::now(), task))
            }
        };
        let Ok(ended) = tokio::time::timeout(PATIENCE, task).await else {
            let seconds = began.elapsed().as_secs();
            let failure = self.failure();
            return Err(DatabaseError::Unavailable(anyhow!(
                "the migration of the schema has been running for {seconds} s{failure}"
            )));
        };
        *running = None;
        let ended = ended.map_err(DatabaseError::internal).and_then(|ended| ended);
        if let Err(error) = &ended {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) =
                format!("; the last attempt failed: {error}");
        }
        ended?;
        self.done.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Checks that the schema still is that of this release. It is not after an older backup was restored.
    ///
    /// # Errors
    /// Fails when it is not, and lets the next [`run`](Self::run) migrate it.
    pub(super) async fn verify(&self, pool: &PostgresPool) -> Result<(), DatabaseError> {
        let error = match pool.call(async |connection| count_run(connection).await).await {
            Ok(count) if usize::try_from(count) == Ok(SCRIPTS.len()) => return Ok(()),
            Ok(_) => DatabaseError::Unavailable(anyhow!("its schema is that of an older release")),
            // Without the journal, for example.
            Err(error @ DatabaseError::Internal(_)) => error,
            Err(error) => return Err(error),
        };
        self.done.store(false, Ordering::Relaxed);
        Err(error)
    }
}

async fn migrate(address: PostgresAddress) -> Result<(), DatabaseError> {
    refuse_shared_sessions(&address).await?;
    let mut connection = address.connect().await?;
    // Two instances that create the table at the same time conflict in the catalog despite IF NOT EXISTS.
    connection.call(async |connection| unless_duplicate(connection.batch_execute(JOURNAL).await)).await?;
    for (version, script) in SCRIPTS {
        let ran = connection.call(async |connection| has_run(connection, version).await).await?;
        if ran {
            continue;
        }
        // A concurrent instance waits at the first statement, which then fails.
        let script = format!(
            "INSERT INTO __diesel_schema_migrations (version) VALUES ('{version}');
             SET LOCAL statement_timeout = '{}s'; SET LOCAL lock_timeout = '3s';
             {script}",
            LONGEST.as_secs()
        );
        let run = async |connection: &mut AsyncPgConnection| {
            let is_ours = unless_duplicate(connection.batch_execute(&script).await)?;
            Ok((is_ours, has_run(connection, version).await?))
        };
        match connection.call_within(LONGEST, run).await? {
            (true, true) => tracing::info!(version, "migrated the schema"),
            (false, true) => tracing::info!(version, "another instance ran the migration"),
            (_, false) => {
                return Err(DatabaseError::Internal(anyhow!(
                    "migration {version} violates a unique constraint"
                )));
            }
        }
    }
    Ok(())
}

/// Returns whether the statement succeeded; `false` if it violated a unique constraint.
fn unless_duplicate(result: QueryResult<()>) -> QueryResult<bool> {
    match result {
        Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(false),
        result => result.map(|()| true),
    }
}

#[derive(diesel::QueryableByName)]
struct Ran {
    #[diesel(sql_type = diesel::sql_types::Bool)]
    ran: bool,
}

#[derive(diesel::QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    count: i64,
}

/// Returns how many of the versions have run. A newer release may have run others.
async fn count_run(connection: &mut AsyncPgConnection) -> QueryResult<i64> {
    let versions: Vec<_> = SCRIPTS.iter().map(|(version, _)| *version).collect();
    let count = "SELECT count(*) AS count FROM __diesel_schema_migrations WHERE version = ANY ($1)";
    let row: Count = diesel::sql_query(count).bind::<Array<Text>, _>(versions).get_result(connection).await?;
    Ok(row.count)
}

async fn has_run(connection: &mut AsyncPgConnection, version: &str) -> QueryResult<bool> {
    let row: Ran =
        diesel::sql_query("SELECT EXISTS (SELECT FROM __diesel_schema_migrations WHERE version = $1) AS ran")
            .bind::<Text, _>(version)
            .get_result(connection)
            .await?;
    Ok(row.ran)
}
