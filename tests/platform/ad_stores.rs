//! Tests how the ad stores handle an ad that their database refuses and data that another program wrote.
//!
//! MongoDB is expected at `TEST_MONGODB_URL`. Without it, its tests report that and pass, or fail when
//! `REQUIRE_ENGINES=1`.

use crate::support;
use crate::support::engines::{Directory, MongoDatabase, offer};
use crate::support::kafka::{header, read_all};
use crate::support::{Platform, RoleProcess, eventually};
use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use futures::TryStreamExt as _;
use mongodb::Database;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use uuid::Uuid;
use vehicle_platform::ads::Ad;
use vehicle_platform::ads::ad_store::{AdStore, Insertion, MongoAds, SqliteAds};
use vehicle_platform::database::{Access, DatabaseError};
use vehicle_platform::page::PageRequest;

fn ad(vin: &str) -> Ad {
    Ad::publish(Uuid::now_v7(), offer(vin))
}

async fn vins_of(store: &dyn AdStore) -> Vec<String> {
    let rows = store.page(&PageRequest::new(1_000, None)).await.unwrap().rows;
    rows.into_iter().map(|row| row.unwrap().offer.vehicle.vin).collect()
}

/// Reads all pages of one row each. Returns the vins of the ads and the keys of unreadable rows.
async fn walk(store: &dyn AdStore) -> (Vec<String>, Vec<String>) {
    let (mut vins, mut unreadable) = (Vec::new(), Vec::new());
    let mut after = None;
    loop {
        let page = store.page(&PageRequest::new(1, after)).await.unwrap().rows;
        let Some(row) = page.into_iter().next() else { return (vins, unreadable) };
        after = Some(match row {
            Ok(ad) => {
                vins.push(ad.offer.vehicle.vin);
                ad.id.to_string()
            }
            Err(row) => {
                unreadable.push(row.id.clone());
                row.id
            }
        });
    }
}

fn assert_refused(insertion: &Insertion) {
    assert!(matches!(insertion, Insertion::Refused(_)), "{insertion:?}");
}

async fn mongodb() -> Option<(MongoAds, Database, MongoDatabase)> {
    let engine = MongoDatabase::create().await?;
    let store = MongoAds::new(engine.url()).await.unwrap();
    store.check().await.unwrap();
    let client = mongodb::Client::with_uri_str(engine.url().as_str()).await.unwrap();
    let database = client.default_database().unwrap();
    Some((store, database, engine))
}

#[tokio::test]
async fn an_ad_too_large_for_mongodb_is_refused_and_its_batch_is_stored() {
    let Some((store, _, engine)) = mongodb().await else { return };
    let mut ads: Vec<_> = (0..20).map(|number| ad(&format!("vin-{number}"))).collect();
    for large in [3, 19] {
        ads[large].offer.vehicle.model = "x".repeat(17_500_000);
    }
    let insertions = store.insert(&ads).await;
    for (number, insertion) in insertions.iter().enumerate() {
        match number {
            3 | 19 => assert_refused(insertion),
            _ => assert!(matches!(insertion, Insertion::Kept | Insertion::Known), "{number}: {insertion:?}"),
        }
    }
    assert_eq!(vins_of(&store).await.len(), 18);
    engine.clear().await;
}

#[tokio::test]
async fn an_ad_that_a_validator_or_another_index_refuses_does_not_fail_others() {
    let Some((store, database, engine)) = mongodb().await else { return };
    let validator = doc! { "collMod": "ads", "validator": { "year": { "$lt": 2000 } } };
    database.run_command(validator).await.unwrap();
    let mut ads = ["old", "new", "older"].map(ad).to_vec();
    ads[0].offer.vehicle.year = 1999;
    ads[2].offer.vehicle.year = 1900;
    let insertions = store.insert(&ads).await;
    assert_eq!((&insertions[0], &insertions[2]), (&Insertion::Kept, &Insertion::Kept));
    assert_refused(&insertions[1]);

    let index = doc! { "createIndexes": "ads", "indexes": [{ "key": { "year": 1 }, "name": "year", "unique": true }] };
    database.run_command(index).await.unwrap();
    let mut ads = ["same-year", "old", "other-year"].map(ad).to_vec();
    for (ad, year) in ads.iter_mut().zip([1999, 1999, 1998]) {
        ad.offer.vehicle.year = year;
    }
    let insertions = store.insert(&ads).await;
    assert_eq!((&insertions[1], &insertions[2]), (&Insertion::Known, &Insertion::Kept));
    assert_refused(&insertions[0]);
    engine.clear().await;
}

