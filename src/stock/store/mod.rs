//! Where vehicles are kept, together with the events about them that are still to be published.

mod postgres;
mod queries;
mod sqlite;

use std::sync::Arc;

use anyhow::bail;
use async_trait::async_trait;

pub use postgres::PostgresVehicles;
pub use sqlite::SqliteVehicles;

use crate::http::PageRequest;
use crate::database::{Access, DatabaseUrl, DatabaseError};
use crate::trace::TraceContext;
use crate::vehicle::{StockedVehicle, Vehicle, VehicleId};

/// What became of a vehicle that was to be kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Insertion {
    Stocked(StockedVehicle),
    /// A vehicle with this vin was there already.
    Exists(VehicleId),
}

/// The vehicles in stock.
#[async_trait]
pub trait VehicleStore: Send + Sync {
    /// Does what has to be done before the store can be used, and tells whether it answers.
    async fn check(&self) -> Result<(), DatabaseError>;

    /// Keeps a vehicle and the event about it, both or neither.
    async fn insert(&self, vehicle: &Vehicle, trace: TraceContext) -> Result<Insertion, DatabaseError>;

    /// Up to [`PageRequest::fetch_limit`] vehicles, oldest first.
    async fn page(&self, request: &PageRequest<VehicleId>) -> Result<Vec<StockedVehicle>, DatabaseError>;

    async fn get(&self, id: VehicleId) -> Result<Option<StockedVehicle>, DatabaseError>;

    async fn find(&self, vin: &str) -> Result<Option<StockedVehicle>, DatabaseError>;

    /// The vins of up to `limit` events that are still to be published, oldest first, each with a key: of those
    /// after the key `after`.
    async fn unpublished(&self, after: Option<i64>, limit: i64) -> Result<Vec<(i64, String)>, DatabaseError>;

    /// How many events are still to be published.
    async fn outbox_depth(&self) -> Result<i64, DatabaseError>;

    /// The outbox, for one holder at a time; `None` while another has it, or the store was not yet there.
    async fn outbox(&self) -> Result<Option<Box<dyn Outbox>>, DatabaseError>;
}

/// An event that is still to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    pub vin: String,
    /// A `VehicleCreated`, as JSON.
    pub event: String,
    pub traceparent: String,
}

/// The sole access to the events that are still to be published.
///
/// Events leave in numbered batches. The number of the next batch is kept on the cluster, by the very transaction
/// that publishes a batch, and so tells after any crash whether a batch went out.
#[async_trait]
pub trait Outbox: Send {
    /// Tells this database from others; stays the same for its life.
    async fn identity(&mut self) -> Result<String, DatabaseError>;

    /// Takes up where a predecessor died: batches before `next` were published and are removed, others were not
    /// and go back.
    async fn recover(&mut self, next: i64) -> Result<(), DatabaseError>;

    /// Gives the number `batch` to the `limit` oldest entries, and returns them.
    async fn claim(&mut self, batch: i64, limit: i64) -> Result<Vec<OutboxEntry>, DatabaseError>;

    /// Removes a batch that was published.
    async fn remove(&mut self, batch: i64) -> Result<(), DatabaseError>;
}

/// The store that the scheme of `url` names.
///
/// # Errors
/// When it is none of ours, or its file cannot be opened.
pub async fn open(url: &DatabaseUrl, access: Access) -> anyhow::Result<Arc<dyn VehicleStore>> {
    Ok(match (url.scheme(), url.sqlite_path()) {
        (_, Some(path)) => Arc::new(SqliteVehicles::open(path.into(), access).await?),
        ("postgres" | "postgresql", None) => Arc::new(PostgresVehicles::new(url, access)?),
        (scheme, None) => {
            bail!("stock keeps vehicles in postgres:// or sqlite:, not in {scheme}")
        }
    })
}
