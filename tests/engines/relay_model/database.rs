//! Provides databases that can be copied, restored and rolled back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use tempfile::TempDir;
use uuid::Uuid;
use vehicle_platform::database::Access;
use vehicle_platform::stock::vehicle_store::{self, VehicleStore};

use crate::support::engines::answer;

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    text: String,
}

enum Engine {
    Sqlite(PathBuf),
    Postgres { server: String, name: String },
}

/// A database that is open or can be reopened.
pub struct Database {
    engine: Engine,
    store: Option<Arc<dyn VehicleStore>>,
}

/// Creates databases on one engine.
pub struct Maker {
    server: String,
    directory: TempDir,
    made: Vec<String>,
}

impl Maker {
    pub fn new(engine: &str) -> Self {
        // Prefers memory if possible, as flushing to disk adds nothing to this test.
        let memory = Path::new("/dev/shm");
        let directory =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        Self { server: engine.to_owned(), directory, made: Vec::new() }
    }

    fn fresh(&mut self) -> Engine {
        let name = format!("model_{}", Uuid::now_v7().simple());
        self.made.push(name.clone());
        match self.server.as_str() {
            "sqlite" => Engine::Sqlite(self.directory.path().join(name)),
            server => Engine::Postgres { server: server.to_owned(), name },
        }
    }

    pub async fn create(&mut self) -> Database {
        let engine = self.fresh();
        if let Engine::Postgres { server, name } = &engine {
            postgres(server, &format!("CREATE DATABASE {name}")).await;
        }
        let mut database = Database { engine, store: None };
        database.open().await;
        database
    }

    /// Copies a database, whose relays must be suspended.
    pub async fn copy(&mut self, original: &mut Database) -> Database {
        let engine = self.fresh();
        match (&original.engine, &engine) {
            (Engine::Sqlite(from), Engine::Sqlite(to)) => {
                sqlite(from, &format!("VACUUM INTO '{}'", to.display()));
            }
            (Engine::Postgres { server, name: from }, Engine::Postgres { name: to, .. }) => {
                // A template must have no connections.
                original.store = None;
                postgres(server, &format!("ALTER DATABASE {from} WITH ALLOW_CONNECTIONS false")).await;
                let end = format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{from}'"
                );
                postgres(server, &end).await;
                retry(|| postgres_try(server, format!("CREATE DATABASE {to} TEMPLATE {from}"))).await;
                for name in [from, to] {
                    postgres(server, &format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")).await;
                }
            }
            _ => panic!("both use the same engine"),
        }
        Database { engine, store: None }
    }

    /// Removes the created databases.
    pub async fn clear(self) {
        if self.server != "sqlite" {
            for name in &self.made {
                postgres(&self.server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
            }
        }
    }
}

impl Database {
    pub async fn open(&mut self) {
        let url = match &self.engine {
            Engine::Sqlite(path) => format!("sqlite:{}", path.display()),
            Engine::Postgres { server, name } => format!("{}/{name}", server.rsplit_once('/').unwrap().0),
        };
        let store = vehicle_store::open(&url.parse().unwrap(), Access::Owner).await.unwrap();
        answer(async || store.check().await).await;
        self.store = Some(store);
    }

    pub async fn store(&mut self) -> Arc<dyn VehicleStore> {
        if self.store.is_none() {
            self.open().await;
        }
        Arc::clone(self.store.as_ref().unwrap())
    }

    pub fn close(&mut self) {
        self.store = None;
    }

    async fn execute(&self, statements: &str) {
        match &self.engine {
            Engine::Sqlite(path) => sqlite(path, statements),
            Engine::Postgres { server, name } => {
                let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
                postgres(&url, statements).await;
            }
        }
    }

    async fn rows(&self, query: &str) -> Vec<Row> {
        match &self.engine {
            Engine::Sqlite(path) => {
                diesel::RunQueryDsl::load(diesel::sql_query(query), &mut open_sqlite(path)).unwrap()
            }
            Engine::Postgres { server, name } => {
                let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
                let mut connection = AsyncPgConnection::establish(&url).await.unwrap();
                diesel_async::RunQueryDsl::load(diesel::sql_query(query), &mut connection).await.unwrap()
            }
        }
    }

    /// Returns the id, `event_id` and vin of each event in the log.
    pub async fn events(&self) -> Vec<(i64, String, String)> {
        let rows = self.rows("SELECT id, event_id || ' ' || vin AS text FROM event_log ORDER BY id").await;
        rows.into_iter()
            .map(|row| {
                let (event_id, vin) = row.text.split_once(' ').unwrap();
                (row.id, event_id.to_owned(), vin.to_owned())
            })
            .collect()
    }

    pub async fn identity(&self) -> String {
        self.rows("SELECT epoch AS id, identity AS text FROM relay_lease").await.remove(0).text
    }

    /// Returns a statement that resets the lease to its current state.
    pub async fn lease_statement(&self) -> String {
        let row = self
            .rows(
                "SELECT epoch AS id, 'UPDATE relay_lease SET identity = ''' || identity || ''', holder = '
                    || COALESCE('''' || holder || '''', 'NULL') || ', epoch = ' || epoch || ', beat = ' || beat AS text
                 FROM relay_lease",
            )
            .await
            .remove(0);
        row.text
    }

    /// Simulates a failover to a server that lacks the events after `kept`, whose ids are drawn again. The server has
    /// the record of a failure at least when it has a later position, which was written afterwards.
    pub async fn lose_events_after(&self, kept: i64) {
        self.execute(&format!(
            "UPDATE relay_failure SET requeued = false WHERE NOT EXISTS (
                SELECT 1 FROM event_log AS again JOIN event_log AS failed ON again.vin = failed.vin AND again.id > failed.id
                WHERE failed.id = log_id AND again.id <= {kept});
             DELETE FROM relay_failure WHERE log_id > {kept}
                OR log_id > COALESCE((SELECT max(last_id) FROM relay_position), 0);
             DELETE FROM vehicles WHERE vin IN (SELECT vin FROM event_log WHERE id > {kept});
             DELETE FROM event_log WHERE id > {kept};
             UPDATE relay_position SET last_id = {kept} WHERE last_id > {kept};"
        ))
        .await;
        match &self.engine {
            Engine::Sqlite(_) => {
                self.execute(&format!("UPDATE sqlite_sequence SET seq = {kept} WHERE name = 'event_log'"))
                    .await;
            }
            // Resets the sequence to its first value, below existing ids, which the trigger must detect.
            Engine::Postgres { .. } => self.execute("SELECT setval('event_log_id_seq', 1, false)").await,
        }
    }

    pub async fn set_lease(&self, statement: &str) {
        self.execute(statement).await;
    }
}

fn open_sqlite(path: &Path) -> SqliteConnection {
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
    connection
}

fn sqlite(path: &Path, statements: &str) {
    open_sqlite(path).batch_execute(statements).unwrap();
}

async fn postgres(url: &str, statements: &str) {
    postgres_try(url, statements.to_owned()).await.unwrap();
}

async fn postgres_try(url: &str, statements: String) -> QueryResult<()> {
    let mut connection = AsyncPgConnection::establish(url).await.unwrap();
    connection.batch_execute(&statements).await
}

/// Retries because the server takes a moment to notice closed connections.
async fn retry<F: Future<Output = QueryResult<()>>>(mut work: impl FnMut() -> F) {
    crate::support::eventually("the database to be free", async || work().await.ok()).await;
}
