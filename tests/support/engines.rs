//! Provides separate databases for a test, on the available engines.

use std::io::Write as _;
use std::path::PathBuf;

use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use mongodb::bson::{Document, doc};
use tempfile::TempDir;
use uuid::Uuid;
use vehicle_platform::ads::Offer;
use vehicle_platform::database::{DatabaseError, DatabaseUrl};
use vehicle_platform::vehicle::{PlainVehicle, Price};

use super::{eventually, vehicle};

/// Returns the address of an engine. Reports that the test is skipped and returns `None` when the variable is not
/// set.
///
/// # Panics
/// Panics when `REQUIRE_ENGINES=1` and the variable is not set.
pub fn address(engine: &str, variable: &str) -> Option<String> {
    let address = std::env::var(variable).ok().filter(|address| !address.is_empty());
    if address.is_none() {
        let required = std::env::var("REQUIRE_ENGINES").is_ok_and(|value| value == "1");
        assert!(!required, "REQUIRE_ENGINES=1, but {variable} with the address of {engine} is not set");
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        // The output of eprintln is not shown for tests that pass.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "skipped {test}: {variable} with the address of {engine} is not set").unwrap();
    }
    address
}

/// Repeats a call that a busy server does not answer in time.
///
/// # Panics
/// Panics when the call fails for another reason, or too often.
pub async fn answer<T>(mut call: impl AsyncFnMut() -> Result<T, DatabaseError>) -> T {
    eventually("the database to answer", async || match call().await {
        Err(DatabaseError::Unavailable(_)) => None,
        answer => Some(answer.unwrap()),
    })
    .await
}

/// Returns the content of an ad for `vin`.
pub fn offer(vin: &str) -> Offer {
    let vehicle: PlainVehicle = serde_json::from_value(vehicle(vin)).unwrap();
    Offer {
        vehicle_id: Some(7),
        vehicle: PlainVehicle { odometer: 1000.5, ..vehicle },
        price: Price::from_cents(1_234_567),
        price_unit: "USD".to_owned(),
    }
}

fn fresh_name() -> String {
    format!("test_{}", Uuid::now_v7().simple())
}

/// A temporary directory.
pub struct Directory(TempDir);

impl Directory {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub async fn clear(self) {}
}

/// An empty PostgreSQL database.
pub struct PostgresDatabase {
    server: String,
    name: String,
    url: DatabaseUrl,
}

impl PostgresDatabase {
    pub async fn create() -> Option<Self> {
        let server = address("PostgreSQL", "TEST_POSTGRES_URL")?;
        let name = fresh_name();
        execute(&server, &format!("CREATE DATABASE {name}")).await;
        let (base, _) = server.rsplit_once('/').unwrap();
        let url = format!("{base}/{name}").parse().unwrap();
        Some(Self { server, name, url })
    }

    pub fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    pub async fn clear(self) {
        self.drop_database().await;
    }

    pub async fn drop_database(&self) {
        execute(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

async fn execute(server: &str, statement: &str) {
    let mut connection = AsyncPgConnection::establish(server).await.unwrap();
    diesel::sql_query(statement).execute(&mut connection).await.unwrap();
}

/// An empty MongoDB database.
pub struct MongoDatabase {
    url: DatabaseUrl,
}

impl MongoDatabase {
    pub async fn create() -> Option<Self> {
        let server = address("MongoDB", "TEST_MONGODB_URL")?;
        let (base, options) =
            server.split_once('?').map_or((server.as_str(), ""), |(base, options)| (base, options));
        let url = format!("{}/{}?{options}", base.trim_end_matches('/'), fresh_name());
        Some(Self { url: url.parse().unwrap() })
    }

    pub fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    pub async fn clear(self) {
        self.drop_database().await;
    }

    /// Configures the server to refuse documents of a collection that do not match.
    pub async fn validate(&self, collection: &str, validator: Document) {
        let client = mongodb::Client::with_uri_str(self.url.as_str()).await.unwrap();
        let command = doc! { "collMod": collection, "validator": validator };
        client.default_database().unwrap().run_command(command).await.unwrap();
    }

    pub async fn drop_database(&self) {
        let client = mongodb::Client::with_uri_str(self.url.as_str()).await.unwrap();
        client.default_database().unwrap().drop().await.unwrap();
    }
}
