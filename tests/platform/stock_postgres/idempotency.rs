//! Tests requests that clients repeat with an `Idempotency-Key`, across instances and failures.

use futures::future::join_all;
use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;

use super::stock::Stock;
use super::world::{Sql, World, vehicle_of};
use crate::support::postgres::Options;
use crate::support::proxy::{Line, Proxy};
use crate::support::{eventually, vehicle};

/// Blocks inserts until the end of the transaction.
const BLOCK: &str = "BEGIN; LOCK TABLE vehicles IN SHARE MODE";

#[derive(Debug, PartialEq)]
struct Answer {
    status: StatusCode,
    location: Option<String>,
    retry: bool,
    body: String,
}

impl Answer {
    fn is_under_way(&self) -> bool {
        let conflict = self.status == StatusCode::CONFLICT && self.retry;
        conflict && self.body.contains("under way") && !self.body.contains("\"conflict\"")
    }

    fn id(&self) -> String {
        serde_json::from_str::<Value>(&self.body).unwrap()["id"].to_string()
    }
}

async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    Answer {
        status: response.status(),
        location: header(LOCATION),
        retry: header(RETRY_AFTER).is_some(),
        body: response.text().await.unwrap(),
    }
}

async fn post(stock: &Stock, key: &str, vin: &str) -> Answer {
    send(stock.post_with_key(key, &vehicle(vin))).await
}

/// Posts a vehicle until the answer is final.
async fn post_until_final(stock: &Stock, key: &str, vin: &str) -> Answer {
    eventually(&format!("a final answer for {vin}"), async || {
        let answer = post(stock, key, vin).await;
        (answer.status != StatusCode::SERVICE_UNAVAILABLE && !answer.is_under_way()).then_some(answer)
    })
    .await
}

/// Waits until `count` inserts are waiting for a lock.
async fn await_blocked(sql: &Sql, count: usize) {
    let blocked = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'WITH input%'";
    eventually("inserts to wait", async || (sql.ask(blocked).await == count.to_string()).then_some(())).await;
}

