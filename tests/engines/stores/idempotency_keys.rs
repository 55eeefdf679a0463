//! The contract of the idempotency keys in a vehicle store.

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};

use super::*;
use vehicle_platform::stock::IdempotencyKey;
use vehicle_platform::stock::vehicle_store::{Existing, IdsByVin};

fn keyed(vin: &str, key: &str) -> NewVehicle {
    let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
    NewVehicle { idempotency_key: Some(key), ..new_vehicle(vin) }
}

async fn append(store: &dyn VehicleStore, new: &[NewVehicle]) -> IdsByVin {
    store.appender().await.unwrap().append(&new.iter().collect::<Vec<_>>()).await.unwrap()
}

async fn existing(store: &dyn VehicleStore, vins: &[&str], keys: &[&str]) -> Existing {
    let [vins, keys] = [vins, keys].map(|texts| texts.iter().map(|&text| text.to_owned()).collect());
    store.appender().await.unwrap().existing(vins, keys).await.unwrap()
}

pub async fn belong_to_the_first_vehicle(store: &dyn VehicleStore) {
    let first = keyed("a", "key");
    let id = append(store, std::slice::from_ref(&first)).await["a"];
    for refused in [keyed("a", "key"), keyed("b", "key"), keyed("a", "other"), new_vehicle("a")] {
        assert_eq!(append(store, &[refused]).await, IdsByVin::new());
    }
    let found = existing(store, &["a", "b"], &["key", "other"]).await;
    assert_eq!(found.by_vin, [("a".to_owned(), id)].into());
    let stocked = StockedVehicle { id, created_at: first.created_at, vehicle: first.vehicle };
    assert_eq!(found.by_key, [("key".to_owned(), Ok(stocked))].into());
    // The refused vehicles left neither their vins nor their keys.
    assert_eq!(append(store, &[keyed("b", "other")]).await.len(), 1);
    assert_eq!(append(store, &[keyed("c", "OTHER")]).await.len(), 1, "keys differ in case");
    assert_eq!(store.backlog().await.unwrap().events, 3);
}

pub async fn are_stored_once_when_written_together(store: &dyn VehicleStore) {
    append(store, &[keyed("known", "known")]).await;
    let new = [
        keyed("a", "key"),
        new_vehicle("b"),
        keyed("c", "key"),
        keyed("d", "known"),
        new_vehicle("e"),
        keyed("f", "free"),
    ];
    let ids = append(store, &new).await;
    let mut vins: Vec<_> = ids.keys().map(String::as_str).collect();
    vins.retain(|vin| !["a", "c"].contains(vin));
    assert_same(vins, vec!["b", "e", "f"]);
    assert_eq!(ids.len(), 4, "one of a and c: {ids:?}");
    assert_eq!(store.backlog().await.unwrap().events, 5);
}

pub async fn are_stored_once_when_written_concurrently(store: &dyn VehicleStore) {
    let kept = futures::future::join_all(
        (0..16).map(async |number| append(store, &[keyed(&format!("race-{number}"), "key")]).await.len()),
    )
    .await;
    assert_eq!(kept.into_iter().sum::<usize>(), 1);
    assert_eq!(store.backlog().await.unwrap().events, 1);
    assert_eq!(existing(store, &[], &["key"]).await.by_key.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vehicle_that_another_program_spoiled_does_not_hide_others() {
    let (store, directory) = sqlite_vehicles().await.unwrap();
    append(&store, &[keyed("spoiled", "one"), keyed("intact", "two")]).await;
    let path = directory.file("stock.db");
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    let spoil = "PRAGMA busy_timeout = 5000; UPDATE vehicles SET created_at = 'x' WHERE vin = 'spoiled'";
    connection.batch_execute(spoil).unwrap();
    let found = existing(&store, &["spoiled", "intact"], &["one", "two"]).await;
    assert_eq!(found.by_vin.len(), 2);
    assert!(found.by_key["one"].is_err());
    assert!(found.by_key["two"].is_ok());
}