#[tokio::test]
async fn foreign_documents_in_mongodb_are_skipped_and_identified() {
    let Some((store, database, engine)) = mongodb().await else { return };
    let ads = ["first", "spoiled", "last"].map(ad);
    store.insert(&ads).await;
    let collection = database.collection::<Document>("ads");
    let spoiled = ads[1].id.to_string();
    let update = doc! { "$set": { "price": "cheap" } };
    collection.update_one(doc! { "_id": &spoiled }, update).await.unwrap();
    collection.insert_one(doc! { "_id": ObjectId::new(), "vin": "foreign" }).await.unwrap();
    collection.insert_one(doc! { "_id": 7, "vin": "number" }).await.unwrap();
    collection.insert_one(doc! { "_id": "zebra", "publishedAt": DateTime::MAX }).await.unwrap();
    let (vins, unreadable) = walk(&store).await;
    assert_eq!(vins, ["first", "last"]);
    assert_eq!(unreadable, [spoiled, "zebra".to_owned()]);
    assert_eq!(store.newest().await.unwrap(), Some(ads[2].id));
    let strays = store.strays(10).await.unwrap();
    assert_eq!(strays.len(), 2, "{strays:?}");
    assert!(strays.iter().any(|stray| stray.to_string().contains("foreign")), "{strays:?}");
    assert_eq!(store.strays(1).await.unwrap().len(), 1);
    assert!(matches!(store.get(ads[1].id).await, Err(DatabaseError::Unreadable(_))));
    assert!(store.find("spoiled").await.unwrap()[0].is_err());
    engine.clear().await;
}

#[tokio::test]
async fn a_collection_that_another_program_drops_is_unique_again_before_the_next_insert() {
    let Some((store, database, engine)) = mongodb().await else { return };
    assert_eq!(store.insert(&[ad("before")]).await, [Insertion::Kept]);
    database.collection::<Document>("ads").drop().await.unwrap();
    assert_eq!(store.insert(&[ad("after")]).await, [Insertion::Kept]);
    assert_eq!(store.insert(&[ad("after")]).await, [Insertion::Known]);
    assert_eq!(vins_of(&store).await, ["after"]);
    engine.clear().await;
}

/// A replica set can undo only what is not on a majority of its members.
#[tokio::test]
async fn clients_see_only_what_no_failover_can_undo_and_the_writer_sees_all() {
    let Some((store, database, engine)) = mongodb().await else { return };
    let ad = ad("known");
    assert_eq!(store.insert(std::slice::from_ref(&ad)).await, [Insertion::Kept]);
    database.run_command(doc! { "profile": 2 }).await.unwrap();
    assert_eq!(vins_of(&store).await, ["known"]);
    assert_eq!(store.get(ad.id).await.unwrap().as_ref(), Some(&ad));
    assert_eq!(store.find("known").await.unwrap().len(), 1);
    assert_eq!(store.newest().await.unwrap(), Some(ad.id));
    assert_eq!(store.insert(&[ad]).await, [Insertion::Known]);
    database.run_command(doc! { "profile": 0 }).await.unwrap();
    let finds = doc! { "op": "query", "command.find": "ads" };
    let profile = database.collection::<Document>("system.profile");
    let profile = profile.find(finds).sort(doc! { "$natural": 1 }).await.unwrap();
    let profile: Vec<_> = profile.try_collect().await.unwrap();
    let level = |find: &Document| {
        let concern = find.get_document("command").unwrap().get_document("readConcern").unwrap();
        concern.get_str("level").unwrap().to_owned()
    };
    let levels: Vec<_> = profile.iter().map(level).collect();
    assert_eq!(levels, ["majority", "majority", "majority", "local", "local"]);
    engine.clear().await;
}

/// Connects to a MongoDB that accepts connections and never answers.
#[tokio::test]
async fn a_database_that_never_answers_is_unavailable_in_time() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("mongodb://{}/ads", listener.local_addr().unwrap()).parse().unwrap();
    let store = MongoAds::new(&url).await.unwrap();
    let insertions =
        tokio::time::timeout(support::DEADLINE, store.insert(&["one", "two"].map(ad))).await.unwrap();
    assert_eq!(insertions.len(), 2);
    assert!(
        insertions.iter().all(|insertion| matches!(insertion, Insertion::Unavailable(_))),
        "{insertions:?}"
    );
}

