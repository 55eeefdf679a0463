use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use actix_web::{App, HttpResponse, HttpServer, web};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::{NoContext, Timestamp, Uuid};

use super::*;
use crate::console::role_client::new_client;
use crate::console::state::Settings;
use crate::console::traces::Passed;
use crate::console::vehicle_key::VehicleKey;
use crate::console::ways::Way;

/// The lists of both roles, in the order of their ids.
#[derive(Default)]
struct Roles {
    stock: Mutex<BTreeMap<i64, Value>>,
    ads: Mutex<BTreeMap<String, Value>>,
    reads_of_stock: AtomicUsize,
}

impl Roles {
    fn stock(&self) -> MutexGuard<'_, BTreeMap<i64, Value>> {
        self.stock.lock().unwrap()
    }

    fn ads(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.ads.lock().unwrap()
    }

    fn stock_vehicle(&self, id: i64, vin: &str, created_at: DateTime<Utc>) {
        self.stock().insert(id, json!({ "id": id, "vin": vin, "createdAt": created_at }));
    }

    fn publish_ad(&self, vehicle: i64, vin: &str, published_at: DateTime<Utc>) {
        let time = Timestamp::from_unix(NoContext, published_at.timestamp().unsigned_abs(), 0);
        let id = Uuid::new_v7(time).to_string();
        let ad = json!({
            "id": id, "publishedAt": published_at, "vehicleId": vehicle, "vin": vin, "model": "Golf",
            "manufacturer": "VW", "year": 2020, "price": 1.0, "priceUnit": "USD",
        });
        self.ads().insert(id, ad);
    }

    async fn list_stock(roles: web::Data<Self>, query: web::Query<BTreeMap<String, String>>) -> HttpResponse {
        roles.reads_of_stock.fetch_add(1, Ordering::Relaxed);
        let after: i64 = query["after"].parse().unwrap();
        page("/stock", &query, roles.stock().range(after + 1..).collect())
    }

    async fn list_ads(roles: web::Data<Self>, query: web::Query<BTreeMap<String, String>>) -> HttpResponse {
        let after = query.get("after").map_or("", String::as_str);
        let ads = roles.ads();
        let ads = ads.iter().filter(|(id, ad)| {
            id.as_str() > after && query.get("vin").is_none_or(|vin| ad["vin"] == vin.as_str())
        });
        page("/ads", &query, ads.collect())
    }

    async fn show_ad(roles: web::Data<Self>, id: web::Path<String>) -> HttpResponse {
        let ad = roles.ads().get(id.as_str()).cloned();
        ad.map_or_else(|| HttpResponse::NotFound().finish(), |ad| HttpResponse::Ok().json(ad))
    }
}

fn page(path: &str, query: &BTreeMap<String, String>, all: Vec<(&impl ToString, &Value)>) -> HttpResponse {
    let limit: usize = query["limit"].parse().unwrap();
    let items: Vec<_> = all.iter().take(limit).map(|(_, item)| item).collect();
    let mut response = HttpResponse::Ok();
    if all.len() > limit {
        let after = all[limit - 1].0.to_string();
        response.append_header(("Link", format!("<{path}?limit={limit}&after={after}>; rel=\"next\"")));
    }
    response.json(items)
}

/// Starts both roles, and follows their lists.
async fn lists(roles: &web::Data<Roles>, ads: Option<String>) -> (Arc<Console>, Lists) {
    let served = roles.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(served.clone())
            .route("/stock", web::get().to(Roles::list_stock))
            .route("/ads", web::get().to(Roles::list_ads))
            .route("/ads/{id}", web::get().to(Roles::show_ad))
    });
    let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let base = format!("http://{}", server.addrs()[0]);
    tokio::spawn(server.run());
    let settings =
        Settings { version: "", read_only: false, needs_key: false, jaeger_url: None, processing: 0 };
    let console = Arc::new(Console::new(settings));
    let client = new_client().unwrap();
    let role = |base: &str| RoleClient::new(&client, &base.parse().unwrap());
    let lists = Lists::new(Arc::clone(&console), role(&base), role(ads.as_deref().unwrap_or(&base)));
    (console, lists)
}

