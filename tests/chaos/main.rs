//! Verifies that every 201 becomes an ad: runs the platform on the production topology under faults drawn from a
//! seed.
//!
//! `make chaos` runs it. `CHAOS_MINUTES` sets how long faults are injected, and `CHAOS_SEED` repeats a selection of
//! them. A ledger of every accepted vehicle is recorded here, outside the platform, and compared with the result at
//! the end.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod backlog;
#[cfg(target_os = "linux")]
mod black_hole;
mod fault;
mod judge;
mod load;
mod odd_header;
mod poison;
mod publications;
mod recreation;
#[path = "../support/mod.rs"]
mod support;
mod twin;
mod verdict;
mod world;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fault::{Deck, Engine, Fault};
use load::Ledger;
use publications::Publications;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use support::cluster::{ADS, ESTIMATES, NAMES, Platform, STOCK};
use support::engines::address;
use support::{eventually, node};
use twin::Life;
use verdict::{Verdict, Watch};
use world::World;

/// Longer than a batch takes to be committed, so that there is always uncommitted work to lose.
const PROCESSING_TIME: Duration = Duration::from_secs(5);
const CLIENTS: u32 = 6;
/// The time between two vehicles of one client.
const PACE: Duration = Duration::from_millis(200);
/// The maximum number of concurrent faults.
const LANES: u64 = 3;
/// The time between two faults of a lane, in milliseconds.
const LULL: std::ops::Range<u64> = 500..4_000;
/// The time between two runs of the second stock, in milliseconds.
const ABSENCE: std::ops::Range<u64> = 2_000..15_000;
/// The duration of black holes that exceed every timeout of the platform. Each period has two.
const LONG_HOLE: Duration = Duration::from_secs(150);
const LONG_HOLE_PERIOD: Duration = Duration::from_secs(300);
/// The maximum resident memory of a role in MiB: its limit in compose/compose.yaml, except for stock.
const MEMORY_LIMITS: [(usize, u64); 3] = [(ESTIMATES[0], 208), (ESTIMATES[1], 208), (ADS, 192)];
/// The numbers of the random streams, in addition to those of the lanes.
const TWIN_STREAM: u64 = 1 << 32;
const HOLE_STREAM: u64 = 2 << 32;
const FAULT_STREAM: u64 = 3 << 32;
/// The time without a new ad, after everything was restored, after which missing vehicles are lost.
const PATIENCE: Duration = Duration::from_secs(90);

