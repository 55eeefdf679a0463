//! Stores ads in MongoDB: in the collection `ads`, with a unique index on `vin`.

mod address;
mod document;
mod error;

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;
use futures::TryStreamExt as _;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::error::{ErrorKind, InsertManyError};
use mongodb::options::{
    Acknowledgment, CollectionOptions, IndexOptions, ReadConcern, ReadPreference, SelectionCriteria,
    WriteConcern,
};
use mongodb::{Client, Collection, Cursor, IndexModel};
use tokio::sync::{OnceCell, Semaphore};
use uuid::Uuid;

use super::insertion::insert_each;
use super::{AFTER_IDS, AdKey, AdStore, Insertion, unreadable};
use crate::ads::ad::Ad;
use crate::canonical::canonical;
use crate::database::{DatabaseError, DatabaseUrl, Readable, Unreadable, in_time};
use crate::page::{MAX_PAGE_BYTES, PageRequest, Rows};
pub use address::parse_url;
use document::AdDocument;
use error::{by_code, database_error};

/// The database when the address does not name one.
const DEFAULT_DATABASE: &str = "vehicles";
const COLLECTION: &str = "ads";
/// The error code DuplicateKey.
const DUPLICATE_KEY: i32 = 11_000;
/// The maximum number of ads per vin to look for, of which there should be one.
const MAX_OF_A_VIN: usize = 100;
/// The maximum number of pages that are read at the same time.
const PAGES: usize = 4;
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(3);

pub struct MongoAds {
    /// Returns raw documents, as each of them is deserialized separately.
    collection: Collection<RawDocumentBuf>,
    /// The same collection as the writer sees it: on the primary, with what is not on a majority yet.
    written: Collection<RawDocumentBuf>,
    /// Whether the index existed at a check. Later checks only read, so that lists are served without a primary.
    indexed: OnceCell<()>,
    /// Limits the pages that are read at a time, because the driver receives up to 16 MiB before the first row.
    pages: Semaphore,
}

impl MongoAds {
    /// Creates the store without connecting.
    ///
    /// # Errors
    /// Fails when the address is malformed.
    pub async fn new(url: &DatabaseUrl) -> anyhow::Result<Self> {
        let mut options = address::client_options(url).await?;
        options.app_name.get_or_insert_with(|| "vehicle-platform".to_owned());
        options.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
        // An ad counts as stored, and its offset is committed, only when no crash can undo the write. Without the
        // journal, a standalone server responds up to 100 ms before the write is on disk.
        options.write_concern =
            Some(WriteConcern::builder().w(Some("majority".into())).journal(true).build());
        // A client must not see an ad that a failover may undo: its vehicle would appear again under another id.
        options.read_concern = Some(ReadConcern::majority());
        let client = Client::with_options(options).map_err(|error| anyhow!(address::reason(url, &error)))?;
        let database = client.default_database().unwrap_or_else(|| client.database(DEFAULT_DATABASE));
        let written = CollectionOptions::builder()
            .read_concern(ReadConcern::local())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build();
        Ok(Self {
            collection: database.collection(COLLECTION),
            written: database.collection_with_options(COLLECTION, written),
            indexed: OnceCell::new(),
            pages: Semaphore::new(PAGES),
        })
    }

    /// Creates the unique index if it is missing. A write that follows and reaches a majority covers it.
    async fn create_index(&self) -> Result<(), DatabaseError> {
        let options = IndexOptions::builder().unique(true).build();
        let index = IndexModel::builder().keys(doc! { "vin": 1 }).options(options).build();
        let on_primary = WriteConcern::builder().w(Acknowledgment::Nodes(1)).build();
        self.written.create_index(index).write_concern(on_primary).await.map(drop).map_err(database_error)
    }

    /// Inserts ads in a single call.
    ///
    /// # Errors
    /// Returns errors that do not identify an ad.
    async fn insert_together(&self, ads: &[Ad]) -> Result<Vec<Insertion>, DatabaseError> {
        // Without the index, nothing would prevent a second ad for a vehicle. Another program may have dropped the
        // collection since the last insert, as a restore does. A failure to create the index is not caused by an ad.
        self.create_index().await.map_err(|error| DatabaseError::unavailable(anyhow!("{error}")))?;
        let documents = self.written.clone_with_type::<AdDocument<'_>>();
        let inserted = documents.insert_many(ads.iter().map(AdDocument::from)).ordered(false).await;
        let Err(error) = inserted else { return Ok(vec![Insertion::Kept; ads.len()]) };
        match *error.kind {
            ErrorKind::InsertMany(failure) => self.decide(ads, failure).await,
            _ => Err(database_error(error)),
        }
    }

