//! What every store promises, asked of every store there is.
//!
//! SQLite is always there. PostgreSQL and MongoDB are looked for at `TEST_POSTGRES_URL` and `TEST_MONGODB_URL`;
//! where they are not, their tests say so, and fail when `REQUIRE_ENGINES=1`.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use support::engines;
use vehicle_platform::ads::store::{AdStore, MongoAds, SqliteAds};
use vehicle_platform::ads::{Ad, Offer};
use vehicle_platform::event::VehicleCreated;
use vehicle_platform::http::PageRequest;
use vehicle_platform::stock::store::{Insertion, PostgresVehicles, SqliteVehicles, VehicleStore};
use vehicle_platform::database::Access;
use vehicle_platform::trace::TraceContext;
use vehicle_platform::vehicle::{Odometer, Price, StockedVehicle, Vehicle, VehicleId, Vin, parse_vehicle};

fn vehicle(vin: &str) -> Vehicle {
    parse_vehicle(&support::vehicle(vin), 2026).unwrap()
}

async fn stocked(store: &dyn VehicleStore, vin: &str) -> StockedVehicle {
    match store.insert(&vehicle(vin), TraceContext::new_root()).await.unwrap() {
        Insertion::Stocked(stocked) => stocked,
        Insertion::Exists(id) => panic!("{vin} exists as {id:?}"),
    }
}

fn offer(vin: &str) -> Offer {
    Offer {
        vehicle_id: Some(7),
        vin: Vin::parse(vin).unwrap(),
        model: "model".to_owned(),
        manufacturer: "manufacturer".to_owned(),
        year: 2022,
        odometer: Odometer::parse(1000.5).unwrap(),
        odometer_unit: "km".to_owned(),
        price: Price::from_cents(1_234_567),
        price_unit: "USD".to_owned(),
    }
}

/// What a vehicle store promises.
mod vehicles {
    use super::*;

    pub async fn are_read_back_as_they_were_written(store: &dyn VehicleStore) {
        let stocked = stocked(store, "ünïcode ✓").await;
        assert_eq!(stocked.vehicle, vehicle("ünïcode ✓"));
        assert_eq!(store.get(stocked.id).await.unwrap(), Some(stocked));
        assert_eq!(store.get(VehicleId(i64::MAX)).await.unwrap(), None);
    }

    pub async fn a_vin_is_kept_once_with_one_event(store: &dyn VehicleStore) {
        let first = stocked(store, "once").await;
        let again = store.insert(&vehicle("once"), TraceContext::new_root()).await.unwrap();
        assert_eq!(again, Insertion::Exists(first.id));
        assert_eq!(store.outbox_depth().await.unwrap(), 1);
    }

    pub async fn a_vin_that_is_inserted_at_the_same_time_is_kept_once(store: Arc<dyn VehicleStore>) {
        let insertions = futures::future::join_all((0..16).map(|_| {
            let store = Arc::clone(&store);
            async move { store.insert(&vehicle("race"), TraceContext::new_root()).await.unwrap() }
        }))
        .await;
        let kept = insertions.iter().filter(|insertion| matches!(insertion, Insertion::Stocked(_))).count();
        assert_eq!(kept, 1);
    }

    pub async fn pages_go_from_the_oldest_on(store: &dyn VehicleStore) {
        let mut expected = Vec::new();
        for number in 0..5 {
            expected.push(stocked(store, &format!("page-{number}")).await);
        }
        let first = store.page(&PageRequest { limit: 2, after: None }).await.unwrap();
        assert_eq!(first, expected[..3], "one more than the limit tells that there is more");
        let after = Some(expected[2].id);
        let last = store.page(&PageRequest { limit: 2, after }).await.unwrap();
        assert_eq!(last, expected[3..]);
    }

    pub async fn events_leave_oldest_first_in_batches_that_are_recovered(store: &dyn VehicleStore) {
        let mut expected = Vec::new();
        for number in 0..5 {
            expected.push(VehicleCreated::from(&stocked(store, &format!("event-{number}")).await));
        }
        let mut outbox = store.outbox().await.unwrap().unwrap();
        let events = |entries: Vec<vehicle_platform::stock::store::OutboxEntry>| -> Vec<VehicleCreated> {
            entries.iter().map(|entry| serde_json::from_str(&entry.event).unwrap()).collect()
        };
        assert_eq!(events(outbox.claim(10, 2).await.unwrap()), expected[..2]);
        assert_eq!(events(outbox.claim(11, 2).await.unwrap()), expected[2..4]);
        // The process died; batch 10 is known to be out, 11 is not.
        outbox.recover(11).await.unwrap();
        assert_eq!(store.outbox_depth().await.unwrap(), 3);
        assert_eq!(events(outbox.claim(11, 9).await.unwrap()), expected[2..]);
        outbox.remove(11).await.unwrap();
        assert_eq!(store.outbox_depth().await.unwrap(), 0);
        assert!(outbox.claim(12, 9).await.unwrap().is_empty());
    }

    pub async fn the_outbox_has_one_holder_at_a_time(store: &dyn VehicleStore) {
        let mut held = store.outbox().await.unwrap().unwrap();
        assert!(store.outbox().await.unwrap().is_none());
        let identity = held.identity().await.unwrap();
        drop(held);
        let mut next =
            support::eventually("the outbox to be free", async || store.outbox().await.unwrap()).await;
        assert_eq!(next.identity().await.unwrap(), identity);
    }
}

/// What an ad store promises.
mod ads {
    use super::*;

