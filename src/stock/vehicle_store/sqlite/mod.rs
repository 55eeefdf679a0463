//! Stores vehicles in a SQLite file, which one process owns.

#[path = "../lease_queries.rs"]
#[expect(clippy::duplicate_mod, reason = "compiled once for each engine, with its dialect")]
mod lease_queries;
mod log;
#[path = "../log_queries.rs"]
#[expect(clippy::duplicate_mod, reason = "compiled once for each engine, with its dialect")]
mod log_queries;
#[path = "../vehicle_queries.rs"]
#[expect(clippy::duplicate_mod, reason = "compiled once for each engine, with its dialect")]
mod vehicle_queries;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Double, Integer, Nullable, Text, TimestamptzSqlite};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use tokio::sync::{Mutex, MutexGuard, OwnedMutexGuard};

use self::log::SqliteLog;
use super::{
    Appender, Backlog, EventLog, Existing, INSERTED_COLUMNS, IdsByVin, NewVehicle, UnpublishedEvent,
    VehicleStore,
};
use crate::database::sqlite::{Finisher, SqliteFile, open, transaction};
use crate::database::{Access, DatabaseError, in_time};
use crate::event::VehicleCreated;
use crate::page::{PageRequest, Rows};
use crate::stock::IdempotencyKey;
use crate::trace::TraceContext;
use crate::vehicle::{StockedVehicle, VehicleId};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("src/stock/migrations/sqlite");

/// The parts of the shared queries that are specific to SQLite.
mod dialect {
    pub(super) type Backend = diesel::sqlite::Sqlite;
    pub(super) type Connection =
        diesel_async::sync_connection_wrapper::SyncConnectionWrapper<diesel::SqliteConnection>;
    pub(super) type CreatedAt = diesel::sql_types::TimestamptzSqlite;
    pub(super) const NOW: &str = "unixepoch('subsec')";
    /// The age of an event in seconds.
    pub(super) const AGE: &str = "unixepoch('subsec') - created_at";
    pub(super) const OLDER_THAN: &str = "created_at < unixepoch('subsec') - $6";
    /// A condition: a relay used the position's cluster recently.
    pub(super) const IN_USE: &str = "moved_at > unixepoch() - 7 * 24 * 3600";
    /// Always true: a single writer draws ids in commit order.
    pub(super) const ORDERED: &str = "1";

    /// Converts `$1` to `?1`: SQLite binds `$1` by its position in the statement and `?1` by its number.
    pub(super) fn sql(statement: impl Into<String>) -> diesel::query_builder::SqlQuery {
        diesel::sql_query(statement.into().replace('$', "?"))
    }
    pub(super) const IN_RECOVERY: &str = "0";
    /// A table with the column `value`: the elements of the JSON array `$1`.
    pub(super) const ELEMENTS: &str = "json_each($1)";
}

/// A single shared connection, as SQLite serializes writes anyway.
type SharedFile = Arc<Mutex<SqliteFile>>;

/// Waits for the connection, at most [`DATABASE_TIMEOUT`](crate::database::DATABASE_TIMEOUT).
async fn lock(file: &SharedFile) -> Result<MutexGuard<'_, SqliteFile>, DatabaseError> {
    in_time(async { Ok(file.lock().await) }).await
}

/// Waits as [`lock`] does, for a task of its own.
async fn lock_owned(file: &SharedFile) -> Result<OwnedMutexGuard<SqliteFile>, DatabaseError> {
    in_time(async { Ok(Arc::clone(file).lock_owned().await) }).await
}

pub struct SqliteVehicles {
    file: SharedFile,
    finisher: Finisher,
}

impl SqliteVehicles {
    /// Opens the file. The owner creates a missing file.
    ///
    /// # Errors
    /// Fails when the file cannot be opened or another process owns it.
    pub async fn open(path: PathBuf, access: Access) -> anyhow::Result<Self> {
        let mut file = open(path, MIGRATIONS, access).await?;
        if access == Access::Owner {
            // The lock on the file proves that the previous holder of the lease has ended.
            let free = |connection: &mut SqliteConnection| {
                diesel::sql_query("UPDATE relay_lease SET holder = NULL").execute(connection)
            };
            file.connection.spawn_blocking(free).await?;
        }
        Ok(Self { file: Arc::new(Mutex::new(file)), finisher: Finisher::on_this_runtime() })
    }
}

#[async_trait]
impl VehicleStore for SqliteVehicles {
    async fn check(&self) -> Result<(), DatabaseError> {
        // Acquires the write lock without writing a row.
        let check = |connection: &mut SqliteConnection| {
            transaction(connection, |connection| {
                diesel::sql_query("UPDATE relay_lease SET beat = beat WHERE id = 0").execute(connection)
            })
        };
        lock(&self.file).await?.connection.spawn_blocking(check).await?;
        Ok(())
    }