/// Verifies that whichever part is killed, stopped, paused or disconnected, each accepted vehicle becomes one ad,
/// each event exists once, poison ends up only in the dead-letter topics, and no role ends unless requested.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_each_accepted_vehicle_becomes_one_ad() {
    let Some(run) = Run::of_environment("chaos") else { return };
    let (seed, minutes) = (run.seed, run.faults.as_secs_f64() / 60.0);
    let Some(world) = World::start(&run.processing_time(), &run.logs).await else { return };
    let ledger = Arc::clone(&world.ledger);
    let until = run.until();

    let posted = Arc::new(AtomicU64::new(0));
    let next = move || (Instant::now() < until).then(|| posted.fetch_add(1, Ordering::Relaxed));
    let platform = Arc::clone(&world.platform);
    let load = load::drive(platform, Arc::clone(&ledger), CLIENTS, PACE, next, world.targets());
    let deck = Mutex::new(Deck::new(stream(seed, FAULT_STREAM), run.nodes.clone(), run.left_out()));
    let lanes = futures::future::join_all((0..LANES).map(|lane| disturb(&world, &deck, seed, lane, until)));
    let twin = host_twins(&world, seed, until);
    let holes = open_long_holes(&world, seed, until);
    let mut watch = Watch::new(&world.platform);
    let mut publications = Publications::new(&world);
    let mut peak = vec![0; 4];
    tokio::select! {
        _ = async { tokio::join!(load, lanes, twin, holes) } => {}
        () = publications.watch(&world, &ledger) => {}
        () = async {
            loop {
                look(&world, &ledger, &mut watch).await;
                peak = peak.iter().zip(world.memory()).map(|(&peak, size)| size.max(peak)).collect();
            }
        } => {}
    }
    println!(
        "everything is restored, {} vehicles were accepted; waiting for the platform to finish",
        ledger.len()
    );
    let finishing = Instant::now();
    let verdict = loop {
        let verdict = Verdict::reach(&world.platform, &ledger, &world.history().await).await;
        if !verdict.is_unfinished() || watch.stalled_for() > PATIENCE || finishing.elapsed() > 10 * PATIENCE {
            break verdict;
        }
        let looks = async {
            for _ in 0..10 {
                look(&world, &ledger, &mut watch).await;
            }
        };
        tokio::select! {
            () = looks => {}
            () = publications.watch(&world, &ledger) => {}
        }
    };
    let finished = finishing.elapsed();
    let ads = eventually("the list of ads", async || world.platform.ad_vins().await).await.len();
    let audit = audit(&world.platform);
    world.end().await;
    let breaches = world.breaches().await;

    println!("\nseed {seed}, {minutes} minutes of faults:");
    for (kind, count) in world.counts().await {
        println!("{count:8} {kind}");
    }
    println!("{:8} vehicles accepted", ledger.len());
    println!("{:8} of them by the second stock", ledger.accepted_by_twin());
    println!("{:8} lost", verdict.lost.len());
    println!("{:8} duplicate ads", verdict.doubled_ads.len());
    println!("{:8} duplicate records in stock.vehicle-created", verdict.doubled_created.len());
    println!("{:8} duplicate records in stock.vehicle-processed", verdict.doubled_processed.len());
    println!("{:8} wrong dead letters", verdict.wrong_dead_letters.len());
    println!("{:8} roles that ended unexpectedly", breaches.len());
    println!(
        "{:8} times that a stock reported ready but published nothing",
        publications.false_answers().len()
    );
    println!("{:8.1} s longest time without a published event", publications.longest_stall().as_secs_f64());
    println!("{:8.1} s longest stall of ads", watch.longest_stall().as_secs_f64());
    println!("{:8.1} s longest time to a 201", ledger.longest_post().as_secs_f64());
    println!("{:8.1} s to finish", finished.as_secs_f64());
    for (name, peak) in NAMES.iter().zip(&peak) {
        println!("{peak:8} MiB resident at most: {name}");
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load averages of 1, 5 and 15 minutes at the end, and processes: {}", load.trim());

    assert!(!ledger.vins().is_empty(), "nothing was accepted, so nothing was verified");
    assert_eq!(verdict, Verdict::default(), "seed {seed}");
    assert!(breaches.is_empty(), "seed {seed}: {breaches:#?}");
    let false_answers = publications.false_answers();
    assert!(false_answers.is_empty(), "seed {seed}: {false_answers:#?}");
    let expected = Audit { advertised: ledger.len(), ads_without_vehicle: ads - ledger.len() };
    assert_eq!(audit, Ok(expected), "seed {seed}: the platform's own audit disagrees");
    for (role, limit) in MEMORY_LIMITS {
        let (name, peak) = (NAMES[role], peak[role]);
        assert!(peak <= limit, "seed {seed}: {name} had {peak} MiB resident, but the limit is {limit}");
    }
    world.platform.remove().await;
}

/// The counts of the platform's own audit.
#[derive(Debug, PartialEq, Eq)]
struct Audit {
    advertised: usize,
    /// Ads of vehicles that others wrote to the topics.
    ads_without_vehicle: usize,
}

/// Returns the counts of the audit, or its output when it has any other finding.
fn audit(platform: &Platform) -> Result<Audit, String> {
    // Discards the poison, which is never readable.
    let discarded = platform.tool(&["dlq", "discard", "--all"]);
    let audited = platform.tool(&["audit", "--json"]);
    let report: serde_json::Value =
        serde_json::from_slice(&audited.stdout).map_err(|_| format!("{audited:?}"))?;
    let findings = report["findings"].as_object().unwrap();
    let count = |finding: &str| usize::try_from(findings[finding]["count"].as_u64().unwrap()).unwrap();
    let ads_without_vehicle = count("adWithoutVehicle");
    let found: usize = findings.keys().map(|finding| count(finding)).sum();
    if !discarded.status.success() || found != ads_without_vehicle || report["deadLetters"] != 0 {
        return Err(format!("{discarded:?} {report}"));
    }
    let advertised = usize::try_from(report["advertised"].as_u64().unwrap()).unwrap();
    Ok(Audit { advertised, ads_without_vehicle })
}

/// Returns the random numbers for one part of the run, which are independent of the other parts.
fn stream(seed: u64, number: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(LANES).wrapping_add(number))
}

