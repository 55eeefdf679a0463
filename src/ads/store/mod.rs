//! Where ads are kept: one for each vin.

mod insertion;
mod mongodb;
mod sqlite;

use std::sync::Arc;

use anyhow::bail;
use async_trait::async_trait;

pub use insertion::Insertion;
pub use mongodb::MongoAds;
pub use sqlite::SqliteAds;

use super::ad::Ad;
use crate::database::{Access, DatabaseError, DatabaseUrl, Readable, Unreadable};
use crate::http::PageRequest;
use uuid::Uuid;

/// The text under which a store keeps an ad. This program writes UUIDs only, but others may have written.
pub type AdKey = String;

/// The ads.
#[async_trait]
pub trait AdStore: Send + Sync {
    /// Creates what is missing before the store can be used, then checks that it answers.
    async fn check(&self) -> Result<(), DatabaseError>;

    /// Keeps those ads whose vin has none yet. Returns what became of each, in their order: no ad decides on another.
    async fn insert(&self, ads: &[Ad]) -> Vec<Insertion>;

    /// Returns up to [`PageRequest::fetch_limit`] ads, in the order of their keys: oldest first.
    async fn page(&self, request: &PageRequest<AdKey>) -> Result<Vec<Readable<Ad, AdKey>>, DatabaseError>;

    /// Returns up to `limit` entries that no page shows, because their key is no text.
    async fn strays(&self, limit: usize) -> Result<Vec<Unreadable<AdKey>>, DatabaseError>;

    /// # Errors
    /// [`DatabaseError::Unreadable`] when something else is under this id.
    async fn get(&self, id: Uuid) -> Result<Option<Ad>, DatabaseError>;

    /// Returns the ads of a vin, of which there should be at most one.
    async fn find(&self, vin: &str) -> Result<Vec<Readable<Ad, AdKey>>, DatabaseError>;
}

/// Opens the store that the scheme of `url` names.
///
/// # Errors
/// When it is none of ours, or its file cannot be opened.
pub async fn open(url: &DatabaseUrl, access: Access) -> anyhow::Result<Arc<dyn AdStore>> {
    Ok(match (url.scheme(), url.sqlite_path()) {
        (_, Some(path)) => Arc::new(SqliteAds::open(path.into(), access).await?),
        ("mongodb" | "mongodb+srv", None) => Arc::new(MongoAds::new(url).await?),
        (scheme, None) => bail!("ads are kept in mongodb:// or sqlite:, not in {scheme}"),
    })
}

fn unreadable(error: Unreadable<AdKey>) -> DatabaseError {
    DatabaseError::Unreadable(error.into())
}