    async fn page(
        &self,
        request: &PageRequest<VehicleId>,
    ) -> Result<Rows<StockedVehicle, VehicleId>, DatabaseError> {
        let (mut file, request) = (lock_owned(&self.file).await?, request.clone());
        let page = async move { Ok(vehicle_queries::page(&mut file.connection, &request).await?) };
        self.finisher.finish(page).await
    }

    async fn get(&self, id: VehicleId) -> Result<Option<StockedVehicle>, DatabaseError> {
        let mut file = lock_owned(&self.file).await?;
        let get = async move { Ok(vehicle_queries::get(&mut file.connection, id).await?) };
        self.finisher.finish(get).await
    }

    async fn find(&self, vin: &str) -> Result<Option<StockedVehicle>, DatabaseError> {
        let (mut file, vin) = (lock_owned(&self.file).await?, vin.to_owned());
        let find = async move { Ok(vehicle_queries::find(&mut file.connection, &vin).await?) };
        self.finisher.finish(find).await
    }

    async fn appender(&self) -> Result<Box<dyn Appender>, DatabaseError> {
        Ok(Box::new(SqliteAppender(Arc::clone(&self.file))))
    }

    async fn event_log(&self) -> Result<Box<dyn EventLog>, DatabaseError> {
        Ok(Box::new(SqliteLog(Arc::clone(&self.file))))
    }

    async fn backlog(&self) -> Result<Backlog, DatabaseError> {
        Ok(vehicle_queries::backlog(&mut lock(&self.file).await?.connection).await?)
    }

    async fn unpublished(&self, after: i64, limit: i64) -> Result<Vec<UnpublishedEvent>, DatabaseError> {
        Ok(vehicle_queries::unpublished(&mut lock(&self.file).await?.connection, after, limit).await?)
    }

    async fn reannounce(&self, stocked: &StockedVehicle) -> Result<(), DatabaseError> {
        let vin = stocked.vehicle.vin.as_str();
        let event = serde_json::to_string(&VehicleCreated::from(stocked)).map_err(DatabaseError::internal)?;
        let trace = TraceContext::new_root().headers().parent;
        vehicle_queries::reannounce(&mut lock(&self.file).await?.connection, vin, &event, &trace).await?;
        Ok(())
    }
}

struct SqliteAppender(SharedFile);

#[async_trait]
impl Appender for SqliteAppender {
    async fn append(&mut self, vehicles: &[&NewVehicle]) -> Result<IdsByVin, DatabaseError> {
        let vehicles: Vec<NewVehicle> = vehicles.iter().copied().cloned().collect();
        // Runs entirely on one blocking thread, because the caller may be dropped meanwhile.
        let append = move |connection: &mut SqliteConnection| {
            transaction(connection, |connection| {
                let mut kept = IdsByVin::new();
                for new in &vehicles {
                    if let Some(id) = append_one(connection, new)? {
                        kept.insert(new.vin().to_owned(), id);
                    }
                }
                Ok(kept)
            })
        };
        Ok(lock(&self.0).await?.connection.spawn_blocking(append).await?)
    }

    fn is_broken(&self) -> bool {
        false
    }

    async fn existing(&mut self, vins: Vec<String>, keys: Vec<String>) -> Result<Existing, DatabaseError> {
        Ok(vehicle_queries::existing(&mut lock(&self.0).await?.connection, vins, keys).await?)
    }
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

fn append_one(connection: &mut SqliteConnection, new: &NewVehicle) -> QueryResult<Option<VehicleId>> {
    let NewVehicle { vehicle, created_at, event, trace, idempotency_key } = new;
    let row: Option<IdRow> = diesel::sql_query(format!(
        "INSERT INTO vehicles ({INSERTED_COLUMNS})
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING id"
    ))
    .bind::<Text, _>(vehicle.vin.as_str())
    .bind::<Text, _>(vehicle.model.as_str())
    .bind::<Text, _>(vehicle.manufacturer.as_str())
    .bind::<Integer, _>(vehicle.year.get())
    .bind::<Double, _>(vehicle.odometer.get())
    .bind::<Text, _>(vehicle.odometer_unit.as_str())
    .bind::<TimestamptzSqlite, _>(*created_at)
    .bind::<Nullable<Text>, _>(idempotency_key.as_ref().map(IdempotencyKey::as_str))
    .get_result(connection)
    .optional()?;
    let Some(IdRow { id }) = row else { return Ok(None) };
    diesel::sql_query(
        "INSERT INTO event_log (vin, event, traceparent, tracestate)
         VALUES ($1, '{\"id\":' || $2 || ',' || substr($3, 2), $4, nullif($5, ''))",
    )
    .bind::<Text, _>(vehicle.vin.as_str())
    .bind::<BigInt, _>(id)
    .bind::<Text, _>(event)
    .bind::<Text, _>(&*trace.parent)
    .bind::<Text, _>(&*trace.state)
    .execute(connection)?;
    Ok(Some(VehicleId(id)))
}
