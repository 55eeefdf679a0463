//! Stores ads in a SQLite file, for one process.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_async::RunQueryDsl;
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use tokio::sync::{Mutex, OwnedMutexGuard};
use uuid::Uuid;

use super::insertion::insert_each;
use super::{AFTER_IDS, AdKey, AdStore, Insertion, unreadable};
use crate::ads::ad::{Ad, Offer};
use crate::canonical::canonical;
use crate::database::sqlite::{Finisher, SqliteFile, open};
use crate::database::{Access, DatabaseError, Readable, Unreadable, in_time};
use crate::page::{MAX_PAGE_BYTES, PageRequest, Rows};
use crate::vehicle::{PlainVehicle, Price};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("src/ads/migrations/sqlite");

/// The size of the texts of an ad in bytes. SQLite finds the size of a column without reading its value.
const SIZE: &str = "coalesce(octet_length(id), 0) + coalesce(octet_length(vin), 0)
    + coalesce(octet_length(model), 0) + coalesce(octet_length(manufacturer), 0)
    + coalesce(octet_length(odometer_unit), 0) + coalesce(octet_length(price_unit), 0)";

diesel::table! {
    ads (id) {
        id -> Text,
        published_at -> TimestamptzSqlite,
        vehicle_id -> Nullable<BigInt>,
        vin -> Text,
        model -> Text,
        manufacturer -> Text,
        year -> Integer,
        odometer -> Double,
        odometer_unit -> Text,
        price -> Double,
        price_unit -> Text,
    }
}

#[derive(Insertable, Queryable)]
#[diesel(table_name = ads)]
struct AdRow {
    id: String,
    published_at: DateTime<Utc>,
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

impl From<&Ad> for AdRow {
    fn from(ad: &Ad) -> Self {
        let Offer { vehicle_id, vehicle, price, price_unit } = ad.offer.clone();
        Self {
            id: ad.id.to_string(),
            published_at: ad.published_at,
            vehicle_id,
            vin: vehicle.vin,
            model: vehicle.model,
            manufacturer: vehicle.manufacturer,
            year: vehicle.year,
            odometer: vehicle.odometer,
            odometer_unit: vehicle.odometer_unit,
            price: price.amount(),
            price_unit,
        }
    }
}

/// Fails only for rows that another program wrote or changed.
impl TryFrom<AdRow> for Ad {
    type Error = Unreadable<AdKey>;

    fn try_from(row: AdRow) -> Result<Self, Self::Error> {
        let unreadable = |reason| Unreadable { id: row.id.clone(), reason };
        let vehicle = PlainVehicle {
            vin: row.vin,
            model: row.model,
            manufacturer: row.manufacturer,
            year: row.year,
            odometer: row.odometer,
            odometer_unit: row.odometer_unit,
        };
        let offer = Offer {
            vehicle_id: row.vehicle_id,
            vehicle: vehicle.checked().map_err(unreadable)?,
            price: Price::parse(row.price).map_err(|error| unreadable(format!("price {error}")))?,
            price_unit: row.price_unit,
        };
        let id = canonical(&row.id).ok_or_else(|| unreadable("its id is not a canonical UUID".to_owned()))?;
        Ok(Self { id, published_at: row.published_at, offer })
    }
}

/// A store with a single shared connection, as SQLite serializes writes anyway.
pub struct SqliteAds {
    file: Arc<Mutex<SqliteFile>>,
    finisher: Finisher,
}

impl SqliteAds {
    /// Opens the file. The owner creates a missing file.
    ///
    /// # Errors
    /// Fails when the file cannot be opened or another process owns it.
    pub async fn open(path: PathBuf, access: Access) -> anyhow::Result<Self> {
        let file = open(path, MIGRATIONS, access).await?;
        Ok(Self { file: Arc::new(Mutex::new(file)), finisher: Finisher::on_this_runtime() })
    }

    /// Waits for the file, at most [`DATABASE_TIMEOUT`](crate::database::DATABASE_TIMEOUT).
    async fn lock(&self) -> Result<OwnedMutexGuard<SqliteFile>, DatabaseError> {
        in_time(async { Ok(Arc::clone(&self.file).lock_owned().await) }).await
    }
}

#[async_trait]
impl AdStore for SqliteAds {
    async fn check(&self) -> Result<(), DatabaseError> {
        let mut file = self.file.lock().await;
        ads::table.select(ads::id).first::<String>(&mut file.connection).await.optional()?;
        Ok(())
    }

    async fn newest(&self) -> Result<Option<Uuid>, DatabaseError> {
        let mut file = self.lock().await?;
        let ids = ads::table.filter(ads::id.lt(AFTER_IDS)).order(ads::id.desc()).select(ads::id);
        let newest: Option<String> = ids.first(&mut file.connection).await.optional()?;
        Ok(newest.and_then(|id| canonical(&id)))
    }

    async fn insert(&self, ads: &[Ad]) -> Vec<Insertion> {
        let insert = |part: Range<usize>| {
            let rows = ads.get(part).unwrap_or_default().iter().map(AdRow::from).collect();
            // A separate task: dropping the caller must not leave the connection in the middle of a transaction.
            let inserted = tokio::spawn(insert_together(Arc::clone(&self.file), rows));
            async { inserted.await.map_err(DatabaseError::unavailable)? }
        };
        insert_each(ads.len(), insert).await
    }

