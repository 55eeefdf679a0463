//! Tests that the settings for commit order are repaired, and that sessions that block inserts are identified.

use std::time::{Duration, Instant};

use super::world::World;
use crate::support::eventually;

const INSERT: &str =
    "INSERT INTO vehicles (vin, model, manufacturer, year, odometer, odometer_unit, created_at)
    VALUES ('foreign-$', 'm', 'm', 2022, 1, 'km', now())";

#[tokio::test(flavor = "multi_thread")]
async fn disabled_triggers_and_changed_sequences_are_repaired() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let mut stock = world.stock().await;
    stock.await_ready().await;
    world.accept(&stock, "before").await;
    for damage in [
        "ALTER TABLE vehicles DISABLE TRIGGER insert_in_commit_order",
        "ALTER TABLE event_log DISABLE TRIGGER ALL",
        "ALTER TABLE event_log ENABLE REPLICA TRIGGER insert_in_commit_order",
        "ALTER SEQUENCE vehicles_id_seq CACHE 50",
        "ALTER SEQUENCE event_log_id_seq INCREMENT 7 CACHE 5 CYCLE",
    ] {
        sql.run(damage).await;
    }
    stock.kill_and_restart().await;
    let intact =
        "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname = 'insert_in_commit_order' AND tgenabled = 'A')
        + (SELECT count(*) FROM pg_sequence WHERE seqincrement = 1 AND seqcache = 1 AND NOT seqcycle
           AND seqrelid IN ('vehicles_id_seq'::regclass, 'event_log_id_seq'::regclass))";
    eventually("the repair", async || (sql.ask(intact).await == "4").then_some(())).await;
    world.accept_eventually(&stock, "repaired").await;
    stock.await_ready().await;

    // A sequence that was reset, as by a restored backup.
    for (number, (sequence, table)) in
        [("vehicles_id_seq", "vehicles"), ("event_log_id_seq", "event_log")].into_iter().enumerate()
    {
        let newest = async || {
            let newest = sql.ask(&format!("SELECT max(id) FROM {table}")).await;
            newest.parse::<i64>().unwrap()
        };
        for (step, set) in ["setval('$', 1)", "setval('$', 1, false)"].into_iter().enumerate() {
            let before = newest().await;
            sql.run(&format!("SELECT {}", set.replace('$', sequence))).await;
            world.accept(&stock, &format!("set-back-{number}-{step}")).await;
            assert!(newest().await > before, "{set} of {sequence}");
        }
    }
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_blocks_all_inserts_is_identified_and_ended() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    sql.run(&format!("GRANT pg_read_all_stats TO {}", world.database)).await;
    a_session_that_blocks_all_inserts_is_identified(&world, "idle in transaction").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_identified_without_permission_to_see_its_state() {
    let Some(world) = World::shared().await else { return };
    a_session_that_blocks_all_inserts_is_identified(&world, "pg_read_all_stats").await;
}

async fn a_session_that_blocks_all_inserts_is_identified(world: &World, state: &str) {
    let stock = world.stock().await;
    stock.await_ready().await;
    let holder = world.operator().await;
    let id = format!("process {} ", holder.ask("SELECT pg_backend_pid()").await);
    holder.run("BEGIN").await;
    holder.run(&INSERT.replace('$', "idle")).await;
    let began = Instant::now();
    let posts = async {
        let refused = world.post(&stock, "refused").await;
        refused.assert_unavailable();
        world.accept_eventually(&stock, "held-back").await;
        println!("inserts were blocked for {:?}", began.elapsed());
        // 10 s, plus the wait of a request that began before.
        assert!(began.elapsed() < Duration::from_secs(18), "{:?}", began.elapsed());
    };
    let words = [id.as_str(), "psql", state];
    let named = stock.await_unready("database", &words);
    let ((), reason) = tokio::join!(posts, named);
    println!("{reason}");
    assert!(holder.try_run("COMMIT").await.is_err(), "the session was not ended");
    stock.await_ready().await;
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_that_blocks_all_inserts_is_identified() {
    let Some(world) = World::shared().await else { return };
    let stock = world.stock().await;
    stock.await_ready().await;
    let sql = world.operator().await;
    let gid = format!("forgotten-{}", world.database);
    sql.run(&format!("BEGIN; {}; PREPARE TRANSACTION '{gid}'", INSERT.replace('$', "prepared"))).await;
    world.post(&stock, "refused").await.assert_unavailable();
    let reason = stock.await_unready("database", &[&gid, "ROLLBACK PREPARED"]).await;
    println!("{reason}");
    sql.run(&format!("COMMIT PREPARED '{gid}'")).await;
    world.accept_eventually(&stock, "after").await;
    stock.await_ready().await;
    world.audit().await;
}