    /// Determines the outcome of each ad of an insert that failed in part.
    async fn decide(&self, ads: &[Ad], failure: InsertManyError) -> Result<Vec<Insertion>, DatabaseError> {
        let mut insertions = vec![Insertion::Kept; ads.len()];
        let mut duplicates = Vec::new();
        for error in failure.write_errors.unwrap_or_default() {
            let Some((insertion, ad)) = insertions.get_mut(error.index).zip(ads.get(error.index)) else {
                continue;
            };
            if error.code == DUPLICATE_KEY {
                duplicates.push(error.index);
                *insertion = Insertion::Known;
            } else {
                let reason = anyhow!("error {}: {}", error.code, error.message);
                *insertion =
                    by_code(error.code, reason.context(format!("the ad of {:?}", ad.offer.vehicle.vin)))
                        .into();
            }
        }
        if let Some(error) = failure.write_concern_error {
            // The remaining ads were written, but not to a majority, so neither new nor existing ads are safe yet.
            let unsafe_yet = format!("write concern error {}: {}", error.code, error.message);
            for insertion in &mut insertions {
                if matches!(insertion, Insertion::Kept | Insertion::Known) {
                    *insertion = Insertion::Unavailable(unsafe_yet.clone());
                }
            }
        } else if !duplicates.is_empty() {
            let vin_of = |index: &usize| ads.get(*index).map_or("", |ad| ad.offer.vehicle.vin.as_str());
            let known = self.known_vins(duplicates.iter().map(vin_of).collect()).await?;
            for index in duplicates.iter().filter(|index| !known.contains(vin_of(index))) {
                if let Some(insertion) = insertions.get_mut(*index) {
                    *insertion =
                        Insertion::Refused("a unique index other than that on vin refuses it".to_owned());
                }
            }
        }
        Ok(insertions)
    }

    /// Returns those of `vins` that have an ad. The error code does not identify the index of a duplicate key.
    async fn known_vins(&self, vins: Vec<&str>) -> Result<HashSet<String>, DatabaseError> {
        let find = self.written.find(doc! { "vin": { "$in": vins } }).projection(doc! { "vin": 1 });
        let found = find.await.map_err(database_error)?;
        found
            .map_err(database_error)
            .map_ok(|document| document.get_str("vin").unwrap_or_default().to_owned())
            .try_collect()
            .await
    }

    async fn find_sorted(
        &self,
        filter: Document,
        limit: usize,
    ) -> Result<Cursor<RawDocumentBuf>, DatabaseError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.collection.find(filter).sort(doc! { "_id": 1 }).limit(limit).await.map_err(database_error)
    }

    async fn documents(&self, filter: Document, limit: usize) -> Result<Vec<RawDocumentBuf>, DatabaseError> {
        in_time(async { self.find_sorted(filter, limit).await?.map_err(database_error).try_collect().await })
            .await
    }
}

#[async_trait]
impl AdStore for MongoAds {
    async fn check(&self) -> Result<(), DatabaseError> {
        self.indexed.get_or_try_init(|| in_time(self.create_index())).await?;
        self.documents(doc! { "_id": "" }, 1).await.map(drop)
    }

    async fn newest(&self) -> Result<Option<Uuid>, DatabaseError> {
        let newest = self.written.find_one(doc! { "_id": { "$lt": AFTER_IDS } }).sort(doc! { "_id": -1 });
        let newest = in_time(async { newest.await.map_err(database_error) }).await?;
        Ok(newest.and_then(|document| canonical(document.get_str("_id").ok()?)))
    }

    async fn insert(&self, ads: &[Ad]) -> Vec<Insertion> {
        let insert = |part: Range<usize>| in_time(self.insert_together(ads.get(part).unwrap_or_default()));
        insert_each(ads.len(), insert).await
    }

    async fn page(&self, request: &PageRequest<AdKey>) -> Result<Rows<Ad, AdKey>, DatabaseError> {
        // A comparison with a string matches only strings:
        // https://www.mongodb.com/docs/manual/reference/method/db.collection.find/#type-bracketing
        let after = request.after.clone().unwrap_or_default();
        let mut filter = doc! { "_id": { "$gt": after } };
        if let Some(vin) = &request.vin {
            filter.insert("vin", vin.as_str());
        }
        in_time(async {
            let _reading = self.pages.acquire().await.map_err(DatabaseError::internal)?;
            let mut found = self.find_sorted(filter, request.fetch_limit()).await?;
            let (mut rows, mut bytes) = (Vec::new(), 0);
            while let Some(document) = found.try_next().await.map_err(database_error)? {
                if rows.len() == request.limit || bytes >= MAX_PAGE_BYTES {
                    return Ok(Rows { rows, more: true });
                }
                bytes += document.as_bytes().len();
                rows.push(document::read(&document));
            }
            Ok(Rows { rows, more: false })
        })
        .await
    }

    async fn strays(&self, limit: usize) -> Result<Vec<Unreadable<AdKey>>, DatabaseError> {
        let documents = self.documents(doc! { "_id": { "$not": { "$gt": "" } } }, limit).await?;
        Ok(documents.iter().map(|document| document::stray(document)).collect())
    }

    async fn get(&self, id: Uuid) -> Result<Option<Ad>, DatabaseError> {
        let documents = self.documents(doc! { "_id": id.to_string() }, 1).await?;
        let document = documents.first().map(|document| document::read(document));
        document.transpose().map_err(unreadable)
    }

    async fn find(&self, vin: &str) -> Result<Vec<Readable<Ad, AdKey>>, DatabaseError> {
        let documents = self.documents(doc! { "vin": vin }, MAX_OF_A_VIN).await?;
        Ok(documents.iter().map(|document| document::read(document)).collect())
    }
}
