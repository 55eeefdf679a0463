//! Tests a network that drops every packet between stock and its database.

use std::time::{Duration, Instant};

use futures::future::join_all;

use super::world::World;
use crate::support::eventually;
use crate::support::proxy::{Line, Proxy};

/// The time for a takeover: a lease of 5 s, one check per second, the start of the session, and slack for a busy
/// machine.
const TAKEOVER: Duration = Duration::from_secs(20);
/// The number of concurrent requests.
const CLIENTS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_publishes_while_packets_are_dropped() {
    let Some(world) = World::shared().await else { return };
    let (line, port) = Proxy::start(0, ([127, 0, 0, 1], world.server.port()).into()).await;
    let cut_off = world.stock_at(&world.url_at(&format!("127.0.0.1:{port}"), "")).await;
    cut_off.await_ready().await;
    world.accept(&cut_off, "before").await;
    eventually("the first instance to publish", async || {
        (cut_off.metric("stock_events_published_total").await >= 1.0).then_some(())
    })
    .await;
    let other = world.stock().await;
    other.await_ready().await;
    assert!(cut_off.metric("stock_relay_leader").await > 0.0);

    // Some of these requests are in progress when the line is cut. They may have been written although their answers
    // are lost.
    let under_way = join_all((0..CLIENTS).map(async |number| {
        world.post(&cut_off, &format!("under-way-{number}")).await;
    }));
    let cut = async {
        eventually("a first vehicle", async || {
            (cut_off.metric("stock_vehicles_accepted_total").await >= 2.0).then_some(())
        })
        .await;
        line.set(Line::Dropped);
        Instant::now()
    };
    let (_, cut) = tokio::join!(under_way, cut);
    let connections = line.accepted();
    let refused = join_all((0..CLIENTS).map(async |number| {
        world.post(&cut_off, &format!("refused-{number}")).await.assert_unavailable();
    }));
    let elsewhere = async {
        for number in 0..10 {
            world.accept(&other, &format!("elsewhere-{number}")).await;
        }
        eventually("the other instance to take the lease", async || {
            (other.metric("stock_relay_leader").await > 0.0).then_some(())
        })
        .await;
        assert!(cut.elapsed() < TAKEOVER, "{:?}", cut.elapsed());
        world.audit().await;
        println!("published {:?} after the cut", cut.elapsed());
    };
    let readiness = cut_off.await_unready("database", &["unavailable"]);
    tokio::join!(refused, elsewhere, readiness);
    let made = line.accepted() - connections;
    assert!(made < 30, "{made} connections in {:?}", cut.elapsed());

    line.set(Line::Open);
    cut_off.await_ready().await;
    world.accept_eventually(&cut_off, "after").await;
    other.terminate().await;
    world.accept(&cut_off, "after-takeover").await;
    world.audit().await;
}
