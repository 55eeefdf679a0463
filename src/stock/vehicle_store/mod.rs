//! Stores vehicles together with the log of their events.
//!
//! The log is append-only, and its ids become visible in ascending order: a reader that has reached an id has missed
//! nothing below it. Publishing is therefore reading with a cursor, and progress is a single id.

mod log;
mod postgres;
mod sqlite;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

pub use log::{Backlog, ClaimedEvents, EventLog, LastPublished, Lease, LogEntry, LogRead, PositionKey};
pub use postgres::PostgresVehicles;
pub use sqlite::SqliteVehicles;

use crate::database::postgres::PostgresAddress;
use crate::database::{Access, DatabaseError, DatabaseUrl, Readable};
use crate::page::{PageRequest, Rows};
use crate::stock::IdempotencyKey;
use crate::trace::{TraceContext, TraceHeaders};
use crate::vehicle::{StockedVehicle, Vehicle, VehicleId};
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};

/// The columns of `vehicles` that an insert sets.
const INSERTED_COLUMNS: &str =
    "vin, model, manufacturer, year, odometer, odometer_unit, created_at, idempotency_key";

/// A vehicle to be stored and the event that announces it.
#[derive(Clone, Debug)]
pub struct NewVehicle {
    pub vehicle: Vehicle,
    /// Has millisecond precision, which every engine can store.
    pub created_at: DateTime<Utc>,
    /// The `VehicleCreated` as a JSON object without its `id`. The database assigns the id and inserts it as the
    /// first field.
    pub event: String,
    pub trace: TraceHeaders<'static>,
    /// The key with which the client may repeat the request.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl NewVehicle {
    /// Creates the event of a vehicle that is accepted now, without an idempotency key.
    ///
    /// # Errors
    /// Fails when the event cannot be serialized as JSON.
    pub fn new(vehicle: Vehicle, trace: &TraceContext) -> Result<Self, serde_json::Error> {
        let now = Utc::now();
        let created_at = now.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(now);
        let event = serde_json::to_string(&crate::event::VehicleCreated::from(&vehicle))?;
        Ok(Self { vehicle, created_at, event, trace: trace.headers(), idempotency_key: None })
    }

    pub fn vin(&self) -> &str {
        self.vehicle.vin.as_str()
    }

    #[cfg(test)]
    pub fn sample(vin: &str) -> Self {
        Self::new(crate::vehicle::sample::vehicle(vin), &TraceContext::new_root()).unwrap()
    }
}

/// Ids of vehicles by vin.
pub type IdsByVin = HashMap<String, VehicleId>;

/// The vehicles in stock that prevent others from being inserted.
#[derive(Debug, Default)]
pub struct Existing {
    pub by_vin: IdsByVin,
    /// The vehicles that were accepted with these idempotency keys.
    pub by_key: HashMap<String, Readable<StockedVehicle, VehicleId>>,
}

/// The vehicles in stock.
#[async_trait]
pub trait VehicleStore: Send + Sync {
    /// Runs pending migrations, then checks that the database accepts writes.
    async fn check(&self) -> Result<(), DatabaseError>;

    /// Returns the requested vehicles, oldest first. A vin is looked up in its unique index.
    async fn page(
        &self,
        request: &PageRequest<VehicleId>,
    ) -> Result<Rows<StockedVehicle, VehicleId>, DatabaseError>;

    async fn get(&self, id: VehicleId) -> Result<Option<StockedVehicle>, DatabaseError>;

    async fn find(&self, vin: &str) -> Result<Option<StockedVehicle>, DatabaseError>;

    /// Opens a connection for writing vehicles.
    async fn appender(&self) -> Result<Box<dyn Appender>, DatabaseError>;

    /// Opens a connection for reading the event log.
    async fn event_log(&self) -> Result<Box<dyn EventLog>, DatabaseError>;

    /// Returns the number and age of the events to be published.
    async fn backlog(&self) -> Result<Backlog, DatabaseError>;

    /// Returns at most `limit` events with ids above `after` that are waiting to be published or failed, oldest
    /// first.
    async fn unpublished(&self, after: i64, limit: i64) -> Result<Vec<UnpublishedEvent>, DatabaseError>;

    /// Appends another event that announces the vehicle to the log.
    async fn reannounce(&self, stocked: &StockedVehicle) -> Result<(), DatabaseError>;
}

/// An event that is not on Kafka, as an audit sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpublishedEvent {
    pub id: i64,
    pub vin: String,
    /// The reason why it could not be published, if a relay has tried.
    pub failure: Option<String>,
}

/// Writes vehicles together with their events.
#[async_trait]
pub trait Appender: Send {
    /// Inserts the vehicles whose vins and idempotency keys are new and appends their events, all in one transaction.
    /// Returns the ids of the inserted vehicles. The vins of `vehicles` must be distinct.
    ///
    /// Waits for a concurrent transaction with the same vin or key, so [`Self::existing`] finds the other vehicle.
    ///
    /// # Errors
    /// After [`DatabaseError::Unavailable`], it is unknown whether the transaction was committed, and the connection
    /// must not be used again. Other errors mean that it was not.
    async fn append(&mut self, vehicles: &[&NewVehicle]) -> Result<IdsByVin, DatabaseError>;

    /// Returns whether the connection is known to be lost, for example because the server restarted. Costs no round
    /// trip.
    fn is_broken(&self) -> bool;

    /// Returns the vehicles that have one of `vins` or `keys`. Those of `keys` are as durable as if they were inserted
    /// now.
    async fn existing(&mut self, vins: Vec<String>, keys: Vec<String>) -> Result<Existing, DatabaseError>;
}

/// Parses the URL of a database that can store vehicles.
///
/// # Errors
/// Fails when no database can ever be reached at the address. The reason contains no secret.
pub fn parse_url(text: &str) -> Result<DatabaseUrl, String> {
    let url: DatabaseUrl = text.parse()?;
    match (url.scheme(), url.sqlite_path()) {
        (_, Some(_)) => Ok(url),
        ("postgres" | "postgresql", None) => match PostgresAddress::parse(&url) {
            Ok(_) => Ok(url),
            Err(error) => Err(format!("{error:#}")),
        },
        (scheme, None) => Err(unsupported(scheme)),
    }
}

fn unsupported(scheme: &str) -> String {
    format!("stock supports postgres:// and sqlite: databases, not {scheme}")
}

/// Opens the store for the scheme of `url`.
///
/// # Errors
/// Fails when the scheme or the address is unusable or a file cannot be opened.
pub async fn open(url: &DatabaseUrl, access: Access) -> anyhow::Result<Arc<dyn VehicleStore>> {
    Ok(match (url.scheme(), url.sqlite_path()) {
        (_, Some(path)) => Arc::new(SqliteVehicles::open(path.into(), access).await?),
        ("postgres" | "postgresql", None) => Arc::new(PostgresVehicles::new(url, access)?),
        (scheme, None) => return Err(anyhow::Error::msg(unsupported(scheme))),
    })
}