/// Sends each request several times to both instances at the same time.
async fn instances_agree(isolation: &str) {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let set = format!("ALTER ROLE {} SET default_transaction_isolation = '{isolation}'", world.database);
    sql.run(&set).await;
    let (one, other) = tokio::join!(world.stock(), world.stock());
    tokio::join!(one.await_ready(), other.await_ready());
    for round in 0..10 {
        let (key, vin) = (format!("\"key {round}\"").replace(' ', "-"), format!("vin-{round}"));
        let requests = (0..8).map(|number| post([&one, &other][number % 2], &key, &vin));
        let answers = join_all(requests).await;
        let first = post_until_final(&one, &key, &vin).await;
        assert_eq!(first.status, StatusCode::CREATED);
        // On a busy machine, an insert may wait longer than its lock timeout.
        let late = |answer: &Answer| answer.status == StatusCode::SERVICE_UNAVAILABLE;
        for answer in answers {
            assert!(answer == first || answer.is_under_way() || late(&answer), "{answer:?}, {first:?}");
        }
        world.note(&vin);
        // The key now belongs to this vehicle in both instances.
        for stock in [&one, &other] {
            let refused = post_until_final(stock, &key, &format!("other-{round}")).await;
            assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
        }
    }
    // One key for several vehicles.
    let answers = join_all((0..16).map(|number| {
        let stock = [&one, &other][number % 2];
        async move { post_until_final(stock, "race", &format!("race-{number}")).await }
    }))
    .await;
    let accepted = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(accepted, 1, "{answers:?}");
    assert_eq!(sql.ask("SELECT count(*) FROM vehicles").await, "11");
    assert_eq!(sql.ask("SELECT count(*) FROM event_log").await, "11");
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_get_the_same_request_bring_one_vehicle() {
    instances_agree("read committed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_conflicts_is_retried_with_its_key() {
    instances_agree("serializable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_is_reported_here_and_awaited_by_another_instance() {
    let Some(world) = World::shared().await else { return };
    let (sql, observer) = tokio::join!(world.operator(), world.operator());
    let (one, other) = tokio::join!(world.stock(), world.stock());
    tokio::join!(one.await_ready(), other.await_ready());
    let mut round = 0;
    // An insert that waits longer than its lock timeout is answered with 503. Then everything is repeated.
    eventually("both inserts to be in time", async || {
        round += 1;
        let (key, vin) = (format!("key-{round}"), format!("vin-{round}"));
        sql.run(BLOCK).await;
        let first = tokio::spawn(send(one.post_with_key(&key, &vehicle(&vin))));
        await_blocked(&observer, 1).await;
        let under_way = [post(&one, &key, &vin).await, post(&one, &key, "other").await];
        assert!(under_way.iter().all(Answer::is_under_way), "{under_way:?}");
        let second = tokio::spawn(send(other.post_with_key(&key, &vehicle(&vin))));
        await_blocked(&observer, 2).await;
        sql.run("ROLLBACK").await;
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        for (stock, answer) in [(&one, &first), (&other, &second)] {
            let again = post_until_final(stock, &key, &vin).await;
            assert_eq!(again.status, StatusCode::CREATED, "{again:?}");
            assert!(
                answer.status == StatusCode::SERVICE_UNAVAILABLE || *answer == again,
                "{answer:?}, {again:?}"
            );
        }
        world.note(&vin);
        (first.status == StatusCode::CREATED && first == second).then_some(())
    })
    .await;
    world.audit().await;
}

/// Lets the server write a vehicle whose answer `lose` prevents, and repeats the request.
async fn a_lost_answer_is_given_again(
    world: &World,
    stock: &mut Stock,
    lose: impl AsyncFn(&mut Stock),
    recover: impl AsyncFn(),
) {
    let (sql, observer) = tokio::join!(world.operator(), world.operator());
    let mut round = 0;
    // When the insert waits longer than its lock timeout, nothing is written, and everything is repeated.
    eventually("a vehicle to be written without an answer", async || {
        round += 1;
        let (key, vin) = (format!("key-{round}"), format!("vin-{round}"));
        stock.await_ready().await;
        sql.run(BLOCK).await;
        let unanswered = tokio::spawn(stock.post_with_key(&key, &vehicle(&vin)).send());
        await_blocked(&observer, 1).await;
        lose(stock).await;
        sql.run("ROLLBACK").await;
        if let Ok(answer) = unanswered.await.unwrap() {
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        await_blocked(&observer, 0).await;
        let written = sql.column(&format!("SELECT id FROM vehicles WHERE vin = '{vin}'")).await;
        recover().await;
        let answer = post_until_final(stock, &key, &vin).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        assert_eq!(answer.location, Some(format!("/stock/{}", answer.id())));
        world.note(&vin);
        (written == [answer.id()]).then_some(())
    })
    .await;
    let counts = "SELECT (SELECT count(*) FROM vehicles) = (SELECT count(*) FROM event_log)";
    assert_eq!(sql.ask(counts).await, "t");
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_broken_connection_lost_is_given_again() {
    let Some(world) = World::shared().await else { return };
    let (line, port) = Proxy::start(0, ([127, 0, 0, 1], world.server.port()).into()).await;
    let mut stock = world.stock_at(&world.url_at(&format!("127.0.0.1:{port}"), "")).await;
    let sever = async |_: &mut Stock| line.set(Line::Severed);
    a_lost_answer_is_given_again(&world, &mut stock, sever, async || line.set(Line::Open)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_crash_lost_is_given_again() {
    let Some(world) = World::shared().await else { return };
    let mut stock = world.stock().await;
    let kill = async |stock: &mut Stock| stock.kill_and_restart().await;
    a_lost_answer_is_given_again(&world, &mut stock, kill, async || {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_vehicle_leaves_no_key_and_its_batch_keeps_theirs() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let stock = world.stock().await;
    stock.await_ready().await;
    sql.run("ALTER TABLE vehicles ADD CONSTRAINT no_bad_model CHECK (model <> 'bad')").await;
    let post_all = async || {
        join_all((0..50).map(|number| {
            let model = if number == 17 { "bad" } else { "good" };
            send(stock.post_with_key(&format!("key-{number}"), &vehicle_of(&format!("vin-{number}"), model)))
        }))
        .await
    };
    let first = post_all().await;
    for (number, answer) in first.iter().enumerate() {
        let expected = if number == 17 { StatusCode::BAD_REQUEST } else { StatusCode::CREATED };
        assert_eq!(answer.status, expected, "{answer:?}");
        world.note(&format!("vin-{number}"));
    }
    assert_eq!(post_all().await, first);
    sql.run("ALTER TABLE vehicles DROP CONSTRAINT no_bad_model").await;
    let again = post_all().await;
    assert_eq!(again[17].status, StatusCode::CREATED);
    assert_eq!((&again[..17], &again[18..]), (&first[..17], &first[18..]));
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_an_operator_adds_refuses_only_its_vehicle() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let stock = world.stock().await;
    stock.await_ready().await;
    sql.run("CREATE UNIQUE INDEX one_of_a_model ON vehicles (model)").await;
    let posts = (0..20).map(|number| {
        let model = format!("model-{}", number % 19);
        let request =
            stock.post_with_key(&format!("key-{number}"), &vehicle_of(&format!("vin-{number}"), &model));
        async move { send(request).await.status }
    });
    let statuses = join_all(posts).await;
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::CREATED).count(), 19, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::BAD_REQUEST).count(), 1);
    stock.await_ready().await;
    world.audit().await;
}

/// A request that gives up on a synchronous standby leaves its vehicle visible, but not replicated.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_waits_for_the_synchronous_standby_too() {
    let Some(world) = World::alone(Options::default()).await else { return };
    let sql = world.operator().await;
    let stock = world.stock().await;
    stock.await_ready().await;
    world.accept(&stock, "before").await;
    sql.run("ALTER SYSTEM SET synchronous_standby_names = 'absent'").await;
    sql.run("SELECT pg_reload_conf()").await;
    // The relay's writes show when the setting takes effect.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually("a write to wait for the standby", async || (sql.ask(waiting).await != "0").then_some(()))
        .await;
    let answer = post(&stock, "key", "vin").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    eventually("the vehicle to be visible", async || {
        let visible = "SELECT count(*) FROM vehicles WHERE vin = 'vin'";
        (sql.ask(visible).await == "1").then_some(())
    })
    .await;
    let answer = post(&stock, "key", "vin").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    sql.run("ALTER SYSTEM RESET synchronous_standby_names").await;
    sql.run("SELECT pg_reload_conf()").await;
    let answer = post_until_final(&stock, "key", "vin").await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    world.note("vin");
    world.audit().await;
}