    async fn page(&self, request: &PageRequest<AdKey>) -> Result<Rows<Ad, AdKey>, DatabaseError> {
        let (mut file, request) = (self.lock().await?, request.clone());
        self.finisher.finish(async move { page(&mut file.connection, &request).await }).await
    }

    async fn strays(&self, limit: usize) -> Result<Vec<Unreadable<AdKey>>, DatabaseError> {
        let mut file = self.file.lock().await;
        let names: Vec<String> = ads::table
            .select(sql::<Text>("quote(id)"))
            .filter(sql::<Bool>("typeof(id) <> 'text' OR id = ''"))
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .load(&mut file.connection)
            .await?;
        Ok(names.into_iter().map(|id| Unreadable { id, reason: "its id is not a text".to_owned() }).collect())
    }

    async fn get(&self, id: Uuid) -> Result<Option<Ad>, DatabaseError> {
        let mut file = self.lock().await?;
        let get = async move {
            let row: Option<AdRow> =
                ads::table.find(id.to_string()).first(&mut file.connection).await.optional()?;
            row.map(Ad::try_from).transpose().map_err(unreadable)
        };
        self.finisher.finish(get).await
    }

    async fn find(&self, vin: &str) -> Result<Vec<Readable<Ad, AdKey>>, DatabaseError> {
        let mut file = self.file.lock().await;
        match ads::table.filter(ads::vin.eq(vin)).load::<AdRow>(&mut file.connection).await {
            Ok(rows) => Ok(rows.into_iter().map(Ad::try_from).collect()),
            // The vin is unique, so this is the only row.
            Err(Error::DeserializationError(error)) => {
                Ok(vec![Err(Unreadable { id: format!("the ad of {vin:?}"), reason: error.to_string() })])
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn page(
    connection: &mut SyncConnectionWrapper<SqliteConnection>,
    request: &PageRequest<AdKey>,
) -> Result<Rows<Ad, AdKey>, DatabaseError> {
    let page = || {
        let page = ads::table
            .filter(ads::id.gt(request.after.clone().unwrap_or_default()))
            // Values that are not texts sort after all texts.
            .filter(ads::id.lt(sql::<Text>("x''")))
            .order(ads::id)
            .limit(i64::try_from(request.fetch_limit()).unwrap_or(i64::MAX))
            .into_boxed();
        match &request.vin {
            Some(vin) => page.filter(ads::vin.eq(vin.as_str())),
            None => page,
        }
    };
    let sizes: Vec<(String, i64)> = page().select((ads::id, sql::<BigInt>(SIZE))).load(connection).await?;
    let found = sizes.len();
    let mut bytes = 0;
    let fits = |(id, size): (String, i64)| {
        (bytes < MAX_PAGE_BYTES).then(|| {
            bytes = bytes.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
            id
        })
    };
    let ids: Vec<String> = sizes.into_iter().take(request.limit).map_while(fits).collect();
    let more = ids.len() < found;
    let Some(last) = ids.last() else { return Ok(Rows { rows: Vec::new(), more }) };
    let rows = match page().filter(ads::id.le(last.clone())).load::<AdRow>(connection).await {
        Ok(rows) => rows.into_iter().map(Ad::try_from).collect(),
        // A column of some row does not have its type, so each row is read separately.
        Err(Error::DeserializationError(_)) => {
            let mut read = Vec::with_capacity(ids.len());
            for id in ids {
                read.push(match ads::table.find(&id).first::<AdRow>(connection).await {
                    Ok(row) => row.try_into(),
                    Err(Error::DeserializationError(error)) => {
                        Err(Unreadable { id, reason: error.to_string() })
                    }
                    Err(error) => return Err(error.into()),
                });
            }
            read
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Rows { rows, more })
}

/// Inserts rows in one transaction, whose errors do not identify a row.
///
/// # Errors
/// Returns the error of the insert rather than that of the rollback, as [`transaction`](crate::database::sqlite::transaction)
/// does.
async fn insert_together(
    file: Arc<Mutex<SqliteFile>>,
    rows: Vec<AdRow>,
) -> Result<Vec<Insertion>, DatabaseError> {
    let mut file = in_time(async { Ok(file.lock().await) }).await?;
    let mut cause = None;
    let insert_all = async |connection: &mut _| {
        let mut insertions = Vec::with_capacity(rows.len());
        // diesel-async cannot insert several rows into SQLite in one statement.
        for row in rows {
            let insert = diesel::insert_into(ads::table).values(row).on_conflict(ads::vin).do_nothing();
            match insert.execute(connection).await {
                Ok(1) => insertions.push(Insertion::Kept),
                Ok(_) => insertions.push(Insertion::Known),
                Err(error) => {
                    cause = Some(error);
                    return Err(Error::RollbackTransaction);
                }
            }
        }
        Ok(insertions)
    };
    let done = file.connection.immediate_transaction(insert_all).await;
    done.map_err(|error| cause.unwrap_or(error).into())
}