async fn sqlite() -> (SqliteAds, SqliteConnection, Directory) {
    let directory = Directory::new();
    let path = directory.file("ads.db");
    let store = SqliteAds::open(path.clone(), Access::Owner).await.unwrap();
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute("PRAGMA busy_timeout = 5000;").unwrap();
    (store, connection, directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ad_that_sqlite_refuses_does_not_fail_others() {
    let (store, mut connection, _directory) = sqlite().await;
    let index = "CREATE UNIQUE INDEX of_another_program ON ads (year);";
    connection.batch_execute(index).unwrap();
    let mut ads: Vec<_> = (0..9).map(|number| ad(&format!("vin-{number}"))).collect();
    for (number, ad) in (1900..).zip(&mut ads) {
        ad.offer.vehicle.year = number;
    }
    ads[5].offer.vehicle.year = 1900;
    let insertions = store.insert(&ads).await;
    assert_refused(&insertions[5]);
    assert_eq!(
        insertions.iter().filter(|insertion| **insertion == Insertion::Kept).count(),
        8,
        "{insertions:?}"
    );
    assert_eq!(vins_of(&store).await.len(), 8);
}

/// SQLite rolls a transaction back by itself after some errors.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_after_which_sqlite_rolls_back_is_the_one_that_is_reported() {
    let (store, mut connection, _directory) = sqlite().await;
    let trigger = "CREATE TRIGGER of_another_program BEFORE INSERT ON ads WHEN NEW.vin = 'last' BEGIN
        SELECT RAISE(ROLLBACK, 'disk I/O error'); END;";
    connection.batch_execute(trigger).unwrap();
    let insertions = store.insert(&["first", "last"].map(ad)).await;
    let Insertion::Unavailable(reason) = &insertions[1] else { panic!("{insertions:?}") };
    assert!(reason.contains("disk I/O error"), "{reason}");
    connection.batch_execute("DROP TRIGGER of_another_program").unwrap();
    let insertions = store.insert(&["first", "last"].map(ad)).await;
    assert!(
        insertions.iter().all(|insertion| matches!(insertion, Insertion::Kept | Insertion::Known)),
        "{insertions:?}"
    );
    assert_eq!(vins_of(&store).await.len(), 2);
}

/// The ad of an instance whose clock was ahead does not hide later ads from a client that follows the list.
#[tokio::test(flavor = "multi_thread")]
async fn ads_are_listed_after_those_of_an_instance_whose_clock_was_ahead() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    let path = platform.data_dir().join("ads.db");
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection
        .batch_execute(
            "PRAGMA busy_timeout = 5000;
             INSERT INTO ads (id, published_at, vin, model, manufacturer, year, odometer, odometer_unit, price, price_unit)
             VALUES ('03a352ce-9800-7fff-bfff-ffffffffffff', '2096-10-02T07:06:40+00:00', 'ahead', 'm', 'm', 2022, 1, 'km', 1000, 'USD');",
        )
        .unwrap();
    for vin in ["first", "second"] {
        platform.accept(vin).await;
        eventually("its ad", async || {
            let last = platform.ads().await.pop()?;
            (last["vin"] == vin).then_some(())
        })
        .await;
    }
    assert_eq!(platform.ads().await.len(), 3);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_rows_in_sqlite_are_skipped_and_identified() {
    let (store, mut connection, _directory) = sqlite().await;
    let ads = ["first", "priceless", "timeless", "last"].map(ad);
    store.insert(&ads).await;
    connection
        .batch_execute(
            "UPDATE ads SET price = 'cheap' WHERE vin = 'priceless';
             UPDATE ads SET published_at = 'yesterday' WHERE vin = 'timeless';
             CREATE TEMP TABLE stray AS SELECT * FROM ads WHERE vin = 'first';
             UPDATE stray SET id = x'00', vin = 'stray';
             INSERT INTO ads SELECT * FROM stray;",
        )
        .unwrap();
    let (vins, unreadable) = walk(&store).await;
    assert_eq!(vins, ["first", "last"]);
    assert_eq!(unreadable, [ads[1].id.to_string(), ads[2].id.to_string()]);
    assert_eq!(store.newest().await.unwrap(), Some(ads[3].id));
    assert_eq!(store.page(&PageRequest::new(10, None)).await.unwrap().rows.len(), 4);
    assert_eq!(store.strays(10).await.unwrap().len(), 1);
    for unreadable in &ads[1..3] {
        assert!(matches!(store.get(unreadable.id).await, Err(DatabaseError::Unreadable(_))));
        assert!(store.find(&unreadable.offer.vehicle.vin).await.unwrap()[0].is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_ad_the_database_refuses_becomes_a_dead_letter_and_the_others_become_ads() {
    let Some((_, database, engine)) = mongodb().await else { return };
    let validator = doc! { "collMod": "ads", "validator": { "vin": { "$ne": "refused" } } };
    database.run_command(validator).await.unwrap();
    let platform = Platform::start(&["--processing-time", "0s", "--roles", "stock,estimate"]).await;
    let _ads = RoleProcess::spawn(&[
        "ads",
        "--port",
        "0",
        "--database-url",
        engine.url().as_str(),
        "--kafka-bootstrap-servers",
        platform.kafka(),
        "--schema-registry-url",
        platform.registry(),
        "--topic-replication-factor",
        "1",
        "--topic-min-insync-replicas",
        "1",
    ]);
    for vin in ["first", "refused", "second"] {
        platform.accept(vin).await;
    }
    let letters = eventually("the dead letter", async || {
        let letters = read_all(platform.kafka(), "stock.vehicle-processed.dlq").await;
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    let reason = header(&letters[0], "dlq.reason").unwrap();
    assert!(reason.contains("121"), "{reason}");
    let ads = database.collection::<Document>("ads");
    eventually("the other ads", async || (ads.count_documents(doc! {}).await.unwrap() == 2).then_some(()))
        .await;
    platform.end().await;
    engine.clear().await;
}
