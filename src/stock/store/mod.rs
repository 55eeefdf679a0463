//! Where vehicles are kept, together with the log of the events about them.
//!
//! The log is append-only, and its ids become visible in the order of their numbers: a reader that has read up to an id has
//! missed nothing below it. So publishing is reading with a cursor, and progress is one id.

mod log;
mod postgres;
mod sqlite;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::bail;
use async_trait::async_trait;

pub use log::{Backlog, ClaimedEvents, EventLog, LastPublished, Lease, LogEntry, LogRead, PositionKey};
pub use postgres::PostgresVehicles;
pub use sqlite::SqliteVehicles;

use crate::database::{Access, DatabaseError, DatabaseUrl, Readable};
use crate::http::PageRequest;
use crate::trace::TraceContext;
use crate::vehicle::{StockedVehicle, Vehicle, VehicleId};
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};

/// A vehicle that is to be kept, and the event that announces it.
#[derive(Clone, Debug)]
pub struct NewVehicle {
    pub vehicle: Vehicle,
    /// Millisecond precision: all that every engine keeps.
    pub created_at: DateTime<Utc>,
    /// The `VehicleCreated` as a JSON object without its `id`, which the database draws and puts in front.
    pub event: String,
    pub traceparent: String,
}

impl NewVehicle {
    /// # Errors
    /// When the event cannot be written as JSON.
    pub fn new(vehicle: Vehicle, trace: TraceContext) -> Result<Self, serde_json::Error> {
        let now = Utc::now();
        let created_at = now.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(now);
        let event = serde_json::to_string(&crate::event::VehicleCreated::from(&vehicle))?;
        Ok(Self { vehicle, created_at, event, traceparent: trace.to_string() })
    }

    pub fn vin(&self) -> &str {
        self.vehicle.vin.as_str()
    }
}

/// The ids of vehicles by their vin.
pub type IdsByVin = HashMap<String, VehicleId>;

/// The vehicles in stock.
#[async_trait]
pub trait VehicleStore: Send + Sync {
    /// Runs pending migrations, then checks that the database can be written to.
    async fn check(&self) -> Result<(), DatabaseError>;

    /// Returns up to [`PageRequest::fetch_limit`] vehicles, oldest first.
    async fn page(
        &self,
        request: &PageRequest<VehicleId>,
    ) -> Result<Vec<Readable<StockedVehicle, VehicleId>>, DatabaseError>;

    async fn get(&self, id: VehicleId) -> Result<Option<StockedVehicle>, DatabaseError>;

    async fn find(&self, vin: &str) -> Result<Option<StockedVehicle>, DatabaseError>;

    /// Opens a connection that vehicles are written by.
    async fn appender(&self) -> Result<Box<dyn Appender>, DatabaseError>;

    /// Opens a connection that the event log is read by.
    async fn event_log(&self) -> Result<Box<dyn EventLog>, DatabaseError>;

    /// Measures what the relay has still to publish.
    async fn backlog(&self) -> Result<Backlog, DatabaseError>;

    /// Returns up to `limit` events after the id `after` that are still to be published, or could not be encoded,
    /// oldest first.
    async fn unpublished(&self, after: i64, limit: i64) -> Result<Vec<UnpublishedEvent>, DatabaseError>;

    /// Appends the event that announces a vehicle to the log once more.
    async fn reannounce(&self, stocked: &StockedVehicle) -> Result<(), DatabaseError>;
}

/// An event that is not on Kafka, as an audit sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpublishedEvent {
    pub id: i64,
    pub vin: String,
    /// Why it could not be encoded, when a relay tried.
    pub failure: Option<String>,
}

/// Writes vehicles, each together with its event.
#[async_trait]
pub trait Appender: Send {
    /// Keeps the vehicles whose vins are new, and appends their events, all in one transaction. Returns the ids of
    /// those that it kept. The vins of `vehicles` must differ.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] leaves open whether the transaction was committed; after it the connection must
    /// not be used again. After the others nothing was.
    async fn append(&mut self, vehicles: &[&NewVehicle]) -> Result<IdsByVin, DatabaseError>;

    /// Whether the connection is known to be lost, as one that was idle while the server restarted. Costs no round trip.
    fn is_broken(&self) -> bool;

    /// Returns the ids of the vehicles that are there.
    async fn ids_of(&mut self, vins: Vec<String>) -> Result<IdsByVin, DatabaseError>;
}

/// Opens the store that the scheme of `url` names.
///
/// # Errors
/// When the scheme or the address can never work, or a file cannot be opened.
pub async fn open(url: &DatabaseUrl, access: Access) -> anyhow::Result<Arc<dyn VehicleStore>> {
    Ok(match (url.scheme(), url.sqlite_path()) {
        (_, Some(path)) => Arc::new(SqliteVehicles::open(path.into(), access).await?),
        ("postgres" | "postgresql", None) => Arc::new(PostgresVehicles::new(url, access)?),
        (scheme, None) => {
            bail!("stock keeps vehicles in postgres:// or sqlite:, not in {scheme}")
        }
    })
}
