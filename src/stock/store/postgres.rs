//! Vehicles in PostgreSQL.

mod sql {
    super::super::queries::queries!(diesel_async::AsyncPgConnection, Timestamptz);
}

use anyhow::anyhow;
use async_trait::async_trait;
use diesel::sql_types::BigInt;
use diesel::{ConnectionError, IntoSql, define_sql_function, select};
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig};
use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use futures::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::{Insertion, Outbox, OutboxEntry, VehicleStore};
use crate::http::PageRequest;
use crate::database::{Access, DatabaseUrl, DatabaseError, in_time};
use crate::trace::TraceContext;
use crate::vehicle::{StockedVehicle, Vehicle, VehicleId};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("src/stock/migrations/postgres");

/// Enough to keep a small server busy; what comes on top waits.
const CONNECTIONS: usize = 8;

/// Keys of advisory locks: any numbers, as long as no other program takes them in this database.
const MIGRATION_LOCK: i64 = 0x7670_6d69_6772;
const OUTBOX_LOCK: i64 = 0x7670_6f75_7462;

define_sql_function!(fn pg_advisory_lock(key: BigInt));
define_sql_function!(fn pg_try_advisory_lock(key: BigInt) -> Bool);

pub struct PostgresVehicles {
    url: DatabaseUrl,
    pool: Pool<AsyncPgConnection>,
    migrated: OnceCell<()>,
}

impl PostgresVehicles {
    /// Connects only when it is used. The connections belong to the runtime that this is called on, not to the one that
    /// uses them: each thread of the HTTP server has its own, and would take them along when it ends, with another
    /// thread's commit under way.
    ///
    /// # Errors
    /// When no pool can be built.
    pub fn new(url: &DatabaseUrl, access: Access) -> anyhow::Result<Self> {
        let runtime = Handle::current();
        let mut config = ManagerConfig::default();
        config.custom_setup = Box::new(move |url| {
            let (runtime, url) = (runtime.clone(), url.to_owned());
            let connect = async move { AsyncPgConnection::establish(&url).await };
            async move {
                let connected = runtime.spawn(connect).await;
                connected.map_err(|error| ConnectionError::BadConnection(error.to_string()))?
            }
            .boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config(url.as_str(), config);
        let pool = Pool::builder(manager).max_size(CONNECTIONS).build()?;
        // Whoever only looks takes the tables as they are.
        let migrated = match access {
            Access::Owner => OnceCell::new(),
            Access::Observer => OnceCell::new_with(Some(())),
        };
        Ok(Self { url: url.clone(), pool, migrated })
    }

    async fn connection(&self) -> Result<Object<AsyncPgConnection>, DatabaseError> {
        if !self.migrated.initialized() {
            return Err(DatabaseError::unavailable(anyhow!("not connected yet")));
        }
        self.pool.get().await.map_err(DatabaseError::unavailable)
    }

    async fn migrate(&self) -> Result<(), DatabaseError> {
        let url = self.url.clone();
        // A task of its own, for the harness blocks its thread.
        in_time(async { tokio::spawn(migrate(url)).await.map_err(DatabaseError::internal)? }).await
    }
}

async fn connect(url: &DatabaseUrl) -> Result<AsyncPgConnection, DatabaseError> {
    AsyncPgConnection::establish(url.as_str()).await.map_err(DatabaseError::unavailable)
}

async fn migrate(url: DatabaseUrl) -> Result<(), DatabaseError> {
    let mut connection = connect(&url).await?;
    // Instances that start together migrate one after the other; the lock ends with the connection.
    select(pg_advisory_lock(MIGRATION_LOCK)).execute(&mut connection).await?;
    AsyncMigrationHarness::new(connection)
        .run_pending_migrations(MIGRATIONS)
        .map(drop)
        .map_err(|error| DatabaseError::Internal(anyhow!("cannot migrate: {error}")))
}

#[async_trait]
impl VehicleStore for PostgresVehicles {
    async fn check(&self) -> Result<(), DatabaseError> {
        self.migrated.get_or_try_init(|| self.migrate()).await?;
        in_time(async { sql::ping(&mut *self.connection().await?).await }).await
    }

    async fn insert(&self, vehicle: &Vehicle, trace: TraceContext) -> Result<Insertion, DatabaseError> {
        in_time(async {
            let mut connection = self.connection().await?;
            connection.transaction(async |connection| sql::insert(connection, vehicle, trace).await).await
        })
        .await
    }

    async fn page(&self, request: &PageRequest<VehicleId>) -> Result<Vec<StockedVehicle>, DatabaseError> {
        in_time(async { sql::page(&mut *self.connection().await?, request).await }).await
    }

    async fn get(&self, id: VehicleId) -> Result<Option<StockedVehicle>, DatabaseError> {
        in_time(async { sql::get(&mut *self.connection().await?, id).await }).await
    }

    async fn find(&self, vin: &str) -> Result<Option<StockedVehicle>, DatabaseError> {
        in_time(async { sql::find(&mut *self.connection().await?, vin).await }).await
    }

    async fn unpublished(&self, after: Option<i64>, limit: i64) -> Result<Vec<(i64, String)>, DatabaseError> {
        in_time(async { sql::unpublished(&mut *self.connection().await?, after, limit).await }).await
    }

    async fn outbox_depth(&self) -> Result<i64, DatabaseError> {
        in_time(async { sql::depth(&mut *self.connection().await?).await }).await
    }

    async fn outbox(&self) -> Result<Option<Box<dyn Outbox>>, DatabaseError> {
        if !self.migrated.initialized() {
            return Ok(None);
        }
        in_time(async {
            let mut connection = connect(&self.url).await?;
            let locked: bool = select(pg_try_advisory_lock(OUTBOX_LOCK.into_sql::<BigInt>()))
                .get_result(&mut connection)
                .await?;
            Ok(locked.then(|| Box::new(PostgresOutbox { connection }) as Box<dyn Outbox>))
        })
        .await
    }
}

/// Holds the lock for as long as its connection lives: once another has the lock, nothing here can be changed.
struct PostgresOutbox {
    connection: AsyncPgConnection,
}

#[async_trait]
impl Outbox for PostgresOutbox {
    async fn identity(&mut self) -> Result<String, DatabaseError> {
        in_time(sql::identity(&mut self.connection)).await
    }

    async fn recover(&mut self, next: i64) -> Result<(), DatabaseError> {
        in_time(self.connection.transaction(async |connection| sql::recover(connection, next).await)).await
    }

    async fn claim(&mut self, batch: i64, limit: i64) -> Result<Vec<OutboxEntry>, DatabaseError> {
        in_time(self.connection.transaction(async |connection| sql::claim(connection, batch, limit).await))
            .await
    }

    async fn remove(&mut self, batch: i64) -> Result<(), DatabaseError> {
        in_time(sql::remove(&mut self.connection, batch)).await
    }
}
