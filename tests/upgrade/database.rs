//! Provides a separate database for a test, on either engine.

use std::path::PathBuf;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use tempfile::TempDir;
use vehicle_platform::database::Access;
use vehicle_platform::stock::vehicle_store;

use crate::support::engines::PostgresDatabase;
use crate::support::eventually;
use crate::support::postgres::Server;
use crate::support::vehicle;

/// Diesel's journal of migrations.
const JOURNAL: &str = "CREATE TABLE __diesel_schema_migrations (
    version VARCHAR(50) PRIMARY KEY NOT NULL, run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP);
    INSERT INTO __diesel_schema_migrations (version) VALUES ('0001');";

/// The creation time of vehicles, in a format that both engines accept.
const CREATED_AT: &str = "2026-01-01 00:00:00+00:00";

#[derive(QueryableByName)]
struct TextRow {
    #[diesel(sql_type = Text)]
    text: String,
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

enum Engine {
    Sqlite {
        path: PathBuf,
        _directory: TempDir,
    },
    /// A private server, or the one from the environment.
    Private(Server),
    Shared(PostgresDatabase),
}

pub struct Database(Engine);

impl Database {
    /// Creates an empty SQLite file.
    pub fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self(Engine::Sqlite { path: directory.path().join("stock.db"), _directory: directory })
    }

    /// Creates an empty database on a private server. Reports and returns `None` when PostgreSQL is not installed.
    pub async fn private_postgres() -> Option<Self> {
        Some(Self(Engine::Private(Server::start().await?)))
    }

    /// Creates an empty database on the server from the environment, or else on a private one.
    pub async fn postgres() -> Option<Self> {
        if std::env::var("TEST_POSTGRES_URL").is_ok_and(|url| !url.is_empty()) {
            return Some(Self(Engine::Shared(PostgresDatabase::create().await?)));
        }
        Self::private_postgres().await
    }

    pub fn url(&self) -> String {
        match &self.0 {
            Engine::Sqlite { path, .. } => format!("sqlite:{}", path.display()),
            Engine::Private(server) => server.url("127.0.0.1", "postgres"),
            Engine::Shared(database) => database.url().as_str().to_owned(),
        }
    }

    /// Returns a migration script of the engine.
    pub fn script(&self, name: &str) -> String {
        let engine = if matches!(self.0, Engine::Sqlite { .. }) { "sqlite" } else { "postgres" };
        let path = format!("{}/src/stock/migrations/{engine}/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    }

    /// Creates the tables of the older release in an empty database.
    pub async fn create_older_tables(&self) {
        self.execute(&self.script("0001_vehicles/up.sql")).await;
        self.execute(JOURNAL).await;
    }

    /// Runs this release's migrations without a relay.
    pub async fn migrate(&self) {
        let store = vehicle_store::open(&self.url().parse().unwrap(), Access::Owner).await.unwrap();
        eventually("the migration to end", async || store.check().await.ok()).await;
    }

    /// Inserts a vehicle and its event as the older release does.
    pub async fn insert(&self, vin: &str, batch: Option<i64>) {
        self.execute(&insertion(vin, batch)).await;
    }

    pub async fn execute(&self, statements: &str) {
        self.try_execute(statements).await.unwrap();
    }

    /// Runs statements in one batch, as a client program does.
    pub async fn try_execute(&self, statements: &str) -> QueryResult<()> {
        match &self.0 {
            Engine::Sqlite { .. } => self.sqlite_connection().batch_execute(statements),
            Engine::Private(_) | Engine::Shared(_) => self.connect().await.batch_execute(statements).await,
        }
    }

    /// Returns the column `text` of a query.
    pub async fn texts(&self, query: &str) -> Vec<String> {
        let query = diesel::sql_query(query);
        let rows: Vec<TextRow> = match &self.0 {
            Engine::Sqlite { .. } => query.load(&mut self.sqlite_connection()).unwrap(),
            Engine::Private(_) | Engine::Shared(_) => {
                diesel_async::RunQueryDsl::load(query, &mut self.connect().await).await.unwrap()
            }
        };
        rows.into_iter().map(|row| row.text).collect()
    }

    /// Returns the number in the column `number` of a query on PostgreSQL.
    pub async fn number(&self, query: &str) -> i64 {
        let query = diesel::sql_query(query);
        let row: NumberRow =
            diesel_async::RunQueryDsl::get_result(query, &mut self.connect().await).await.unwrap();
        row.number
    }

    /// Opens a connection to PostgreSQL.
    pub async fn connect(&self) -> AsyncPgConnection {
        AsyncPgConnection::establish(&self.url()).await.unwrap()
    }

    fn sqlite_connection(&self) -> SqliteConnection {
        let Engine::Sqlite { path, .. } = &self.0 else { panic!("not a file") };
        let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 5000;").unwrap();
        connection
    }

    /// Removes the database from the server of the environment.
    pub async fn clear(self) {
        if let Engine::Shared(database) = self.0 {
            database.clear().await;
        }
    }
}

/// Returns the statements of the older release that insert a vehicle and claim its event for a batch.
pub fn insertion(vin: &str, batch: Option<i64>) -> String {
    let mut event = vehicle(vin);
    event["id"] = 1.into();
    let batch = batch.map_or("NULL".to_owned(), |batch| batch.to_string());
    format!(
        "INSERT INTO vehicles (vin, model, manufacturer, year, odometer, odometer_unit, created_at)
            VALUES ('{vin}', 'model', 'manufacturer', 2022, 1000, 'odometerUnit', '{CREATED_AT}');
         INSERT INTO outbox (vin, event, traceparent, batch) VALUES ('{vin}', '{event}', '', {batch});"
    )
}
