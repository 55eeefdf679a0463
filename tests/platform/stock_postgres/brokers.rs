//! Tests an instance that reaches the database but not Kafka or the registry.

use std::time::{Duration, Instant};

use super::world::World;
use crate::support::free_port;

/// A relay that cannot publish does not take the lease, so another publishes within this time.
const PROMPT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_without_kafka_does_not_prevent_others_from_publishing() {
    let Some(world) = World::shared().await else { return };
    let nowhere = format!("127.0.0.1:{}", free_port());
    let broken = world.stock_with(&world.url(), &nowhere, world.registry()).await;
    a_healthy_instance_publishes_next_to(&world, &broken, "kafka", &["no broker answers", &nowhere]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_without_a_registry_does_not_prevent_others_from_publishing() {
    let Some(world) = World::shared().await else { return };
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let broken = world.stock_with(&world.url(), world.kafka(), &nowhere).await;
    a_healthy_instance_publishes_next_to(&world, &broken, "schema-registry", &[&nowhere]).await;
}

async fn a_healthy_instance_publishes_next_to(
    world: &World,
    broken: &super::stock::Stock,
    dependency: &str,
    reason: &[&str],
) {
    broken.await_unready(dependency, reason).await;
    world.accept_eventually(broken, "first").await;
    let healthy = world.stock().await;
    let began = Instant::now();
    world.accept_eventually(&healthy, "second").await;
    world.accept(broken, "third").await;
    world.audit().await;
    println!("published after {:?} next to an instance without {dependency}", began.elapsed());
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    healthy.await_ready().await;
    assert!(broken.metric("stock_relay_leader").await < 1.0);
    for number in 0..3 {
        world.accept(broken, &format!("later-{number}")).await;
    }
    let began = Instant::now();
    world.audit().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    broken.await_unready(dependency, reason).await;
}