/// Injects one fault after another.
async fn disturb(world: &World, deck: &Mutex<Deck>, seed: u64, lane: u64, until: Instant) {
    let mut rng = stream(seed, lane);
    loop {
        tokio::time::sleep(Duration::from_millis(rng.random_range(LULL))).await;
        if Instant::now() >= until {
            return;
        }
        let drawn = deck.lock().unwrap().draw(|fault| world.has_room_for(fault));
        if let Some((fault, hold)) = drawn {
            world.inject(fault, hold).await;
        }
    }
}

/// Runs the second stock again and again.
async fn host_twins(world: &World, seed: u64, until: Instant) {
    let mut rng = stream(seed, TWIN_STREAM);
    loop {
        tokio::time::sleep(Duration::from_millis(rng.random_range(ABSENCE))).await;
        if Instant::now() >= until {
            return;
        }
        world.host(&Life::draw(&mut rng)).await;
    }
}

/// Opens two long black holes in each period that fits into the run: one between a role and its database, and one
/// between another role and Kafka or the registry. Two periods cover all four engines.
async fn open_long_holes(world: &World, seed: u64, until: Instant) {
    let mut rng = stream(seed, HOLE_STREAM);
    let mut owners = [STOCK, ADS];
    let mut engines = [Engine::Kafka, Engine::Registry];
    owners.shuffle(&mut rng);
    engines.shuffle(&mut rng);
    for (&owner, &engine) in owners.iter().zip(&engines).cycle() {
        if until.saturating_duration_since(Instant::now()) + Duration::from_secs(1) <= LONG_HOLE_PERIOD {
            return;
        }
        let next = Instant::now() + LONG_HOLE_PERIOD;
        let others: Vec<_> = (0..NAMES.len()).filter(|role| *role != owner).collect();
        let other = others[rng.random_range(0..others.len())];
        let mut open = |role, engine| {
            let pause = (LONG_HOLE_PERIOD - LONG_HOLE).mul_f64(rng.random_range(0.0..0.8));
            async move {
                tokio::time::sleep(pause).await;
                world.inject(Fault::BlackHole(role, engine), LONG_HOLE).await;
            }
        };
        tokio::join!(open(owner, Engine::Database), open(other, engine));
        tokio::time::sleep_until(next.into()).await;
    }
}

async fn look(world: &World, ledger: &Ledger, watch: &mut Watch) {
    world.look_after_roles().await;
    let due = ledger.accepted_before(Instant::now() - PROCESSING_TIME);
    watch.look(&world.platform, due).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// Restarts roles that ended, forever.
async fn look_after(world: &World) -> ! {
    loop {
        world.look_after_roles().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The settings of a run.
struct Run {
    seed: u64,
    faults: Duration,
    nodes: Vec<&'static str>,
    logs: PathBuf,
}

impl Run {
    /// Reads the settings. Reports and returns `None` when one is missing.
    fn of_environment(name: &str) -> Option<Self> {
        let minutes = address("the length of the faults", "CHAOS_MINUTES")?;
        let faults = Duration::from_secs_f64(minutes.parse::<f64>().unwrap() * 60.0);
        let seed = match std::env::var("CHAOS_SEED").ok().filter(|seed| !seed.is_empty()) {
            Some(seed) => seed.parse().unwrap(),
            None => rand::random_range(0..1_000_000),
        };
        let logs = logs(&format!("{name}-{seed}"));
        println!("seed {seed}, {minutes} minutes; the roles' logs are in {}", logs.display());
        Some(Self { seed, faults, nodes: node::names()?, logs })
    }

    fn processing_time(&self) -> String {
        format!("{}s", PROCESSING_TIME.as_secs())
    }

    /// Returns the end of the faults if they begin now.
    fn until(&self) -> Instant {
        Instant::now() + self.faults
    }

    /// Returns the kinds of faults to leave out.
    fn left_out(&self) -> Vec<String> {
        let left_out = std::env::var("CHAOS_WITHOUT").unwrap_or_default();
        left_out.split(',').map(|kind| kind.trim().to_owned()).collect()
    }
}

/// Creates an empty directory for a run's logs.
fn logs(run: &str) -> PathBuf {
    let logs = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(run);
    std::fs::remove_dir_all(&logs).ok();
    std::fs::create_dir_all(&logs).unwrap();
    logs
}
