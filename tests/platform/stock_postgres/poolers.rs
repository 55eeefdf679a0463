//! Tests `PgBouncer` between stock and its database.

use super::world::World;
use crate::support::postgres::Pooler;

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_shares_sessions_is_reported_and_nothing_is_accepted_through_it() {
    let Some(world) = World::shared().await else { return };
    let pooler = Pooler::start(&world.server, "transaction", &world.database).await;
    let stock = world.stock_at(&world.url_at(&format!("127.0.0.1:{}", pooler.port()), "")).await;
    stock.await_unready("database", &["pooler", "PgBouncer", "pool_mode = session"]).await;
    for number in 0..5 {
        world.post(&stock, &format!("refused-{number}")).await.assert_unavailable();
    }
    let sql = world.operator().await;
    let tables = "SELECT count(*) FROM pg_class WHERE relname IN ('vehicles', 'event_log')";
    assert_eq!(sql.ask(tables).await, "0", "the schema was migrated through the pooler");
    stock.await_unready("database", &["pool_mode = session"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_through_a_pooler_with_separate_sessions() {
    let Some(world) = World::shared().await else { return };
    let pooler = Pooler::start(&world.server, "session", &world.database).await;
    let url = world.url_at(&format!("127.0.0.1:{}", pooler.port()), "");
    let mut stock = world.stock_at(&url).await;
    stock.await_ready().await;
    for round in 0..3 {
        let accepting = async {
            for number in 0..20 {
                world.accept(&stock, &format!("{round}-{number}")).await;
            }
        };
        accepting.await;
        stock.kill_and_restart().await;
        world.accept_eventually(&stock, &format!("{round}-restarted")).await;
    }
    stock.await_ready().await;
    world.audit().await;
}
