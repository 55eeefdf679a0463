//! A 201 is a promise: the platform on the production topology, under faults drawn from a seed.
//!
//! `make chaos` runs it. `CHAOS_MINUTES` says how long faults go on, and `CHAOS_SEED` repeats a choice of them.
//! A ledger of every accepted vehicle is kept here, outside the platform, and compared with what is there in the end.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod backlog;
mod fault;
mod load;
#[path = "../support/mod.rs"]
mod support;
mod verdict;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fault::Fault;
use load::Ledger;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use support::cluster::Platform;
use support::engines::address;
use verdict::{Verdict, Watch};
use world::World;

/// Longer than a batch takes to be committed, so that there is always something to lose.
const PROCESSING_TIME: Duration = Duration::from_secs(5);
const CLIENTS: u32 = 6;
/// Of one client, from one vehicle to the next.
const PACE: Duration = Duration::from_millis(200);
/// Faults that may go on at the same time.
const LANES: u64 = 3;
/// Between two faults of a lane, in milliseconds.
const LULL: std::ops::Range<u64> = 500..4_000;
/// Without a new ad for so long, after everything was restored, what is missing is lost.
const PATIENCE: Duration = Duration::from_secs(90);

/// Whatever is killed, stopped, paused or cut off: each accepted vehicle becomes one ad, each event is there once,
/// poison is in the dead-letter topics and nowhere else, and no role ends unless it is told to.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_each_accepted_vehicle_becomes_one_ad() {
    let Some(minutes) = address("the length of the faults", "CHAOS_MINUTES") else { return };
    let faults = Duration::from_secs_f64(minutes.parse::<f64>().unwrap() * 60.0);
    let seed = match std::env::var("CHAOS_SEED").ok().filter(|seed| !seed.is_empty()) {
        Some(seed) => seed.parse().unwrap(),
        None => rand::random_range(0..1_000_000),
    };
    let logs = logs(&format!("chaos-{seed}"));
    println!("seed {seed}, {minutes} minutes; the roles' logs are in {}", logs.display());
    let time = format!("{}s", PROCESSING_TIME.as_secs());
    let Some(world) = World::start(&time, &logs).await else { return };
    let ledger = Arc::new(Ledger::default());
    let until = Instant::now() + faults;

    let posted = Arc::new(AtomicU64::new(0));
    let next = move || (Instant::now() < until).then(|| posted.fetch_add(1, Ordering::Relaxed));
    let load = load::drive(Arc::clone(&world.platform), Arc::clone(&ledger), CLIENTS, PACE, next);
    let lanes = futures::future::join_all((0..LANES).map(|lane| disturb(&world, seed, lane, until)));
    let mut watch = Watch::new(&world.platform);
    let mut peak = vec![0; 4];
    tokio::select! {
        _ = async { tokio::join!(load, lanes) } => {}
        () = async {
            loop {
                look(&world, &ledger, &mut watch).await;
                peak = peak.iter().zip(world.memory()).map(|(&peak, size)| size.max(peak)).collect();
            }
        } => {}
    }
    println!("all is restored, {} vehicles were accepted; the platform settles", ledger.len());
    let settling = Instant::now();
    let verdict = loop {
        let verdict = Verdict::reach(&world.platform, &ledger, &world.poisons().await).await;
        // What is doubled stays so.
        let may_heal = !verdict.lost.is_empty() || !verdict.wrong_dead_letters.is_empty();
        if !may_heal || watch.stalled_for() > PATIENCE || settling.elapsed() > 10 * PATIENCE {
            break verdict;
        }
        for _ in 0..10 {
            look(&world, &ledger, &mut watch).await;
        }
    };
    let settled = settling.elapsed();
    let audit = audit(&world.platform);
    world.end().await;
    let breaches = world.breaches().await;

    println!("\nseed {seed}, {minutes} minutes of faults:");
    for (kind, count) in world.counts().await {
        println!("{count:8} {kind}");
    }
    println!("{:8} vehicles accepted", ledger.len());
    println!("{:8} lost", verdict.lost.len());
    println!("{:8} doubled ads", verdict.doubled_ads.len());
    println!("{:8} doubled records in stock.vehicle-created", verdict.doubled_created.len());
    println!("{:8} doubled records in stock.vehicle-processed", verdict.doubled_processed.len());
    println!("{:8} wrong dead letters", verdict.wrong_dead_letters.len());
    println!("{:8} roles that ended wrongly", breaches.len());
    println!("{:8.1} s longest stall of ads", watch.longest_stall().as_secs_f64());
    println!("{:8.1} s longest time to a 201", ledger.longest_post().as_secs_f64());
    println!("{:8.1} s to settle", settled.as_secs_f64());
    println!("{:8} MiB resident at most, of a role", peak.iter().max().unwrap());

    assert!(!ledger.vins().is_empty(), "nothing was accepted, so nothing was shown");
    assert_eq!(verdict, Verdict::default(), "seed {seed}");
    assert!(breaches.is_empty(), "seed {seed}: {breaches:#?}");
    assert_eq!(audit, Ok(ledger.len() as u64), "seed {seed}: the platform's own audit sees it otherwise");
    world.platform.remove().await;
}

/// How many vehicles have an ad, by the platform's own audit; what it said, when it is not clean.
fn audit(platform: &Platform) -> Result<u64, String> {
    // The poison, which nobody will ever read.
    let discarded = platform.tool(&["dlq", "discard", "--all"]);
    let audited = platform.tool(&["audit", "--json"]);
    if !discarded.status.success() || !audited.status.success() {
        return Err(format!("{discarded:?} {audited:?}"));
    }
    let report: serde_json::Value = serde_json::from_slice(&audited.stdout).unwrap();
    Ok(report["advertised"].as_u64().unwrap())
}

/// One fault after the other.
async fn disturb(world: &World, seed: u64, lane: u64, until: Instant) {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(LANES).wrapping_add(lane));
    loop {
        tokio::time::sleep(Duration::from_millis(rng.random_range(LULL))).await;
        if Instant::now() >= until {
            return;
        }
        let (fault, hold) = Fault::draw(&mut rng);
        world.inject(fault, hold).await;
    }
}

async fn look(world: &World, ledger: &Ledger, watch: &mut Watch) {
    world.look_after_roles().await;
    let due = ledger.accepted_before(Instant::now() - PROCESSING_TIME);
    watch.look(&world.platform, due).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// An empty directory for a run's logs.
fn logs(run: &str) -> PathBuf {
    let logs = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(run);
    std::fs::remove_dir_all(&logs).ok();
    std::fs::create_dir_all(&logs).unwrap();
    logs
}
