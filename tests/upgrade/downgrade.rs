//! Tests the downgrade: `down.sql` restores the older release's outbox with exactly the unpublished events.

use crate::database::{Database, insertion};
use crate::engines::Engines;
use crate::older_release::published;
use crate::stock::Stock;

const STATE_DOWN: &str = "0004_tracestate/down.sql";
const KEYS_DOWN: &str = "0003_idempotency_key/down.sql";
const DOWN: &str = "0002_event_log/down.sql";

async fn outbox(database: &Database) -> Vec<String> {
    database
        .texts("SELECT vin || ' ' || coalesce(batch || '', 'unclaimed') AS text FROM outbox ORDER BY id")
        .await
}

async fn versions(database: &Database) -> Vec<String> {
    database.texts("SELECT version AS text FROM __diesel_schema_migrations ORDER BY version").await
}

/// Returns a statement that appends an event to the log, as left by a stopped relay.
fn append(vin: &str) -> String {
    format!("INSERT INTO event_log (vin, event, traceparent) VALUES ('{vin}', '{{}}', '');")
}

async fn refills_the_unpublished_events(database: Option<Database>) {
    let Some(database) = database else { return };
    let engines = Engines::embedded().await;
    database.create_older_tables().await;
    database.insert("published", None).await;
    let mut stock = Stock::start_new(&engines, &database.url());
    stock.await_published().await;
    assert_eq!(stock.terminate().await.code(), Some(0));
    database.execute(&[append("b"), append("a")].concat()).await;
    database.execute(&database.script(STATE_DOWN)).await;
    database.execute(&database.script(KEYS_DOWN)).await;
    assert_eq!(versions(&database).await, ["0001", "0002"]);
    database.execute(&database.script(DOWN)).await;
    assert_eq!(outbox(&database).await, ["b unclaimed", "a unclaimed"]);
    assert_eq!(versions(&database).await, ["0001"]);
    // Upgrades again.
    database.execute("DELETE FROM outbox").await;
    database.insert("later", None).await;
    stock.start();
    stock.await_published().await;
    assert_eq!(stock.terminate().await.code(), Some(0));
    let expected = ["later", "published"].map(|vin| (vin.to_owned(), false));
    assert_eq!(published(&engines).await, expected);
    engines.end().await;
    database.clear().await;
}

/// No relay of this release has run, so the claims are restored unchanged.
async fn keeps_claims_that_were_not_resolved(database: Option<Database>) {
    let Some(database) = database else { return };
    database.create_older_tables().await;
    for (vin, batch) in [("a", Some(5)), ("b", None), ("c", Some(4))] {
        database.insert(vin, batch).await;
    }
    database.migrate().await;
    assert_eq!(outbox(&database).await, Vec::<String>::new());
    database.execute(&database.script(DOWN)).await;
    assert_eq!(outbox(&database).await, ["c 4", "a 5", "b unclaimed"]);
    database.clear().await;
}

/// The older release's relay would stop at an event that it cannot encode.
async fn refuses_events_that_could_not_be_encoded(database: Option<Database>) {
    let Some(database) = database else { return };
    database.create_older_tables().await;
    database.insert("a", None).await;
    database.migrate().await;
    database.execute("INSERT INTO relay_failure (log_id, reason) VALUES (1, 'a reason')").await;
    let refused = database.try_execute(&database.script(DOWN)).await.unwrap_err();
    assert!(refused.to_string().contains("relay_failure"), "{refused}");
    assert_eq!(versions(&database).await, ["0001", "0002", "0003", "0004"]);
    assert_eq!(database.texts("SELECT vin AS text FROM event_log").await, ["a"], "nothing was changed");
    database.execute("UPDATE relay_failure SET requeued = true").await;
    database.execute(&database.script(DOWN)).await;
    assert_eq!(outbox(&database).await, ["a unclaimed"]);
    database.migrate().await;
    assert_eq!(versions(&database).await, ["0001", "0002", "0003", "0004"], "both columns are there again");
    database.execute("SELECT idempotency_key, tracestate FROM vehicles, event_log").await;
    database.clear().await;
}

/// The release before the keys accepts vehicles on the new schema, and continues on the restored one.
async fn the_keys_can_be_removed_and_added_again(database: Option<Database>) {
    let Some(database) = database else { return };
    database.migrate().await;
    database.execute(&insertion_without_key("a")).await;
    database.execute("UPDATE vehicles SET idempotency_key = 'key'").await;
    let again = "INSERT INTO vehicles (vin, model, manufacturer, year, odometer, odometer_unit, created_at,
            idempotency_key)
         SELECT 'b', model, manufacturer, year, odometer, odometer_unit, created_at, 'key' FROM vehicles";
    assert!(database.try_execute(again).await.is_err(), "a key is unique");
    database.execute(&database.script(STATE_DOWN)).await;
    database.execute(&database.script(KEYS_DOWN)).await;
    assert_eq!(versions(&database).await, ["0001", "0002"]);
    database.execute(&insertion_without_key("b")).await;
    database.migrate().await;
    assert_eq!(versions(&database).await, ["0001", "0002", "0003", "0004"]);
    let kept = "SELECT vin || coalesce(idempotency_key, '') AS text FROM vehicles ORDER BY id";
    assert_eq!(database.texts(kept).await, ["a", "b"]);
    database.clear().await;
}

/// Returns the statement of a release without the column.
fn insertion_without_key(vin: &str) -> String {
    let insertion = insertion(vin, None);
    let (vehicle, _) = insertion.split_once(';').unwrap();
    format!("{vehicle} ON CONFLICT (vin) DO NOTHING")
}

/// Defines one test per engine.
macro_rules! on_both_engines {
    ($($case:ident,)+) => {
        mod in_sqlite {
            use super::Database;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    super::$case(Some(Database::sqlite())).await;
                }
            )+
        }
        mod in_postgres {
            use super::Database;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    super::$case(Database::private_postgres().await).await;
                }
            )+
        }
    };
}

on_both_engines! {
    refills_the_unpublished_events,
    keeps_claims_that_were_not_resolved,
    refuses_events_that_could_not_be_encoded,
    the_keys_can_be_removed_and_added_again,
}
