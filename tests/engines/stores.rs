//! Tests every store against the contract of its kind.
//!
//! SQLite is always available. PostgreSQL and MongoDB are expected at `TEST_POSTGRES_URL` and `TEST_MONGODB_URL`.
//! Without them, their tests report that and pass, or fail when `REQUIRE_ENGINES=1`.

mod ads;
mod idempotency_keys;

use crate::support;
use std::collections::HashMap;
use std::sync::Arc;

use crate::support::engines::offer;
use crate::support::{assert_same, engines};
use uuid::Uuid;
use vehicle_platform::ads::ad_store::{AdStore, Insertion, MongoAds, SqliteAds};
use vehicle_platform::ads::{Ad, Offer};
use vehicle_platform::database::Access;
use vehicle_platform::event::VehicleCreated;
use vehicle_platform::page::{MAX_PAGE_BYTES, PageRequest};
use vehicle_platform::stock::vehicle_store::{
    EventLog, LastPublished, Lease, LogEntry, LogRead, NewVehicle, PositionKey, PostgresVehicles,
    SqliteVehicles, VehicleStore,
};
use vehicle_platform::trace::TraceContext;
use vehicle_platform::vehicle::{Price, StockedVehicle, VehicleId, Vin, parse_vehicle};

fn new_vehicle(vin: &str) -> NewVehicle {
    let vehicle = parse_vehicle(&support::vehicle(vin), 2026).unwrap();
    NewVehicle::new(vehicle, &TraceContext::new_root()).unwrap()
}

async fn stocked(store: &dyn VehicleStore, vin: &str) -> StockedVehicle {
    let new = new_vehicle(vin);
    let ids = store.appender().await.unwrap().append(&[&new]).await.unwrap();
    StockedVehicle { id: ids[vin], created_at: new.created_at, vehicle: new.vehicle }
}

async fn take_lease(log: &mut dyn EventLog, holder: &str) -> Lease {
    let seen = log.lease().await.unwrap();
    log.take(&seen, holder).await.unwrap().unwrap()
}

/// Returns the events after `last`, which the log must contain.
async fn read(log: &mut dyn EventLog, lease: &Lease, last: &LastPublished, limit: i64) -> Vec<LogEntry> {
    match log.read(lease, last, limit, i64::MAX).await.unwrap() {
        LogRead::Entries(entries) => entries,
        read => panic!("{read:?}"),
    }
}

fn last_of(entries: &[LogEntry]) -> LastPublished {
    let last = entries.last().unwrap();
    LastPublished { id: last.id, event_id: Some(last.event_id.clone()), failure: String::new() }
}

fn failure(id: i64, reason: &str) -> Vec<(i64, String)> {
    vec![(id, reason.to_owned())]
}

fn key(cluster: &str) -> PositionKey {
    PositionKey { cluster: cluster.to_owned(), topic: "topic".to_owned() }
}

/// The contract of a vehicle store.
mod vehicles {
    use super::*;

    pub async fn are_read_back_as_they_were_written(store: &dyn VehicleStore) {
        let stocked = stocked(store, "ünïcode ✓").await;
        assert_eq!(store.find("ünïcode ✓").await.unwrap(), Some(stocked.clone()));
        assert_eq!(store.get(stocked.id).await.unwrap(), Some(stocked));
        assert_eq!(store.get(VehicleId(i64::MAX)).await.unwrap(), None);
    }