fn ago(seconds: i64) -> DateTime<Utc> {
    Utc::now() - chrono::TimeDelta::seconds(seconds)
}

#[tokio::test]
async fn a_vehicle_with_a_new_id_is_not_lost_when_its_vin_has_an_ad() {
    let roles = web::Data::new(Roles::default());
    let (console, mut lists) = lists(&roles, None).await;
    lists.stock.read().await.unwrap();
    roles.publish_ad(70, "restored", ago(600));
    roles.stock_vehicle(1, "restored", ago(500));
    roles.stock_vehicle(2, "unadvertised", ago(500));
    roles.stock_vehicle(3, "latest", ago(0));
    console.lock().ways.follow(Way { vin: "restored".to_owned(), ..Way::default() });
    lists.stock.read().await.unwrap();
    {
        let mut state = console.lock();
        for (id, vin) in [(1, "restored"), (2, "unadvertised"), (3, "latest")] {
            state.ledger.created(&VehicleKey::new(id, vin), (0, id));
        }
        // They are suspected once the estimators have been past them for a while.
        state.passed = Passed { estimated: [(0, 3)].into(), ..Passed::default() };
        let (earlier, passed) = (ago(100).timestamp_millis(), state.passed.clone());
        assert!(state.ledger.suspects(earlier, 0, &passed, 10).is_empty());
    }
    lists.ads.look_up().await.unwrap();
    let state = console.lock();
    let counts = state.ledger.summary();
    assert_eq!((counts.ads, counts.lost, counts.on_their_way), (1, 1, 1));
    assert!(state.ways.all()[0].ad.is_some(), "the page shows the ad");
}

#[tokio::test]
async fn counting_begins_again_when_ads_disappear() {
    let roles = web::Data::new(Roles::default());
    let (console, mut lists) = lists(&roles, None).await;
    lists.stock.read().await.unwrap();
    roles.stock_vehicle(1, "a", ago(0));
    roles.publish_ad(1, "a", ago(0));
    lists.stock.read().await.unwrap();
    lists.ads.read().await.unwrap();
    let counts = console.lock().ledger.summary();
    assert_eq!((counts.accepted, counts.ads), (1, 1));

    roles.ads().clear();
    lists.ads.read().await.unwrap();
    let counts = console.lock().ledger.summary();
    assert_eq!((counts.accepted, counts.ads), (0, 0));

    roles.stock_vehicle(2, "b", ago(0));
    roles.publish_ad(2, "b", ago(0));
    lists.stock.read().await.unwrap();
    lists.ads.read().await.unwrap();
    let counts = console.lock().ledger.summary();
    assert_eq!((counts.accepted, counts.ads), (1, 1));
}

#[tokio::test]
async fn ads_are_read_from_the_time_since_which_vehicles_count() {
    let roles = web::Data::new(Roles::default());
    let (console, mut lists) = lists(&roles, None).await;
    console.lock().ledger.begin(0, ago(600).timestamp_millis());
    for id in 1..=100 {
        let vin = format!("vin-{id}");
        roles.stock_vehicle(id, &vin, ago(550));
        roles.publish_ad(id, &vin, ago(500 - id));
    }
    lists.stock.read().await.unwrap();
    lists.ads.read().await.unwrap();
    let counts = console.lock().ledger.summary();
    assert_eq!((counts.accepted, counts.ads), (100, 100));
}

#[tokio::test]
async fn another_database_of_stock_is_noticed_when_it_has_the_id_that_was_read_last() {
    let roles = web::Data::new(Roles::default());
    roles.stock_vehicle(1, "before", ago(60));
    let (console, mut lists) = lists(&roles, None).await;
    lists.stock.read().await.unwrap();
    for id in 2..=4 {
        roles.stock_vehicle(id, &format!("old-{id}"), ago(50));
    }
    lists.stock.read().await.unwrap();
    lists.stock.read().await.unwrap();
    assert_eq!(console.lock().ledger.summary().accepted, 3);

    roles.stock().clear();
    for id in 1..=6 {
        roles.stock_vehicle(id, &format!("new-{id}"), ago(10));
    }
    lists.stock.read().await.unwrap();
    assert_eq!(console.lock().ledger.summary().accepted, 0);
    assert_eq!(console.lock().ledger.listed(), 6);
    roles.stock_vehicle(7, "new-7", ago(0));
    lists.stock.read().await.unwrap();
    assert_eq!(console.lock().ledger.summary().accepted, 1);
}

