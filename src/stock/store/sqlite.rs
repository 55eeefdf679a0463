//! Vehicles in a SQLite file, for one process.

mod sql {
    super::super::queries::queries!(
        diesel_async::sync_connection_wrapper::SyncConnectionWrapper<diesel::SqliteConnection>,
        TimestamptzSqlite
    );
}

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use tokio::sync::Mutex;

use super::{Insertion, Outbox, OutboxEntry, VehicleStore};
use crate::http::PageRequest;
use crate::database::sqlite::{SqliteFile, open};
use crate::database::{Access, DatabaseError, in_time};
use crate::trace::TraceContext;
use crate::vehicle::{StockedVehicle, Vehicle, VehicleId};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("src/stock/migrations/sqlite");

/// One connection for all: SQLite lets one write at a time anyway.
pub struct SqliteVehicles {
    file: Arc<Mutex<SqliteFile>>,
    outbox: Arc<Mutex<()>>,
}

impl SqliteVehicles {
    /// Opens the file; its owner creates it when it is missing.
    ///
    /// # Errors
    /// When it cannot be opened, or another process owns it as well.
    pub async fn open(path: PathBuf, access: Access) -> anyhow::Result<Self> {
        let file = open(path, MIGRATIONS, access).await?;
        Ok(Self { file: Arc::new(Mutex::new(file)), outbox: Arc::default() })
    }
}

#[async_trait]
impl VehicleStore for SqliteVehicles {
    async fn check(&self) -> Result<(), DatabaseError> {
        sql::ping(&mut self.file.lock().await.connection).await
    }

    async fn insert(&self, vehicle: &Vehicle, trace: TraceContext) -> Result<Insertion, DatabaseError> {
        let file = Arc::clone(&self.file);
        let vehicle = vehicle.clone();
        // A task of its own: a caller that goes away must not leave the one connection in mid-transaction.
        let inserted = tokio::spawn(async move {
            let mut file = in_time(async { Ok(file.lock().await) }).await?;
            file.connection
                .immediate_transaction(async |connection| sql::insert(connection, &vehicle, trace).await)
                .await
        });
        inserted.await.map_err(DatabaseError::internal)?
    }

    async fn page(&self, request: &PageRequest<VehicleId>) -> Result<Vec<StockedVehicle>, DatabaseError> {
        sql::page(&mut self.file.lock().await.connection, request).await
    }

    async fn get(&self, id: VehicleId) -> Result<Option<StockedVehicle>, DatabaseError> {
        sql::get(&mut self.file.lock().await.connection, id).await
    }

    async fn find(&self, vin: &str) -> Result<Option<StockedVehicle>, DatabaseError> {
        sql::find(&mut self.file.lock().await.connection, vin).await
    }

    async fn unpublished(&self, after: Option<i64>, limit: i64) -> Result<Vec<(i64, String)>, DatabaseError> {
        sql::unpublished(&mut self.file.lock().await.connection, after, limit).await
    }

    async fn outbox_depth(&self) -> Result<i64, DatabaseError> {
        sql::depth(&mut self.file.lock().await.connection).await
    }

    async fn outbox(&self) -> Result<Option<Box<dyn Outbox>>, DatabaseError> {
        let Ok(held) = Arc::clone(&self.outbox).try_lock_owned() else { return Ok(None) };
        Ok(Some(Box::new(SqliteOutbox { file: Arc::clone(&self.file), _held: held })))
    }
}

struct SqliteOutbox {
    file: Arc<Mutex<SqliteFile>>,
    _held: tokio::sync::OwnedMutexGuard<()>,
}

#[async_trait]
impl Outbox for SqliteOutbox {
    async fn identity(&mut self) -> Result<String, DatabaseError> {
        sql::identity(&mut self.file.lock().await.connection).await
    }

    async fn recover(&mut self, next: i64) -> Result<(), DatabaseError> {
        let mut file = self.file.lock().await;
        file.connection.immediate_transaction(async |connection| sql::recover(connection, next).await).await
    }

    async fn claim(&mut self, batch: i64, limit: i64) -> Result<Vec<OutboxEntry>, DatabaseError> {
        let mut file = self.file.lock().await;
        file.connection
            .immediate_transaction(async |connection| sql::claim(connection, batch, limit).await)
            .await
    }

    async fn remove(&mut self, batch: i64) -> Result<(), DatabaseError> {
        sql::remove(&mut self.file.lock().await.connection, batch).await
    }
}
