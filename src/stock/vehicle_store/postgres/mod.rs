//! Stores vehicles in PostgreSQL.

mod append;
#[path = "../lease_queries.rs"]
#[expect(clippy::duplicate_mod, reason = "compiled once for each engine, with its dialect")]
mod lease_queries;
mod log;
#[path = "../log_queries.rs"]
#[expect(clippy::duplicate_mod, reason = "compiled once for each engine, with its dialect")]
mod log_queries;
mod migrations;
#[path = "../vehicle_queries.rs"]
#[expect(clippy::duplicate_mod, reason = "compiled once for each engine, with its dialect")]
mod vehicle_queries;
mod writable;

use async_trait::async_trait;

use self::append::PostgresAppender;
use self::log::PostgresLog;
use self::migrations::Migrations;
use super::{Appender, Backlog, EventLog, UnpublishedEvent, VehicleStore};
use crate::database::postgres::{PostgresAddress, PostgresPool};
use crate::database::{Access, DatabaseError, DatabaseUrl};
use crate::event::VehicleCreated;
use crate::page::{PageRequest, Rows};
use crate::trace::TraceContext;
use crate::vehicle::{StockedVehicle, VehicleId};

/// The parts of the shared queries that are specific to PostgreSQL.
mod dialect {
    pub(super) type Backend = diesel::pg::Pg;
    pub(super) type Connection = diesel_async::AsyncPgConnection;
    pub(super) type CreatedAt = diesel::sql_types::Timestamptz;
    pub(super) const NOW: &str = "now()";
    /// The age of an event in seconds.
    pub(super) const AGE: &str =
        "CAST(extract(epoch FROM clock_timestamp() - created_at) AS DOUBLE PRECISION)";
    pub(super) const OLDER_THAN: &str = "created_at < now() - make_interval(secs => $6)";
    /// A condition: a relay used the position's cluster recently.
    pub(super) const IN_USE: &str = "moved_at > now() - interval '7 days'";
    /// A condition: inserts acquire the lock that keeps ids in commit order and draw ids one by one.
    pub(super) const ORDERED: &str =
        "((SELECT count(*) = 2 FROM pg_trigger WHERE tgname = 'insert_in_commit_order'
            AND tgenabled = 'A' AND tgrelid IN ('vehicles'::regclass, 'event_log'::regclass))
        AND (SELECT count(*) = 2 FROM pg_sequence WHERE seqincrement = 1 AND seqcache = 1
            AND seqrelid IN ('vehicles_id_seq'::regclass, 'event_log_id_seq'::regclass)))";

    pub(super) fn sql(statement: impl Into<String>) -> diesel::query_builder::SqlQuery {
        diesel::sql_query(statement)
    }
    pub(super) const IN_RECOVERY: &str = "pg_is_in_recovery()";
    /// A table with the column `value`: the elements of the JSON array `$1`.
    pub(super) const ELEMENTS: &str = "jsonb_array_elements(CAST($1 AS jsonb))";
}

/// The number of connections for reads; further reads wait. Writing vehicles and reading the log use separate
/// connections.
const READERS: usize = 8;

pub struct PostgresVehicles {
    address: PostgresAddress,
    readers: PostgresPool,
    /// `None` for a process that does not change the schema.
    migrations: Option<Migrations>,
}

impl PostgresVehicles {
    /// Creates the store without connecting.
    ///
    /// # Errors
    /// Fails when the address is unusable.
    pub fn new(url: &DatabaseUrl, access: Access) -> anyhow::Result<Self> {
        let address = PostgresAddress::parse(url)?;
        let migrations = match access {
            Access::Owner => Some(Migrations::new(address.clone())),
            Access::Observer => None,
        };
        Ok(Self { readers: PostgresPool::new(address.clone(), READERS), address, migrations })
    }

    /// Returns once the schema is migrated. Fails when that takes long.
    async fn migrate(&self) -> Result<(), DatabaseError> {
        match &self.migrations {
            Some(migrations) => migrations.run().await,
            None => Ok(()),
        }
    }

    fn check_migrated(&self) -> Result<(), DatabaseError> {
        self.migrations.as_ref().map_or(Ok(()), Migrations::check)
    }

    fn readers(&self) -> Result<&PostgresPool, DatabaseError> {
        self.check_migrated()?;
        Ok(&self.readers)
    }
}

#[async_trait]
impl VehicleStore for PostgresVehicles {
    async fn check(&self) -> Result<(), DatabaseError> {
        if let Some(migrations) = &self.migrations {
            migrations.run().await?;
            migrations.verify(&self.readers).await?;
        }
        writable::check(&self.readers).await
    }

    async fn page(
        &self,
        request: &PageRequest<VehicleId>,
    ) -> Result<Rows<StockedVehicle, VehicleId>, DatabaseError> {
        self.readers()?.call(async |connection| vehicle_queries::page(connection, request).await).await
    }

    async fn get(&self, id: VehicleId) -> Result<Option<StockedVehicle>, DatabaseError> {
        self.readers()?.call(async |connection| vehicle_queries::get(connection, id).await).await
    }

    async fn find(&self, vin: &str) -> Result<Option<StockedVehicle>, DatabaseError> {
        self.readers()?.call(async |connection| vehicle_queries::find(connection, vin).await).await
    }

    async fn appender(&self) -> Result<Box<dyn Appender>, DatabaseError> {
        self.check_migrated()?;
        Ok(Box::new(PostgresAppender(self.address.connect().await?)))
    }

    async fn event_log(&self) -> Result<Box<dyn EventLog>, DatabaseError> {
        // A starting relay waits for the migrations rather than backing off after a failure.
        self.migrate().await?;
        Ok(Box::new(PostgresLog(self.address.connect().await?)))
    }

    async fn backlog(&self) -> Result<Backlog, DatabaseError> {
        self.readers()?.call(async |connection| vehicle_queries::backlog(connection).await).await
    }

    async fn unpublished(&self, after: i64, limit: i64) -> Result<Vec<UnpublishedEvent>, DatabaseError> {
        self.readers()?
            .call(async |connection| vehicle_queries::unpublished(connection, after, limit).await)
            .await
    }

    async fn reannounce(&self, stocked: &StockedVehicle) -> Result<(), DatabaseError> {
        let vin = stocked.vehicle.vin.as_str();
        let event = serde_json::to_string(&VehicleCreated::from(stocked)).map_err(DatabaseError::internal)?;
        let trace = TraceContext::new_root().headers().parent;
        self.readers()?
            .call(async |connection| vehicle_queries::reannounce(connection, vin, &event, &trace).await)
            .await
            .map(drop)
    }
}