    pub async fn are_read_back_as_they_were_written(store: &dyn AdStore) {
        let ad = Ad::publish(offer("ünïcode ✓"));
        assert_eq!(store.insert(std::slice::from_ref(&ad)).await.unwrap(), 1);
        assert_eq!(store.get(ad.id).await.unwrap(), Some(ad));
        assert_eq!(store.get(Ad::publish(offer("other")).id).await.unwrap(), None);
        let of_the_original = Offer { vehicle_id: None, ..offer("original") };
        let ad = Ad::publish(of_the_original);
        store.insert(std::slice::from_ref(&ad)).await.unwrap();
        assert_eq!(store.get(ad.id).await.unwrap(), Some(ad));
    }

    pub async fn a_vin_has_one_ad_the_first(store: &dyn AdStore) {
        let first = Ad::publish(offer("once"));
        let again = Ad::publish(Offer { price: Price::from_cents(1), ..offer("once") });
        let other = Ad::publish(offer("other"));
        assert_eq!(store.insert(std::slice::from_ref(&first)).await.unwrap(), 1);
        assert_eq!(store.insert(&[again.clone(), other.clone(), again]).await.unwrap(), 1);
        let all = store.page(&PageRequest { limit: 10, after: None }).await.unwrap();
        assert_eq!(all, [first, other]);
        assert_eq!(store.insert(&[]).await.unwrap(), 0);
    }

    pub async fn pages_go_from_the_oldest_on(store: &dyn AdStore) {
        let expected: Vec<_> = (0..5).map(|number| Ad::publish(offer(&format!("page-{number}")))).collect();
        store.insert(&expected).await.unwrap();
        let first = store.page(&PageRequest { limit: 2, after: None }).await.unwrap();
        assert_eq!(first, expected[..3], "one more than the limit tells that there is more");
        let after = Some(expected[2].id);
        let last = store.page(&PageRequest { limit: 2, after }).await.unwrap();
        assert_eq!(last, expected[3..]);
    }
}

/// Asks all that a store promises of a fresh one each.
macro_rules! contract {
    ($engine:ident, $fresh:path, $store:ty, $contract:ident: $($promise:ident),+ $(,)?) => {
        mod $engine {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $promise() {
                    let Some((store, engine)) = $fresh().await else { return };
                    let store: Arc<$store> = Arc::new(store);
                    store.check().await.unwrap();
                    $contract::$promise(asked(&store)).await;
                    drop(store);
                    engine.clear().await;
                }
            )+
        }
    };
}

/// The one promise that several ask for at a time takes the store shared.
trait Asked<'a, T: ?Sized> {
    fn of(store: &'a Arc<T>) -> Self;
}
impl<'a, T: VehicleStore + 'static> Asked<'a, T> for &'a dyn VehicleStore {
    fn of(store: &'a Arc<T>) -> Self {
        &**store
    }
}
impl<'a, T: VehicleStore + 'static> Asked<'a, T> for Arc<dyn VehicleStore> {
    fn of(store: &'a Arc<T>) -> Self {
        Arc::clone(store) as Self
    }
}
impl<'a, T: AdStore + 'static> Asked<'a, T> for &'a dyn AdStore {
    fn of(store: &'a Arc<T>) -> Self {
        &**store
    }
}
fn asked<'a, T, S: Asked<'a, T>>(store: &'a Arc<T>) -> S {
    S::of(store)
}

async fn sqlite_vehicles() -> Option<(SqliteVehicles, engines::Directory)> {
    let directory = engines::Directory::new();
    let store = SqliteVehicles::open(directory.file("stock.db"), Access::Owner).await.unwrap();
    Some((store, directory))
}

async fn postgres_vehicles() -> Option<(PostgresVehicles, engines::PostgresDatabase)> {
    let database = engines::PostgresDatabase::create().await?;
    Some((PostgresVehicles::new(database.url(), Access::Owner).unwrap(), database))
}

async fn sqlite_ads() -> Option<(SqliteAds, engines::Directory)> {
    let directory = engines::Directory::new();
    let store = SqliteAds::open(directory.file("ads.db"), Access::Owner).await.unwrap();
    Some((store, directory))
}

async fn mongodb_ads() -> Option<(MongoAds, engines::MongoDatabase)> {
    let database = engines::MongoDatabase::create().await?;
    Some((MongoAds::new(database.url()).await.unwrap(), database))
}

macro_rules! vehicle_contract {
    ($engine:ident, $fresh:path, $store:ty) => {
        contract!($engine, $fresh, $store, vehicles:
            are_read_back_as_they_were_written,
            a_vin_is_kept_once_with_one_event,
            a_vin_that_is_inserted_at_the_same_time_is_kept_once,
            pages_go_from_the_oldest_on,
            events_leave_oldest_first_in_batches_that_are_recovered,
            the_outbox_has_one_holder_at_a_time,
        );
    };
}

macro_rules! ad_contract {
    ($engine:ident, $fresh:path, $store:ty) => {
        contract!($engine, $fresh, $store, ads:
            are_read_back_as_they_were_written,
            a_vin_has_one_ad_the_first,
            pages_go_from_the_oldest_on,
        );
    };
}

vehicle_contract!(vehicles_in_sqlite, sqlite_vehicles, SqliteVehicles);
vehicle_contract!(vehicles_in_postgres, postgres_vehicles, PostgresVehicles);
ad_contract!(ads_in_sqlite, sqlite_ads, SqliteAds);
ad_contract!(ads_in_mongodb, mongodb_ads, MongoAds);
