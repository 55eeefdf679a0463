//! Brings the schema of a database up to date.

use std::error::Error;
use std::time::Duration;

use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, SimpleAsyncConnection as _};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _};
use tokio::time::timeout;

use super::address::PostgresAddress;
use super::connection::adopt;
use super::connector::Link;
use super::driver::CancelRequest;
use super::postgres_error::PostgresError;
use super::session::{Session, SessionKind};
use crate::database::DatabaseError;

type MigrationError = Box<dyn Error + Send + Sync>;

impl PostgresAddress {
    /// Runs the migrations that are pending, within `limit`. Instances that do so at the same time take turns by the
    /// advisory lock `lock`, which ends with the connection.
    ///
    /// # Errors
    /// Those of [`PostgresAddress::connect`] and of the statements by their SQLSTATE; [`DatabaseError::Unavailable`]
    /// when the time is up, or another instance holds the lock for long.
    pub async fn migrate(
        &self,
        migrations: EmbeddedMigrations,
        lock: i64,
        limit: Duration,
    ) -> Result<(), DatabaseError> {
        let Session { link, .. } = self.open(SessionKind::Work).await?;
        let Link { client, mut driver, reports, route } = link;
        let token = client.cancel_token();
        let mut connection = adopt(client, &driver, &reports, limit).await?;
        let begin = format!(
            "SET statement_timeout = {}; SELECT pg_advisory_lock({lock})",
            limit.as_millis().min(i32::MAX.unsigned_abs().into())
        );
        let work = async {
            connection.batch_execute(&begin).await?;
            // A task of its own, because the harness blocks its thread.
            tokio::spawn(run(connection, migrations)).await?
        };
        match timeout(limit, work).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let error: &(dyn Error + 'static) = error.as_ref();
                Err(PostgresError::from_migration(error, &reports, driver.end()).into())
            }
            Err(_) => {
                // Without its connection the task ends as well.
                driver.cancel(CancelRequest { route, token });
                let late = format!("the migrations were not done within {limit:?}");
                Err(PostgresError::unavailable(late).into())
            }
        }
    }
}

async fn run(connection: AsyncPgConnection, migrations: EmbeddedMigrations) -> Result<(), MigrationError> {
    let mut harness = AsyncMigrationHarness::new(connection);
    harness.run_pending_migrations(migrations).map(drop)
}
