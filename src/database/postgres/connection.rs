//! A single connection to PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use diesel::ConnectionError;
use diesel::result::Error as DieselError;
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager as _};
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use super::address::PostgresAddress;
use super::driver::{CancelRequest, Driver};
use super::link::Link;
use super::postgres_error::PostgresError;
use super::route::Route;
use super::session::{Session, SessionKind};
use super::tap::ServerReports;
use crate::database::{DATABASE_TIMEOUT, DatabaseError};

/// A connection to PostgreSQL that bounds each call by time and classifies its error by SQLSTATE.
///
/// Dropping it closes the connection and cancels the running statement.
pub struct PostgresConnection {
    // Dropped before the driver, which then knows that no further message will be sent.
    connection: AsyncPgConnection,
    driver: Driver,
    reports: Arc<ServerReports>,
    route: Route,
    pooled: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// A call is running, or its future was dropped before completion.
    Running,
    Broken,
}

impl PostgresAddress {
    /// Opens a connection within [`DATABASE_TIMEOUT`]. Dropping the future aborts the attempt and releases
    /// everything.
    ///
    /// # Errors
    /// Returns [`DatabaseError::Unavailable`] when no server can be reached, accepts the connection and presents a
    /// valid certificate. Returns [`DatabaseError::ReadOnly`] when `target_session_attrs` requires a server that
    /// accepts writes and none does.
    pub async fn connect(&self) -> Result<PostgresConnection, DatabaseError> {
        let started = Instant::now();
        let Session { link, pooled } = self.open(SessionKind::Work).await?;
        let Link { client, driver, reports, route } = link;
        let left = DATABASE_TIMEOUT.saturating_sub(started.elapsed());
        let connection = adopt(client, &driver, &reports, left).await?;
        Ok(PostgresConnection { connection, driver, reports, route, pooled, state: State::Idle })
    }
}

impl PostgresConnection {
    /// Runs `work` within [`DATABASE_TIMEOUT`]; see [`Self::call_within`].
    ///
    /// # Errors
    /// Returns the errors of [`Self::call_within`].
    pub async fn call<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, DieselError>,
    ) -> Result<T, DatabaseError> {
        self.call_within(DATABASE_TIMEOUT, work).await
    }

    /// Runs `work` within `limit`.
    ///
    /// A timeout, a lost connection, a read-only error, a defect or a dropped future breaks the connection: its
    /// statement is cancelled and every further call fails.
    ///
    /// # Errors
    /// Classifies the server's error by its SQLSTATE. Returns [`DatabaseError::Unavailable`] on a timeout or a lost
    /// connection.
    pub async fn call_within<T>(
        &mut self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, DieselError>,
    ) -> Result<T, DatabaseError> {
        if self.is_broken() {
            let reason = match self.state {
                State::Idle => self.driver.end().unwrap_or_default(),
                State::Running | State::Broken => "an earlier call was not completed",
            };
            return Err(PostgresError::closed(self.reports.fatal().as_ref(), reason).into());
        }
        self.reports.clear();
        self.state = State::Running;
        let Ok(result) = timeout(limit, work(&mut self.connection)).await else {
            self.cancel();
            return Err(no_answer(limit));
        };
        let result =
            result.map_err(|error| PostgresError::from_diesel(&error, &self.reports, self.driver.end()));
        let broken = result.as_ref().is_err_and(PostgresError::ends_session) || self.is_in_transaction();
        self.state = if broken { State::Broken } else { State::Idle };
        Ok(result?)
    }

    /// Returns whether the connection must not be used again. Costs no round trip.
    pub fn is_broken(&self) -> bool {
        self.state != State::Idle || self.driver.end().is_some()
    }

    /// Returns whether a pooler is between the process and the server: see [`refuse_shared_sessions`].
    ///
    /// [`refuse_shared_sessions`]: super::refuse_shared_sessions
    pub fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// Returns whether diesel left a transaction open or lost track of it.
    fn is_in_transaction(&mut self) -> bool {
        type Manager = <AsyncPgConnection as AsyncConnection>::TransactionManager;
        Manager::is_broken_transaction_manager(&mut self.connection)
    }

    /// Cancels the running statement and closes the connection, both in the driver's task.
    fn cancel(&mut self) {
        self.state = State::Broken;
        let request = CancelRequest { route: self.route.clone(), token: self.connection.cancel_token() };
        self.driver.cancel(request);
    }
}

impl Drop for PostgresConnection {
    fn drop(&mut self) {
        if self.state == State::Running {
            self.cancel();
        }
    }
}

/// Hands `client` to diesel, which sets the time zone and the encoding, and waits at most `limit`.
pub(super) async fn adopt(
    client: Client,
    driver: &Driver,
    reports: &ServerReports,
    limit: Duration,
) -> Result<AsyncPgConnection, DatabaseError> {
    match timeout(limit, AsyncPgConnection::try_from(client)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(ConnectionError::CouldntSetupConfiguration(error))) => {
            Err(PostgresError::from_diesel(&error, reports, driver.end()).while_connecting().into())
        }
        Ok(Err(error)) => Err(DatabaseError::unavailable(error)),
        Err(_) => Err(no_answer(limit)),
    }
}

fn no_answer(limit: Duration) -> DatabaseError {
    DatabaseError::unavailable(anyhow!("PostgreSQL did not answer within {limit:?}"))
}
