//! Stores ads, one per vin.

mod insertion;
mod mongodb;
mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;

pub use insertion::Insertion;
pub use mongodb::MongoAds;
pub use sqlite::SqliteAds;

use super::ad::Ad;
use crate::database::{Access, DatabaseError, DatabaseUrl, Readable, Unreadable};
use crate::page::{PageRequest, Rows};
use uuid::Uuid;

/// The key of an ad. This program writes only UUIDs, but other programs may write other texts.
pub type AdKey = String;

/// A text that sorts after all UUIDs.
const AFTER_IDS: &str = "g";

/// The published ads.
#[async_trait]
pub trait AdStore: Send + Sync {
    /// Creates the schema if it is missing, then checks that the store responds.
    async fn check(&self) -> Result<(), DatabaseError>;

    /// Returns the id of the newest ad. Returns `None` when there is no ad, or when the last key before the text `g` is not
    /// a UUID.
    async fn newest(&self) -> Result<Option<Uuid>, DatabaseError>;

    /// Inserts the ads whose vin has none yet. Returns the outcome of each ad, in order. No ad affects the outcome of
    /// another.
    async fn insert(&self, ads: &[Ad]) -> Vec<Insertion>;

    /// Returns the requested ads in the order of their keys, oldest first, up to
    /// [`MAX_PAGE_BYTES`](crate::page::MAX_PAGE_BYTES). A vin is looked up in its unique index.
    async fn page(&self, request: &PageRequest<AdKey>) -> Result<Rows<Ad, AdKey>, DatabaseError>;

    /// Returns at most `limit` entries that no page shows because their key is not a text.
    async fn strays(&self, limit: usize) -> Result<Vec<Unreadable<AdKey>>, DatabaseError>;

    /// Returns the ad with this id.
    ///
    /// # Errors
    /// Returns [`DatabaseError::Unreadable`] when the id belongs to something other than an ad.
    async fn get(&self, id: Uuid) -> Result<Option<Ad>, DatabaseError>;

    /// Returns the ads of a vin, of which there should be at most one.
    async fn find(&self, vin: &str) -> Result<Vec<Readable<Ad, AdKey>>, DatabaseError>;
}

/// Parses the URL of a database that can store ads.
///
/// # Errors
/// Fails when no database can ever be reached at the address. The reason contains no secret.
pub fn parse_url(text: &str) -> Result<DatabaseUrl, String> {
    let url: DatabaseUrl = text.parse()?;
    match (url.scheme(), url.sqlite_path()) {
        (_, Some(_)) => Ok(url),
        ("mongodb" | "mongodb+srv", None) => mongodb::parse_url(&url).map(|_| url),
        (scheme, None) => Err(unsupported(scheme)),
    }
}

fn unsupported(scheme: &str) -> String {
    format!("ads supports mongodb:// and sqlite: databases, not {scheme}")
}

/// Opens the store for the scheme of `url`.
///
/// # Errors
/// Fails when the scheme is not supported or a file cannot be opened.
pub async fn open(url: &DatabaseUrl, access: Access) -> anyhow::Result<Arc<dyn AdStore>> {
    Ok(match (url.scheme(), url.sqlite_path()) {
        (_, Some(path)) => Arc::new(SqliteAds::open(path.into(), access).await?),
        ("mongodb" | "mongodb+srv", None) => Arc::new(MongoAds::new(url).await?),
        (scheme, None) => return Err(anyhow::Error::msg(unsupported(scheme))),
    })
}

fn unreadable(error: Unreadable<AdKey>) -> DatabaseError {
    DatabaseError::Unreadable(error.into())
}
