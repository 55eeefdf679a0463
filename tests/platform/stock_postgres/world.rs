//! Provides a separate database and topics for each test, and records the accepted vehicles.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};

use rdkafka::Message as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Mutex as AsyncMutex;
use tokio_postgres::{NoTls, SimpleQueryMessage};
use uuid::Uuid;

use super::stock::{Answer, Stock};
use crate::support::kafka::read_all;
use crate::support::postgres::{Options, PASSWORD, Server};
use crate::support::{Platform, assert_same, eventually, vehicle};

/// Kafka and the registry, shared by concurrent tests.
static KAFKA: AsyncMutex<Weak<Platform>> = AsyncMutex::const_new(Weak::new());
/// A server for tests that do not change it.
static SERVER: AsyncMutex<Weak<Server>> = AsyncMutex::const_new(Weak::new());

pub struct World {
    kafka: Arc<Platform>,
    pub server: Arc<Server>,
    pub database: String,
    /// The vins of the vehicles that were answered with 201, or with 409 after a request that may have been served.
    accepted: Mutex<BTreeSet<String>>,
}

impl World {
    /// Creates a database on the shared server. Reports and returns `None` when the test is skipped.
    pub async fn shared() -> Option<Self> {
        Self::shared_in("").await
    }

    /// Creates a database as [`Self::shared`] does, with `clause` in the statement that creates it.
    pub async fn shared_in(clause: &str) -> Option<Self> {
        let mut shared = SERVER.lock().await;
        let server = match shared.upgrade() {
            Some(server) => server,
            None => Arc::new(Server::start().await?),
        };
        *shared = Arc::downgrade(&server);
        drop(shared);
        Some(Self::on(server, clause).await)
    }

    /// Creates a database on a private server.
    pub async fn alone(options: Options<'_>) -> Option<Self> {
        Some(Self::on(Arc::new(Server::start_as(options).await?), "").await)
    }

    async fn on(server: Arc<Server>, clause: &str) -> Self {
        let mut shared = KAFKA.lock().await;
        let kafka = match shared.upgrade() {
            Some(kafka) => kafka,
            None => Arc::new(Platform::start(&["--roles", "none"]).await),
        };
        *shared = Arc::downgrade(&kafka);
        drop(shared);
        let database = format!("stock_{}", Uuid::now_v7().simple());
        let operator = Sql::connect(&server.url("127.0.0.1", "postgres")).await;
        operator.run(&format!("CREATE ROLE {database} LOGIN PASSWORD '{PASSWORD}'")).await;
        operator.run(&format!("CREATE DATABASE {database} OWNER {database} {clause}")).await;
        Self { kafka, server, database, accepted: Mutex::default() }
    }

    /// Returns the URL of the database for the product. The user has the same name as the database.
    pub fn url(&self) -> String {
        self.url_at(&format!("127.0.0.1:{}", self.server.port()), "")
    }

    pub fn url_at(&self, authority: &str, options: &str) -> String {
        let (database, password) = (&self.database, PASSWORD.replace('%', "%25"));
        format!("postgres://{database}:{password}@{authority}/{database}{options}")
    }

    /// Opens a connection as the superuser.
    pub async fn operator(&self) -> Sql {
        Sql::connect(&self.server.url("127.0.0.1", &self.database)).await
    }

    pub fn kafka(&self) -> &str {
        self.kafka.kafka()
    }

    pub fn registry(&self) -> &str {
        self.kafka.registry()
    }

    /// Starts an instance that reaches the database directly.
    pub async fn stock(&self) -> Stock {
        self.stock_at(&self.url()).await
    }

    pub async fn stock_at(&self, url: &str) -> Stock {
        self.stock_with(url, self.kafka(), self.registry()).await
    }

    pub async fn stock_with(&self, url: &str, kafka: &str, registry: &str) -> Stock {
        let prefix = format!("{}.", self.database);
        Stock::start(&[
            "stock",
            "--port",
            "0",
            "--database-url",
            url,
            "--kafka-bootstrap-servers",
            kafka,
            "--schema-registry-url",
            registry,
            "--kafka-prefix",
            &prefix,
            "--topic-partitions",
            "1",
            "--topic-replication-factor",
            "1",
            "--topic-min-insync-replicas",
            "1",
        ])
        .await
    }

    /// Posts a vehicle and records it when it is accepted.
    pub async fn post(&self, stock: &Stock, vin: &str) -> Answer {
        let answer = stock.post_vin(vin).await;
        if answer.is_created() {
            self.note(vin);
        }
        answer
    }

