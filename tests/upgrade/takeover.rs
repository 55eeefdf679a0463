//! Tests that this release's relay takes over the older release's outbox and publishes each event once.

use crate::database::Database;
use crate::engines::Engines;
use crate::older_release::{OlderRelay, published};
use crate::stock::Stock;
use crate::support::eventually;

/// A row of the outbox: vin and batch.
type Row = (&'static str, Option<i64>);

const BY_OLDER: bool = true;
const BY_THIS: bool = false;

/// A batch that the older release claimed and published.
struct Batch {
    number: i64,
    vins: &'static [&'static str],
}

/// An outbox, and the last batch that the older release published, if any.
struct Left {
    outbox: &'static [Row],
    published: Option<Batch>,
}

/// Starts this release on the older one's state and compares the published events.
async fn takes_over(database: Option<Database>, left: Left, expected: &[(&str, bool)]) {
    let Some(database) = database else { return };
    let engines = Engines::embedded().await;
    database.create_older_tables().await;
    for (vin, batch) in left.outbox {
        database.insert(vin, *batch).await;
    }
    if let Some(Batch { number, vins }) = left.published {
        let relay = OlderRelay::begin(&engines, &database).await;
        relay.send(number, vins).await.commit().await.unwrap();
    }
    run_this_release(&engines, &database).await;
    assert_published(&engines, expected).await;
    // The takeover must not happen again.
    run_this_release(&engines, &database).await;
    assert_published(&engines, expected).await;
    engines.end().await;
    database.clear().await;
}

async fn run_this_release(engines: &Engines, database: &Database) {
    let mut stock = Stock::start_new(engines, &database.url());
    stock.await_published().await;
    assert_eq!(stock.terminate().await.code(), Some(0));
}

async fn assert_published(engines: &Engines, expected: &[(&str, bool)]) {
    let expected: Vec<_> = expected.iter().map(|&(vin, by_older)| (vin.to_owned(), by_older)).collect();
    assert_eq!(published(engines).await, expected);
}

/// Defines one test per engine.
macro_rules! on_both_engines {
    ($($case:ident($left:expr, $expected:expr $(,)?);)+) => {
        mod in_sqlite {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    takes_over(Some(Database::sqlite()), $left, &$expected).await;
                }
            )+
        }
        mod in_postgres {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    takes_over(Database::private_postgres().await, $left, &$expected).await;
                }
            )+
        }
    };
}

on_both_engines! {
    a_claimed_batch_that_was_published_is_not_published_again(
        Left {
            outbox: &[("a", Some(4)), ("b", Some(4)), ("c", None)],
            published: Some(Batch { number: 4, vins: &["a", "b"] }),
        },
        [("a", BY_OLDER), ("b", BY_OLDER), ("c", BY_THIS)],
    );
    a_claimed_batch_that_was_not_published_is_published_once(
        Left {
            outbox: &[("b", Some(4)), ("c", Some(4)), ("d", None)],
            published: Some(Batch { number: 3, vins: &["a"] }),
        },
        [("a", BY_OLDER), ("b", BY_THIS), ("c", BY_THIS), ("d", BY_THIS)],
    );
    the_first_batch_of_all_is_published_once(
        Left { outbox: &[("a", Some(0)), ("b", None)], published: None },
        [("a", BY_THIS), ("b", BY_THIS)],
    );
    of_two_claimed_batches_the_unpublished_one_is_published(
        // Claimed in a different order than inserted.
        Left {
            outbox: &[("a", Some(5)), ("b", Some(4)), ("c", None), ("d", Some(4)), ("e", Some(5))],
            published: Some(Batch { number: 4, vins: &["b", "d"] }),
        },
        [("a", BY_THIS), ("b", BY_OLDER), ("c", BY_THIS), ("d", BY_OLDER), ("e", BY_THIS)],
    );
    unclaimed_events_are_published_once(
        Left { outbox: &[("a", None), ("b", None)], published: None },
        [("a", BY_THIS), ("b", BY_THIS)],
    );
    an_empty_outbox_has_nothing_to_take_over(Left { outbox: &[], published: None }, []);
}

/// The relay of a running older instance has sent its batch but not committed it.
async fn fences_a_relay_that_is_publishing(database: Option<Database>) {
    let Some(database) = database else { return };
    let engines = Engines::embedded().await;
    database.create_older_tables().await;
    for (vin, batch) in [("a", Some(7)), ("b", Some(7)), ("c", None)] {
        database.insert(vin, batch).await;
    }
    let publishing = OlderRelay::begin(&engines, &database).await.send(7, &["a", "b"]).await;
    run_this_release(&engines, &database).await;
    publishing.commit().await.unwrap_err();
    assert_published(&engines, &[("a", BY_THIS), ("b", BY_THIS), ("c", BY_THIS)]).await;
    engines.end().await;
    database.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_publishing_is_fenced_in_postgres() {
    fences_a_relay_that_is_publishing(Database::private_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_publishing_is_fenced_in_sqlite() {
    fences_a_relay_that_is_publishing(Some(Database::sqlite())).await;
}

/// An older instance that is still running accepts vehicles, which this release publishes.
#[tokio::test(flavor = "multi_thread")]
async fn vehicles_that_an_older_instance_accepts_are_published() {
    let Some(database) = Database::private_postgres().await else { return };
    let engines = Engines::embedded().await;
    database.create_older_tables().await;
    database.insert("a", None).await;
    let mut stock = Stock::start_new(&engines, &database.url());
    stock.await_published().await;
    database.insert("b", None).await;
    eventually("both events", async || (published(&engines).await.len() >= 2).then_some(())).await;
    assert_eq!(database.number("SELECT count(*) AS number FROM outbox").await, 0);
    assert_eq!(stock.terminate().await.code(), Some(0));
    assert_published(&engines, &[("a", BY_THIS), ("b", BY_THIS)]).await;
    engines.end().await;
}