    pub async fn are_written_together_except_those_that_exist(store: &dyn VehicleStore) {
        let first = stocked(store, "b").await;
        let new = ["a", "b", "c"].map(new_vehicle);
        let mut appender = store.appender().await.unwrap();
        let ids = appender.append(&new.iter().collect::<Vec<_>>()).await.unwrap();
        assert_same(ids.keys().cloned().collect(), vec!["a".to_owned(), "c".to_owned()]);
        let existing = appender.existing(vec!["b".to_owned(), "other".to_owned()], vec![]).await.unwrap();
        assert_eq!(existing.by_vin, [("b".to_owned(), first.id)].into());
        assert_eq!(existing.by_key, HashMap::new());
        let mut log = store.event_log().await.unwrap();
        let lease = take_lease(&mut *log, "test").await;
        let entries = read(&mut *log, &lease, &LastPublished::default(), 10).await;
        assert_eq!(entries.iter().map(|entry| entry.vin.as_str()).collect::<Vec<_>>(), ["b", "a", "c"]);
        for entry in entries {
            let event: VehicleCreated = serde_json::from_str(&entry.event).unwrap();
            let stocked = store.find(&entry.vin).await.unwrap().unwrap();
            assert_eq!(event, VehicleCreated::from(&stocked));
        }
    }

    pub async fn a_vin_that_is_written_concurrently_is_stored_once(store: &dyn VehicleStore) {
        let kept = futures::future::join_all((0..16).map(|_| async {
            let new = new_vehicle("race");
            store.appender().await.unwrap().append(&[&new]).await.unwrap().len()
        }))
        .await;
        assert_eq!(kept.into_iter().sum::<usize>(), 1);
        assert_eq!(store.backlog().await.unwrap().events, 1);
    }

    pub async fn pages_start_with_the_oldest(store: &dyn VehicleStore) {
        let mut expected = Vec::new();
        for number in 0..5 {
            expected.push(Ok(stocked(store, &format!("page-{number}")).await));
        }
        let first = store.page(&PageRequest::new(2, None)).await.unwrap();
        assert_eq!((&first.rows[..], first.more), (&expected[..2], true));
        let after = expected[2].as_ref().ok().map(|stocked| stocked.id);
        let last = store.page(&PageRequest::new(2, after)).await.unwrap();
        assert_eq!((&last.rows[..], last.more), (&expected[3..], false));
    }

    pub async fn are_found_by_their_vin(store: &dyn VehicleStore) {
        let first = stocked(store, "a").await;
        let found = Ok(stocked(store, "b").await);
        let last = stocked(store, "c").await;
        let of = |vin: &str, after| PageRequest {
            vin: Some(Vin::parse(vin).unwrap()),
            ..PageRequest::new(10, after)
        };
        for after in [None, Some(first.id)] {
            assert_eq!(store.page(&of("b", after)).await.unwrap().rows, std::slice::from_ref(&found));
        }
        assert_eq!(store.page(&of("b", Some(last.id))).await.unwrap().rows, []);
        assert_eq!(store.page(&of("other", None)).await.unwrap().rows, []);
    }
}

/// The contract of an event log.
mod event_log {
    use super::*;

    pub async fn is_read_by_a_cursor_that_proves_its_position(store: &dyn VehicleStore) {
        for number in 0..5 {
            stocked(store, &format!("event-{number}")).await;
        }
        let mut log = store.event_log().await.unwrap();
        let lease = take_lease(&mut *log, "test").await;
        let first = read(&mut *log, &lease, &LastPublished::default(), 2).await;
        assert_eq!(first.iter().map(|entry| entry.id).collect::<Vec<_>>(), [1, 2]);
        let last = last_of(&first);
        let rest = read(&mut *log, &lease, &last, 10).await;
        assert_eq!(rest.iter().map(|entry| entry.id).collect::<Vec<_>>(), [3, 4, 5]);
        assert!(read(&mut *log, &lease, &last_of(&rest), 10).await.is_empty());
        let one = log.read(&lease, &last, 10, 1).await.unwrap();
        assert_eq!(one, LogRead::Entries(rest[..1].to_vec()), "at least one, regardless of its size");
        for parted in [
            LastPublished { event_id: Some("other".to_owned()), ..last.clone() },
            LastPublished { id: 9, ..last.clone() },
            LastPublished { event_id: None, ..last.clone() },
            LastPublished { failure: "unknown".to_owned(), ..last.clone() },
        ] {
            assert_eq!(log.read(&lease, &parted, 10, i64::MAX).await.unwrap(), LogRead::Parted, "{parted:?}");
        }
        assert!(log.holds(&last).await.unwrap());
        assert!(!log.holds(&LastPublished { id: 1, ..last.clone() }).await.unwrap());
        assert!(!log.holds(&LastPublished { id: 9, ..last.clone() }).await.unwrap());
        assert!(!log.holds(&LastPublished { failure: "unknown".to_owned(), ..last }).await.unwrap());
    }