    pub fn note(&self, vin: &str) {
        assert!(self.accepted.lock().unwrap().insert(vin.to_owned()), "{vin} was accepted twice");
    }

    /// Posts a vehicle that must be accepted immediately.
    pub async fn accept(&self, stock: &Stock, vin: &str) {
        let answer = self.post(stock, vin).await;
        assert!(answer.is_created(), "{vin}: {answer:?}\n{}", stock.log());
    }

    /// Posts a vehicle until it is accepted. Until then, every answer must be a valid 503.
    pub async fn accept_eventually(&self, stock: &Stock, vin: &str) {
        eventually(&format!("{vin} to be accepted"), async || {
            let answer = stock.post_vin(vin).await;
            match answer.status {
                StatusCode::CREATED | StatusCode::CONFLICT => Some(()),
                _ => {
                    answer.assert_unavailable();
                    None
                }
            }
        })
        .await;
        self.note(vin);
    }

    /// Posts vehicles until a request is refused.
    pub async fn await_refusal(&self, stock: &Stock, stem: &str) {
        let mut number = 0;
        eventually("a POST to be refused", async || {
            number += 1;
            let answer = self.post(stock, &format!("{stem}-{number}")).await;
            if answer.is_created() {
                return None;
            }
            answer.assert_unavailable();
            Some(())
        })
        .await;
    }

    /// Waits until everything in the event log is in the topic. Then checks that each vehicle has one event, each
    /// event has one record, and no accepted vehicle is missing.
    pub async fn audit(&self) {
        let sql = self.operator().await;
        eventually("the log to be published", async || {
            let left = "SELECT count(*) FROM event_log
                WHERE id > (SELECT COALESCE(max(last_id), 0) FROM relay_position)";
            (sql.ask(left).await == "0").then_some(())
        })
        .await;
        let records = read_all(self.kafka(), &format!("{}.stock.vehicle-created", self.database)).await;
        let published: Vec<_> =
            records.iter().map(|record| String::from_utf8(record.key().unwrap().to_vec()).unwrap()).collect();
        assert_same(published, sql.column("SELECT vin FROM event_log").await);
        let repeated = "SELECT vin || ' x' || count(*) FROM event_log GROUP BY vin HAVING count(*) > 1";
        assert_eq!(sql.column(repeated).await, [""; 0], "vehicles with several events");
        let kept: BTreeSet<_> = sql.column("SELECT vin FROM event_log").await.into_iter().collect();
        let accepted = self.accepted.lock().unwrap().clone();
        let lost: Vec<_> = accepted.difference(&kept).collect();
        assert!(lost.is_empty(), "accepted but lost: {lost:?}");
        let silent =
            "SELECT vin FROM vehicles WHERE vin NOT LIKE 'foreign-%' EXCEPT SELECT vin FROM event_log";
        assert_eq!(sql.column(silent).await, [""; 0], "vehicles without an event");
    }

    /// Returns how many connections of the product are in a transaction.
    pub async fn open_transactions(&self, sql: &Sql) -> String {
        let open = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE usename = '{}' AND (state LIKE 'idle in transaction%' OR xact_start < now() - interval '2 s')",
            self.database
        );
        sql.ask(&open).await
    }
}

/// Returns a vehicle with another `model`.
pub fn vehicle_of(vin: &str, model: &str) -> Value {
    let mut vehicle = vehicle(vin);
    vehicle["model"] = json!(model);
    vehicle
}

/// A connection like psql's.
pub struct Sql(pub tokio_postgres::Client);

impl Sql {
    pub async fn connect(url: &str) -> Self {
        let mut config: tokio_postgres::Config = url.parse().unwrap();
        config.application_name("psql");
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    /// Runs statements that must succeed.
    pub async fn run(&self, sql: &str) {
        self.try_run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub async fn try_run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.0.batch_execute(sql).await
    }

    /// Returns the first column of all rows.
    pub async fn column(&self, sql: &str) -> Vec<String> {
        let answer = self.0.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let value = |message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        };
        answer.into_iter().filter_map(value).collect()
    }

    /// Returns the first column of the only row.
    pub async fn ask(&self, sql: &str) -> String {
        let mut column = self.column(sql).await;
        assert_eq!(column.len(), 1, "{sql}");
        column.remove(0)
    }
}
