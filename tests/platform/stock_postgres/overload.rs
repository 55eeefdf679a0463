//! Tests more requests than a suspended database can serve.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::stream::{self, StreamExt as _};

use super::stock::Stock;
use super::world::World;
use crate::support::eventually;

const REQUESTS: usize = 5_000;
const CONNECTIONS: usize = 1_000;
/// The memory that 1,500 connections with one request each may take, in MiB.
const GROWTH: u64 = 150;

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_on_a_suspended_server_is_refused_and_releases_its_memory() {
    let Some(world) = World::alone(crate::support::postgres::Options::default()).await else { return };
    let stock = world.stock().await;
    stock.await_ready().await;
    world.accept(&stock, "before").await;
    world.server.freeze();
    let frozen = burst(&world, &stock, "frozen").await;
    stock.await_unready("database", &["answer"]).await;
    world.server.thaw();
    assert_eq!(frozen.keys().copied().collect::<Vec<_>>(), [503], "{frozen:?}");
    world.accept_eventually(&stock, "between").await;
    stock.await_ready().await;

    // Repeats the burst with a lock of another session, so that the statement waits on the server.
    let sql = world.operator().await;
    sql.run("BEGIN; LOCK TABLE vehicles IN SHARE MODE").await;
    let locked = burst(&world, &stock, "locked").await;
    sql.run("ROLLBACK").await;
    assert_eq!(locked.keys().copied().collect::<Vec<_>>(), [503], "{locked:?}");
    let began = Instant::now();
    world.accept_eventually(&stock, "after").await;
    println!("accepted {:?} after the lock was released", began.elapsed());
    stock.await_ready().await;
    world.audit().await;
}

/// Posts [`REQUESTS`] vehicles over [`CONNECTIONS`], monitors the memory, and counts the answers.
async fn burst(world: &World, stock: &Stock, stem: &str) -> BTreeMap<u16, usize> {
    let before = stock.memory_mib();
    let most = AtomicU64::new(before);
    let began = Instant::now();
    let posts = stream::iter(0..REQUESTS)
        .map(async |number| {
            let answer = world.post(stock, &format!("{stem}-{number}")).await;
            if !answer.is_created() {
                answer.assert_unavailable();
            }
            answer.status.as_u16()
        })
        .buffer_unordered(CONNECTIONS)
        .collect::<Vec<_>>();
    let watch = eventually("the end of the burst", async || {
        most.fetch_max(stock.memory_mib(), Ordering::Relaxed);
        None::<()>
    });
    let statuses = tokio::select! {
        statuses = posts => statuses,
        () = watch => Vec::new(),
    };
    let most = most.into_inner();
    println!("{REQUESTS} POSTs in {:?}, memory {before} MiB, at most {most} MiB", began.elapsed());
    assert!(most < before + GROWTH, "memory grew from {before} MiB to {most} MiB");
    let mut counts = BTreeMap::new();
    statuses.into_iter().for_each(|status| *counts.entry(status).or_default() += 1);
    counts
}
