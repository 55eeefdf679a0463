//! Where ads are kept: one for each vin.

mod mongodb;
mod sqlite;

use std::sync::Arc;

use anyhow::bail;
use async_trait::async_trait;

pub use mongodb::MongoAds;
pub use sqlite::SqliteAds;

use super::ad::{Ad, AdId};
use crate::database::{Access, DatabaseError, DatabaseUrl};
use crate::http::PageRequest;

/// The ads.
#[async_trait]
pub trait AdStore: Send + Sync {
    /// Does what has to be done before the store can be used, and tells whether it answers.
    async fn check(&self) -> Result<(), DatabaseError>;

    /// Keeps those ads whose vin has none yet; how many these were. After an error some may have been kept.
    async fn insert(&self, ads: &[Ad]) -> Result<usize, DatabaseError>;

    /// Up to [`PageRequest::fetch_limit`] ads, newest last.
    async fn page(&self, request: &PageRequest<AdId>) -> Result<Vec<Ad>, DatabaseError>;

    async fn get(&self, id: AdId) -> Result<Option<Ad>, DatabaseError>;

    /// The ads of a vin, of which there should be one at most.
    async fn find(&self, vin: &str) -> Result<Vec<Ad>, DatabaseError>;
}

/// The store that the scheme of `url` names.
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
