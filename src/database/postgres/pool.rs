//! A pool of connections.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use diesel::result::Error as DieselError;
use diesel_async::AsyncPgConnection;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::address::PostgresAddress;
use super::connection::PostgresConnection;
use crate::database::{DATABASE_TIMEOUT, DatabaseError};

/// A bounded number of connections that calls share, opened on demand. Clones share the same connections.
#[derive(Clone)]
pub struct PostgresPool(Arc<Pool>);

struct Pool {
    address: PostgresAddress,
    size: usize,
    /// One permit per connection in use.
    permits: Semaphore,
    /// Idle connections. The most recently used one is taken first, so that a dead one is found early.
    idle: Mutex<Vec<PostgresConnection>>,
}

impl PostgresPool {
    /// Creates a pool of at most `size` connections, none of them open yet.
    pub fn new(address: PostgresAddress, size: usize) -> Self {
        Self(Arc::new(Pool { address, size, permits: Semaphore::new(size), idle: Mutex::default() }))
    }

    /// Runs `work` on a connection of the pool. Waits at most [`DATABASE_TIMEOUT`] for the connection and the same
    /// time for the work.
    ///
    /// # Errors
    /// Returns the errors of [`PostgresAddress::connect`] and [`PostgresConnection::call`], and
    /// [`DatabaseError::Unavailable`] when all connections stay in use.
    pub async fn call<T>(
        &self,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, DieselError>,
    ) -> Result<T, DatabaseError> {
        let size = self.0.size;
        let in_use = || DatabaseError::unavailable(anyhow!("all {size} connections are in use"));
        let permit = timeout(DATABASE_TIMEOUT, self.0.permits.acquire()).await;
        let _permit = permit.map_err(|_| in_use())?.map_err(DatabaseError::internal)?;
        let mut connection = match self.0.take() {
            Some(connection) => connection,
            None => self.0.address.connect().await?,
        };
        let result = connection.call(work).await;
        if matches!(result, Err(DatabaseError::ReadOnly(_))) {
            // After a failover, the other connections lead to the same server and would fail one call each.
            self.0.clear();
        }
        if !connection.is_broken() {
            self.0.put(connection);
        }
        result
    }
}

impl Pool {
    fn with_idle<T>(&self, work: impl FnOnce(&mut Vec<PostgresConnection>) -> T) -> T {
        work(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes an idle connection that is not known to be broken.
    fn take(&self) -> Option<PostgresConnection> {
        self.with_idle(|idle| {
            idle.retain(|connection| !connection.is_broken());
            idle.pop()
        })
    }

    fn put(&self, connection: PostgresConnection) {
        self.with_idle(|idle| idle.push(connection));
    }

    fn clear(&self) {
        self.with_idle(Vec::clear);
    }
}
