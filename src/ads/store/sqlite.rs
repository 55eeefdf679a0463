//! Ads in a SQLite file, for one process.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::AdStore;
use crate::ads::ad::{Ad, AdId, Offer};
use crate::database::sqlite::{SqliteFile, open};
use crate::database::{Access, DatabaseError, in_time};
use crate::http::PageRequest;
use crate::vehicle::{Odometer, Price, Vin};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("src/ads/migrations/sqlite");

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
        let offer = ad.offer.clone();
        Self {
            id: ad.id.to_string(),
            published_at: ad.published_at,
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

impl TryFrom<AdRow> for Ad {
    type Error = DatabaseError;

    /// Fails only on a row that someone else changed.
    fn try_from(row: AdRow) -> Result<Self, Self::Error> {
        let unreadable =
            |error: String| DatabaseError::internal(anyhow!("a row of ads is unreadable: {error}"));
        let offer = Offer {
            vehicle_id: row.vehicle_id,
            vin: Vin::parse(&row.vin).map_err(unreadable)?,
            model: row.model,
            manufacturer: row.manufacturer,
            year: row.year,
            odometer: Odometer::parse(row.odometer).map_err(unreadable)?,
            odometer_unit: row.odometer_unit,
            price: Price::parse(row.price).map_err(unreadable)?,
            price_unit: row.price_unit,
        };
        let id = Uuid::parse_str(&row.id).map_err(|error| unreadable(error.to_string()))?;
        Ok(Self { id, published_at: row.published_at, offer })
    }
}

/// One connection for all: SQLite lets one write at a time anyway.
pub struct SqliteAds {
    file: Arc<Mutex<SqliteFile>>,
}

impl SqliteAds {
    /// Opens the file; its owner creates it when it is missing.
    ///
    /// # Errors
    /// When it cannot be opened, or another process owns it as well.
    pub async fn open(path: PathBuf, access: Access) -> anyhow::Result<Self> {
        Ok(Self { file: Arc::new(Mutex::new(open(path, MIGRATIONS, access).await?)) })
    }
}

#[async_trait]
impl AdStore for SqliteAds {
    async fn check(&self) -> Result<(), DatabaseError> {
        let mut file = self.file.lock().await;
        ads::table.select(ads::id).first::<String>(&mut file.connection).await.optional()?;
        Ok(())
    }

    async fn insert(&self, new: &[Ad]) -> Result<usize, DatabaseError> {
        let file = Arc::clone(&self.file);
        let rows: Vec<AdRow> = new.iter().map(AdRow::from).collect();
        // A task of its own: a caller that goes away must not leave the one connection in mid-transaction.
        let inserted = tokio::spawn(async move {
            let mut file = in_time(async { Ok(file.lock().await) }).await?;
            let insert_all = async |connection: &mut _| {
                let mut inserted = 0;
                // One by one: diesel-async cannot insert several rows at once into SQLite.
                for row in rows {
                    let insert =
                        diesel::insert_into(ads::table).values(row).on_conflict(ads::vin).do_nothing();
                    inserted += insert.execute(connection).await?;
                }
                Ok::<_, DatabaseError>(inserted)
            };
            file.connection.immediate_transaction(insert_all).await
        });
        inserted.await.map_err(DatabaseError::internal)?
    }

    async fn page(&self, request: &PageRequest<AdId>) -> Result<Vec<Ad>, DatabaseError> {
        let after = request.after.map_or_else(String::new, |id| id.to_string());
        let mut file = self.file.lock().await;
        let rows: Vec<AdRow> = ads::table
            .filter(ads::id.gt(after))
            .order(ads::id)
            .limit(i64::try_from(request.fetch_limit()).unwrap_or(i64::MAX))
            .load(&mut file.connection)
            .await?;
        rows.into_iter().map(Ad::try_from).collect()
    }

    async fn get(&self, id: AdId) -> Result<Option<Ad>, DatabaseError> {
        let mut file = self.file.lock().await;
        let row: Option<AdRow> =
            ads::table.find(id.to_string()).first(&mut file.connection).await.optional()?;
        row.map(Ad::try_from).transpose()
    }

    async fn find(&self, vin: &str) -> Result<Vec<Ad>, DatabaseError> {
        let mut file = self.file.lock().await;
        let rows: Vec<AdRow> = ads::table.filter(ads::vin.eq(vin)).load(&mut file.connection).await?;
        rows.into_iter().map(Ad::try_from).collect()
    }
}