    pub async fn has_one_holder_at_a_time(store: &dyn VehicleStore) {
        let (mut one, mut other) = (store.event_log().await.unwrap(), store.event_log().await.unwrap());
        let free = one.lease().await.unwrap();
        assert_eq!(free.holder, None);
        let held = one.take(&free, "one").await.unwrap().unwrap();
        assert_eq!(other.take(&free, "other").await.unwrap(), None, "it has changed since");
        let seen = other.lease().await.unwrap();
        assert_eq!(seen, held);
        assert!(one.renew(&held, None).await.unwrap());
        assert_eq!(other.take(&seen, "other").await.unwrap(), None, "its beat moved");
        let seen = other.lease().await.unwrap();
        let taken = other.take(&seen, "other").await.unwrap().unwrap();
        assert_eq!(taken.identity, held.identity);
        assert!(!one.renew(&held, Some((&key("a"), &LastPublished::default()))).await.unwrap());
        assert_eq!(one.position(&key("a")).await.unwrap(), LastPublished::default());
        let failed = failure(1, "reason");
        let none = LastPublished::default();
        assert_eq!(one.record_failures(&held, &key("a"), &none, &failed).await.unwrap(), None);
        assert!(!one.replace_identity(&held).await.unwrap());
        assert_eq!(one.read(&held, &LastPublished::default(), 1, 1).await.unwrap(), LogRead::LeaseLost);
        one.release(&held).await.unwrap();
        assert_eq!(other.lease().await.unwrap(), taken, "only its holder releases it");
        assert!(other.replace_identity(&taken).await.unwrap());
        other.release(&taken).await.unwrap();
        let free = one.lease().await.unwrap();
        assert_eq!(free.holder, None);
        assert_ne!(free.identity, held.identity);
    }

    pub async fn stores_a_position_for_each_cluster_that_never_moves_backwards(store: &dyn VehicleStore) {
        for number in 0..5 {
            stocked(store, &format!("event-{number}")).await;
        }
        let mut log = store.event_log().await.unwrap();
        let lease = take_lease(&mut *log, "test").await;
        let entries = read(&mut *log, &lease, &LastPublished::default(), 10).await;
        for count in [2, 4, 3] {
            assert!(log.renew(&lease, Some((&key("a"), &last_of(&entries[..count])))).await.unwrap());
        }
        let of_another_history = LastPublished { id: 5, ..last_of(&entries[..4]) };
        assert!(log.renew(&lease, Some((&key("a"), &of_another_history))).await.unwrap());
        assert_eq!(log.position(&key("a")).await.unwrap(), last_of(&entries[..4]));
        assert_eq!(log.position(&key("b")).await.unwrap(), LastPublished::default());
        let backlog = store.backlog().await.unwrap();
        assert_eq!((backlog.events, backlog.position, backlog.failed), (1, 4, 0));
        let unpublished = store.unpublished(0, 10).await.unwrap();
        assert_eq!(unpublished.iter().map(|event| event.id).collect::<Vec<_>>(), [5]);
    }

