//! Ads in MongoDB: the collection `ads`, with a unique index on `vin`.

use std::time::Duration;

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use mongodb::bson::{self, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{ClientOptions, IndexOptions, WriteConcern};
use mongodb::{Client, Collection, IndexModel};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use uuid::Uuid;

use futures::TryStreamExt;

use super::AdStore;
use crate::ads::ad::{Ad, AdId, Offer};
use crate::database::{DatabaseError, DatabaseUrl, in_time};
use crate::http::PageRequest;
use crate::vehicle::{Odometer, Price, Vin};

/// When the address names no database.
const DEFAULT_DATABASE: &str = "vehicles";
const COLLECTION: &str = "ads";
const DUPLICATE_KEY: i32 = 11_000;
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AdDocument {
    #[serde(rename = "_id")]
    id: String,
    published_at: bson::DateTime,
    vehicle_id: Option<i64>,
    vin: String,
    model: String,
    manufacturer: String,
    year: i32,
    odometer: f64,
    odometer_unit: String,
    price: f64,
    price_unit: String,
}

impl From<&Ad> for AdDocument {
    fn from(ad: &Ad) -> Self {
        let offer = ad.offer.clone();
        Self {
            id: ad.id.to_string(),
            published_at: bson::DateTime::from_millis(ad.published_at.timestamp_millis()),
            vehicle_id: offer.vehicle_id,
            vin: offer.vin.into(),
            model: offer.model,
            manufacturer: offer.manufacturer,
            year: offer.year,
            odometer: offer.odometer.get(),
            odometer_unit: offer.odometer_unit,
            price: offer.price.amount(),
            price_unit: offer.price_unit,
        }
    }
}

impl TryFrom<AdDocument> for Ad {
    type Error = DatabaseError;

    /// Fails only on a document that someone else changed.
    fn try_from(document: AdDocument) -> Result<Self, Self::Error> {
        let unreadable = |error: String| DatabaseError::internal(anyhow!("an ad is unreadable: {error}"));
        let published_at = DateTime::<Utc>::from_timestamp_millis(document.published_at.timestamp_millis())
            .ok_or_else(|| unreadable("publishedAt is out of range".to_owned()))?;
        let offer = Offer {
            vehicle_id: document.vehicle_id,
            vin: Vin::parse(&document.vin).map_err(unreadable)?,
            model: document.model,
            manufacturer: document.manufacturer,
            year: document.year,
            odometer: Odometer::parse(document.odometer).map_err(unreadable)?,
            odometer_unit: document.odometer_unit,
            price: Price::parse(document.price).map_err(unreadable)?,
            price_unit: document.price_unit,
        };
        let id = Uuid::parse_str(&document.id).map_err(|error| unreadable(error.to_string()))?;
        Ok(Self { id, published_at, offer })
    }
}

pub struct MongoAds {
    collection: Collection<AdDocument>,
    indexed: OnceCell<()>,
}

impl MongoAds {
    /// Connects only when it is used.
    ///
    /// # Errors
    /// When the address is malformed.
    pub async fn new(url: &DatabaseUrl) -> anyhow::Result<Self> {
        let mut options = ClientOptions::parse(url.as_str()).await.context("--database-url")?;
        options.app_name.get_or_insert_with(|| "vehicle-platform".to_owned());
        options.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
        // An ad counts as kept, and its offset is committed, once no crash can take it back: without the journal
        // a lone server answers up to 100 ms before the write is on disk.
        options.write_concern =
            Some(WriteConcern::builder().w(Some("majority".into())).journal(true).build());
        let client = Client::with_options(options).context("--database-url")?;
        let database = client.default_database().unwrap_or_else(|| client.database(DEFAULT_DATABASE));
        Ok(Self { collection: database.collection(COLLECTION), indexed: OnceCell::new() })
    }

    async fn create_index(&self) -> Result<(), DatabaseError> {
        let options = IndexOptions::builder().unique(true).build();
        let index = IndexModel::builder().keys(doc! { "vin": 1 }).options(options).build();
        self.collection.create_index(index).await.map(drop).map_err(database_error)
    }
}

#[async_trait]
impl AdStore for MongoAds {
    async fn check(&self) -> Result<(), DatabaseError> {
        self.indexed.get_or_try_init(|| in_time(self.create_index())).await?;
        in_time(async {
            self.collection.find_one(doc! { "_id": "" }).await.map(drop).map_err(database_error)
        })
        .await
    }

    async fn insert(&self, ads: &[Ad]) -> Result<usize, DatabaseError> {
        if ads.is_empty() {
            return Ok(0);
        }
        // Without the index nothing would keep a second ad of a vehicle out.
        self.indexed.get_or_try_init(|| in_time(self.create_index())).await?;
        let documents: Vec<_> = ads.iter().map(AdDocument::from).collect();
        let insert = async {
            match self.collection.insert_many(documents).ordered(false).await {
                Ok(inserted) => Ok(inserted.inserted_ids.len()),
                Err(error) => only_duplicates(&error)
                    .map(|count| ads.len() - count)
                    .ok_or_else(|| database_error(error)),
            }
        };
        in_time(insert).await
    }

    async fn page(&self, request: &PageRequest<AdId>) -> Result<Vec<Ad>, DatabaseError> {
        let filter = request.after.map_or_else(|| doc! {}, |id| doc! { "_id": { "$gt": id.to_string() } });
        let find = async {
            let limit = i64::try_from(request.fetch_limit()).unwrap_or(i64::MAX);
            let cursor = self.collection.find(filter).sort(doc! { "_id": 1 }).limit(limit);
            cursor.await.map_err(database_error)?.try_collect::<Vec<_>>().await.map_err(database_error)
        };
        in_time(find).await?.into_iter().map(Ad::try_from).collect()
    }

    async fn get(&self, id: AdId) -> Result<Option<Ad>, DatabaseError> {
        let find =
            async { self.collection.find_one(doc! { "_id": id.to_string() }).await.map_err(database_error) };
        in_time(find).await?.map(Ad::try_from).transpose()
    }

    async fn find(&self, vin: &str) -> Result<Vec<Ad>, DatabaseError> {
        let find = async {
            let cursor = self.collection.find(doc! { "vin": vin }).await.map_err(database_error)?;
            cursor.try_collect::<Vec<_>>().await.map_err(database_error)
        };
        in_time(find).await?.into_iter().map(Ad::try_from).collect()
    }
}

/// How many documents were there already, when nothing else went wrong.
fn only_duplicates(error: &Error) -> Option<usize> {
    let ErrorKind::InsertMany(failure) = error.kind.as_ref() else { return None };
    let errors = failure.write_errors.as_deref().unwrap_or_default();
    let duplicates = errors.iter().all(|error| error.code == DUPLICATE_KEY);
    (failure.write_concern_error.is_none() && duplicates && !errors.is_empty()).then_some(errors.len())
}

fn database_error(error: Error) -> DatabaseError {
    match error.kind.as_ref() {
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Authentication { .. } => DatabaseError::unavailable(error),
        // Commands that a server answers while it stops, starts or loses its primary.
        ErrorKind::Command(failure) if is_state_change(failure.code) => DatabaseError::unavailable(error),
        ErrorKind::InsertMany(failure) if failure.write_concern_error.is_some() => {
            DatabaseError::unavailable(error)
        }
        _ if error.contains_label("RetryableWriteError") => DatabaseError::unavailable(error),
        _ => DatabaseError::internal(error),
    }
}

/// The codes of "node is shutting down", "not writable primary" and "node is recovering"
/// (<https://github.com/mongodb/specifications/blob/master/source/server-discovery-and-monitoring/server-discovery-and-monitoring.md>).
fn is_state_change(code: i32) -> bool {
    matches!(code, 91 | 189 | 10_107 | 11_600 | 11_602 | 13_435 | 13_436)
}