#[tokio::test]
async fn an_ad_of_another_database_of_stock_does_not_count_for_the_vehicle_with_its_id() {
    let roles = web::Data::new(Roles::default());
    let (console, mut lists) = lists(&roles, None).await;
    lists.stock.read().await.unwrap();
    roles.publish_ad(1, "old", ago(600));
    lists.ads.read().await.unwrap();
    roles.stock_vehicle(1, "new", ago(0));
    lists.stock.read().await.unwrap();
    let counts = console.lock().ledger.summary();
    assert_eq!((counts.accepted, counts.ads, counts.on_their_way), (1, 0, 1));
}

#[tokio::test]
async fn two_ads_that_are_listed_before_their_vehicle_are_doubled() {
    let roles = web::Data::new(Roles::default());
    let (console, mut lists) = lists(&roles, None).await;
    lists.stock.read().await.unwrap();
    roles.publish_ad(1, "a", ago(1));
    roles.publish_ad(1, "a", ago(0));
    lists.ads.read().await.unwrap();
    lists.ads.look_up().await.unwrap();
    roles.stock_vehicle(1, "a", ago(2));
    lists.stock.read().await.unwrap();
    let counts = console.lock().ledger.summary();
    assert_eq!((counts.ads, counts.doubled), (1, 1));
}

#[tokio::test]
async fn a_second_ad_that_appears_late_with_an_earlier_id_is_seen() {
    let roles = web::Data::new(Roles::default());
    let (console, mut lists) = lists(&roles, None).await;
    console.lock().ledger.begin(0, ago(600).timestamp_millis());
    roles.stock_vehicle(1, "a", ago(20));
    lists.stock.read().await.unwrap();
    roles.publish_ad(1, "a", ago(0));
    let began = Instant::now();
    // The ad is known for longer than others need to appear.
    for seconds in [0, 4, 8] {
        lists.ads.read_at(began + Duration::from_secs(seconds)).await.unwrap();
    }
    roles.publish_ad(1, "a", ago(10));
    for seconds in 9..30 {
        lists.ads.read_at(began + Duration::from_secs(seconds)).await.unwrap();
    }
    lists.ads.look_up().await.unwrap();
    let counts = console.lock().ledger.summary();
    assert_eq!((counts.ads, counts.doubled), (1, 1));
    assert_eq!(console.lock().totals.ads, 2, "each ad counts once, however often it is read");
}

#[tokio::test]
async fn ads_that_were_seen_long_ago_are_forgotten() {
    let roles = web::Data::new(Roles::default());
    let (console, mut lists) = lists(&roles, None).await;
    lists.stock.read().await.unwrap();
    let began = Instant::now();
    for second in 0..200 {
        roles.publish_ad(1_000 + second, "a", ago(200 - second));
        lists.ads.read_at(began + Duration::from_secs(second.unsigned_abs())).await.unwrap();
        assert!(lists.ads.retained() < 70, "{}", lists.ads.retained());
    }
    assert!(lists.ads.retained() > 50);
    assert_eq!(console.lock().ledger.summary().accepted, 0);
}

#[tokio::test]
async fn stock_is_read_every_second_while_ads_does_not_answer() {
    let roles = web::Data::new(Roles::default());
    // It accepts connections and answers nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ads = format!("http://{}", silent.local_addr().unwrap());
    let (_console, mut lists) = lists(&roles, Some(ads)).await;
    let is_read = async {
        // To find the end of the empty list takes two requests.
        while roles.reads_of_stock.load(Ordering::Relaxed) < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // A request to a role that does not answer takes 5 s.
    tokio::select! {
        () = lists.follow() => {}
        read = tokio::time::timeout(Duration::from_millis(4_800), is_read) => read.unwrap(),
    }
}