    pub async fn retains_events_that_cannot_be_encoded_until_they_can(store: &dyn VehicleStore) {
        for number in 0..3 {
            stocked(store, &format!("event-{number}")).await;
        }
        let mut log = store.event_log().await.unwrap();
        let lease = take_lease(&mut *log, "test").await;
        let entries = read(&mut *log, &lease, &LastPublished::default(), 10).await;
        let none = LastPublished::default();
        let failed = failure(2, "a reason");
        let token = log.record_failures(&lease, &key("a"), &none, &failed).await.unwrap().unwrap();
        let failed = failure(2, "another");
        let again = log.record_failures(&lease, &key("a"), &none, &failed).await.unwrap();
        assert_eq!(again.as_ref(), Some(&token), "again after a crash");
        let last = LastPublished { failure: token, ..last_of(&entries) };
        assert!(log.holds(&last).await.unwrap());
        assert!(log.renew(&lease, Some((&key("a"), &last))).await.unwrap());
        assert_eq!(log.position(&key("a")).await.unwrap(), last);
        let unpublished = store.unpublished(0, 10).await.unwrap();
        assert_eq!(unpublished.len(), 1);
        assert_eq!((unpublished[0].id, unpublished[0].failure.as_deref()), (2, Some("another")));
        assert_eq!(store.backlog().await.unwrap().failed, 1);
        let lost = LastPublished { failure: "lost".to_owned(), ..last.clone() };
        let failed = [failure(1, "a reason"), failure(3, "still to be read")].concat();
        assert_eq!(log.record_failures(&lease, &key("a"), &lost, &failed).await.unwrap(), None);
        assert_eq!(store.backlog().await.unwrap().failed, 1, "the log lacks an earlier failure");
        let newest = log.record_failures(&lease, &key("a"), &last, &failed[1..]).await.unwrap().unwrap();
        assert_ne!(newest, last.failure);
        log.forget_failures_after(&lease, &key("b"), 0).await.unwrap();
        log.forget_failures_after(&lease, &key("a"), 2).await.unwrap();
        assert_eq!(log.failures(&key("a"), 0, 10).await.unwrap(), entries[1..2]);
        assert!(log.failures(&key("a"), 2, 10).await.unwrap().is_empty());
        let lost = Lease { epoch: lease.epoch - 1, ..lease.clone() };
        assert_eq!(log.retry_failures(&lost, &[2]).await.unwrap(), 0);
        assert_eq!(log.retry_failures(&lease, &[1, 2, 3]).await.unwrap(), 1, "the others did not fail");
        assert_eq!(log.retry_failures(&lease, &[2]).await.unwrap(), 0);
        let again = read(&mut *log, &lease, &last_of(&entries), 10).await;
        assert_eq!(again.len(), 1);
        assert_eq!((again[0].vin.as_str(), &again[0].event), ("event-1", &entries[1].event));
        assert_eq!(store.backlog().await.unwrap().failed, 0);
    }

    pub async fn removes_old_events_except_the_last_published_one(store: &dyn VehicleStore) {
        for number in 0..5 {
            stocked(store, &format!("event-{number}")).await;
        }
        let mut log = store.event_log().await.unwrap();
        let lease = take_lease(&mut *log, "test").await;
        let last = last_of(&read(&mut *log, &lease, &LastPublished::default(), 4).await);
        assert!(log.prune(&lease, 0, &last, 3_600.0, 10).await.unwrap().is_empty(), "they are young");
        let failed = failure(2, "a reason");
        log.record_failures(&lease, &key("a"), &LastPublished::default(), &failed).await.unwrap().unwrap();
        assert_eq!(log.prune(&lease, 0, &last, -1.0, 1).await.unwrap(), [1]);
        let lost = Lease { epoch: lease.epoch - 1, ..lease.clone() };
        assert!(log.prune(&lost, 0, &last, -1.0, 10).await.unwrap().is_empty());
        let parted = LastPublished { event_id: Some("other".to_owned()), ..last.clone() };
        assert!(log.prune(&lease, 0, &parted, -1.0, 10).await.unwrap().is_empty());
        let left = log.prune(&lease, 1, &last, -1.0, 10).await.unwrap();
        assert_eq!(left, [3], "all except the failed and the last event");
        assert_eq!(read(&mut *log, &lease, &last, 10).await.len(), 1);
    }

    pub async fn retains_events_that_another_cluster_has_not_seen(store: &dyn VehicleStore) {
        for number in 0..5 {
            stocked(store, &format!("event-{number}")).await;
        }
        let mut log = store.event_log().await.unwrap();
        let lease = take_lease(&mut *log, "test").await;
        let entries = read(&mut *log, &lease, &LastPublished::default(), 10).await;
        for (cluster, count) in [("a", 2), ("b", 5)] {
            assert!(log.renew(&lease, Some((&key(cluster), &last_of(&entries[..count])))).await.unwrap());
        }
        assert_eq!(log.prune(&lease, 0, &last_of(&entries), -1.0, 10).await.unwrap(), [1]);
    }

    pub async fn appends_the_event_of_a_vehicle_again(store: &dyn VehicleStore) {
        let stocked = stocked(store, "again").await;
        let mut log = store.event_log().await.unwrap();
        let lease = take_lease(&mut *log, "test").await;
        store.reannounce(&stocked).await.unwrap();
        let first = read(&mut *log, &lease, &LastPublished::default(), 10).await;
        assert_eq!(first.len(), 1, "it is already waiting");
        log.renew(&lease, Some((&key("a"), &last_of(&first)))).await.unwrap();
        store.reannounce(&stocked).await.unwrap();
        let entries = read(&mut *log, &lease, &LastPublished::default(), 10).await;
        assert_eq!(entries.iter().map(|entry| entry.reannounced).collect::<Vec<_>>(), [false, true]);
        assert_eq!(entries[0].event, entries[1].event);
    }
}

/// Tests each part of a contract on a fresh store.
macro_rules! contract {
    ($engine:ident, $fresh:path, $store:ty, $contract:ident: $($promise:ident),+ $(,)?) => {
        mod $engine {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $promise() {
                    let Some((store, engine)) = $fresh().await else { return };
                    let store: Arc<$store> = Arc::new(store);
                    engines::answer(async || store.check().await).await;
                    $contract::$promise(&*store).await;
                    drop(store);
                    engine.clear().await;
                }
            )+
        }
    };
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
    ($engine:ident, $keys:ident, $log:ident, $fresh:path, $store:ty) => {
        contract!($engine, $fresh, $store, vehicles:
            are_read_back_as_they_were_written,
            are_written_together_except_those_that_exist,
            a_vin_that_is_written_concurrently_is_stored_once,
            pages_start_with_the_oldest,
            are_found_by_their_vin,
        );
        contract!($keys, $fresh, $store, idempotency_keys:
            belong_to_the_first_vehicle,
            are_stored_once_when_written_together,
            are_stored_once_when_written_concurrently,
        );
        contract!($log, $fresh, $store, event_log:
            is_read_by_a_cursor_that_proves_its_position,
            has_one_holder_at_a_time,
            stores_a_position_for_each_cluster_that_never_moves_backwards,
            retains_events_that_cannot_be_encoded_until_they_can,
            removes_old_events_except_the_last_published_one,
            retains_events_that_another_cluster_has_not_seen,
            appends_the_event_of_a_vehicle_again,
        );
    };
}

macro_rules! ad_contract {
    ($engine:ident, $fresh:path, $store:ty) => {
        contract!($engine, $fresh, $store, ads:
            are_read_back_as_they_were_written,
            only_the_first_ad_of_a_vin_is_stored,
            pages_start_with_the_oldest,
            the_newest_is_found_by_its_id,
            a_page_ends_at_a_size,
            are_found_by_their_vin,
            are_stored_once_when_written_concurrently,
        );
    };
}

vehicle_contract!(vehicles_in_sqlite, keys_in_sqlite, event_log_in_sqlite, sqlite_vehicles, SqliteVehicles);
vehicle_contract!(
    vehicles_in_postgres,
    keys_in_postgres,
    event_log_in_postgres,
    postgres_vehicles,
    PostgresVehicles
);
ad_contract!(ads_in_sqlite, sqlite_ads, SqliteAds);
ad_contract!(ads_in_mongodb, mongodb_ads, MongoAds);
