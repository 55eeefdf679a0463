//! Runs both releases as processes under load: a rolling upgrade, a downgrade, and another upgrade.
//!
//! `make upgrade` builds the older release and passes its executable in `UPGRADE_FROM`. `UPGRADE_SECONDS` sets the
//! length of a phase, and `UPGRADE_SEED` repeats a selection of faults.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rdkafka::message::Message as _;
use uuid::Uuid;

use crate::database::Database;
use crate::engines::Engines;
use crate::load::{Load, Target};
use crate::older_release::TOPIC;
use crate::stock::Stock;
use crate::support::engines::address;
use crate::support::kafka::read_all;
use crate::support::{BINARY, eventually};

const OLD: [&str; 2] = ["old-1", "old-2"];
const NEW: [&str; 2] = ["new-1", "new-2"];
/// The time between two faults, in milliseconds.
const LULL: std::ops::Range<u64> = 500..3_000;
/// The time that a killed instance stays down, in milliseconds.
const DOWN: std::ops::Range<u64> = 0..1_500;
/// The time without a new record after which missing ones are lost.
const PATIENCE: Duration = Duration::from_secs(45);
/// The time without a new record, once all have arrived, after which no duplicates are expected.
const QUIET: Duration = Duration::from_secs(5);
/// The time before a crash within which an accepted vehicle may be duplicated by a downgrade right after the crash.
/// The position in the database moves once per second, and the relay sees an event after at most half a second.
const MAY_DUPLICATE: Duration = Duration::from_secs(3);

struct World {
    engines: Engines,
    database: Database,
    prefix: String,
    instances: BTreeMap<&'static str, Stock>,
    rng: StdRng,
    phase: Duration,
    faults: BTreeMap<String, usize>,
    began: Instant,
}

/// The comparison of the accepted vehicles with the result.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    lost: BTreeSet<String>,
    doubled: BTreeSet<String>,
    /// Vehicles that are only in one of the ledger and the table `vehicles`.
    astray: BTreeSet<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_and_downgrade_lose_and_duplicate_nothing() {
    let Some(older) = address("the older release", "UPGRADE_FROM") else { return };
    let Some(mut world) = World::prepare(older.into()).await else { return };
    let mut load = Load::start(&world.targets());

    world.say("the older release alone");
    world.start(&OLD);
    world.disturb(&OLD).await;
    world.say("both releases");
    world.start(&NEW[..1]);
    world.disturb(&["old-1", "old-2", "new-1"]).await;
    world.start(&NEW);
    world.disturb(&["old-1", "old-2", "new-1", "new-2"]).await;
    world.stop("old-2").await;
    world.kill("old-1");
    world.say("this release alone");
    world.disturb(&NEW).await;
    world.go_back_gracefully().await;
    world.say("the older release again");
    world.start(&OLD);
    world.disturb(&OLD).await;
    world.say("both releases again");
    world.start(&NEW);
    world.disturb(&["old-1", "old-2", "new-1", "new-2"]).await;
    for name in OLD {
        world.stop(name).await;
    }
    world.disturb(&NEW).await;
    load.stop().await;
    world.start(&NEW);
    let verdict = world.finish(&load).await;
    world.print("upgrade, downgrade, and upgrade", &load, &verdict);
    assert_eq!(verdict, Verdict::default(), "the roles' logs are in {}", logs().display());

    // Tests the documented duplicates: a crash right before the downgrade.
    let before: BTreeSet<String> = load.accepted().into_keys().collect();
    let mut load = Load::start_after(&world.targets(), before.len());
    tokio::time::sleep(world.phase).await;
    let crashed = Instant::now();
    NEW.iter().for_each(|name| world.kill(name));
    world.give_back();
    world.start(&OLD);
    tokio::time::sleep(world.phase).await;
    load.stop().await;
    let mut verdict = world.finish(&load).await;
    verdict.astray = verdict.astray.difference(&before).cloned().collect();
    world.print("downgrade after a crash", &load, &verdict);
    for vin in std::mem::take(&mut verdict.doubled) {
        let age = load.accepted().get(&vin).and_then(|accepted| crashed.checked_duration_since(*accepted));
        assert!(age.is_some_and(|age| age < MAY_DUPLICATE), "{vin} was accepted {age:?} before the crash");
    }
    assert_eq!(verdict, Verdict::default(), "the roles' logs are in {}", logs().display());
    for name in OLD {
        world.stop(name).await;
    }
    world.end().await;
}

/// Returns the directory of the instances' logs.
fn logs() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("upgrade")
}

impl World {
    /// Prepares the instances. Reports and returns `None` when PostgreSQL is missing.
    async fn prepare(older: PathBuf) -> Option<Self> {
        let database = Database::postgres().await?;
        let engines = Engines::from_environment().await;
        let seed = std::env::var("UPGRADE_SEED").ok().filter(|seed| !seed.is_empty());
        let seed = seed.map_or_else(|| rand::random_range(0..1_000_000), |seed| seed.parse().unwrap());
        let seconds = std::env::var("UPGRADE_SECONDS").ok().filter(|seconds| !seconds.is_empty());
        let phase = Duration::from_secs(seconds.map_or(15, |seconds| seconds.parse().unwrap()));
        let logs = logs();
        std::fs::remove_dir_all(&logs).ok();
        std::fs::create_dir_all(&logs).unwrap();
        println!("seed {seed}, phases of {phase:?}; the roles' logs are in {}", logs.display());
        let prefix = format!("upgrade-{}.", Uuid::now_v7().simple());
        let instance = |name: &'static str, binary: &Path| {
            let stock = Stock::new(&engines, &database.url());
            (name, stock.with(binary.to_owned(), &prefix, logs.join(format!("{name}.log"))))
        };
        let instances = OLD.map(|name| instance(name, &older)).into_iter();
        let instances = instances.chain(NEW.map(|name| instance(name, Path::new(BINARY)))).collect();
        let rng = StdRng::seed_from_u64(seed);
        let (faults, began) = (BTreeMap::new(), Instant::now());
        Some(Self { engines, database, prefix, instances, rng, phase, faults, began })
    }

    fn targets(&self) -> Vec<Target> {
        self.instances.iter().map(|(name, stock)| Target { name, url: stock.url() }).collect()
    }

    fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Starts the instances that are not running.
    fn start(&mut self, names: &[&'static str]) {
        for name in names {
            let stock = self.instance(name);
            if !stock.is_running() {
                stock.start();
            }
        }
    }

    fn instance(&mut self, name: &'static str) -> &mut Stock {
        self.instances.get_mut(name).unwrap()
    }

    fn kill(&mut self, name: &'static str) {
        self.instance(name).kill();
        *self.faults.entry(format!("{name} killed")).or_insert(0) += 1;
    }

    async fn stop(&mut self, name: &'static str) {
        let status = self.instance(name).terminate().await;
        assert_eq!(status.code(), Some(0), "{name}");
        *self.faults.entry(format!("{name} terminated")).or_insert(0) += 1;
    }

    /// Kills and terminates instances at random moments of one phase, and leaves all of them running at the end.
    async fn disturb(&mut self, names: &[&'static str]) {
        for name in names {
            self.instance(name).await_ready().await;
        }
        let until = Instant::now() + self.phase;
        loop {
            let lull = Duration::from_millis(self.rng.random_range(LULL));
            tokio::time::sleep(lull).await;
            if Instant::now() >= until {
                return;
            }
            let name = names[self.rng.random_range(0..names.len())];
            if self.rng.random_bool(0.6) {
                self.kill(name);
            } else {
                self.stop(name).await;
            }
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(DOWN))).await;
            self.start(names);
        }
    }

    /// Downgrades as docs/UPGRADING.md describes, while clients continue to post.
    async fn go_back_gracefully(&mut self) {
        // A killed instance may have published last. Until another takes over, the position lags.
        eventually("one relay to publish", async || {
            for stock in self.instances.values() {
                if stock.metric("stock_relay_leader").await == Some(1) {
                    return Some(());
                }
            }
            None
        })
        .await;
        for name in NEW {
            self.stop(name).await;
        }
        let holders = "SELECT holder AS text FROM relay_lease WHERE holder IS NOT NULL";
        assert_eq!(self.database.texts(holders).await, Vec::<String>::new(), "the lease was not released");
        self.give_back();
    }

    fn give_back(&self) {
        self.say("downgrading");
        for migration in ["0004_tracestate", "0003_idempotency_key", "0002_event_log"] {
            let output = Command::new("psql")
                .args(["-q", "-v", "ON_ERROR_STOP=1", &self.database.url(), "-f"])
                .arg(format!("src/stock/migrations/postgres/{migration}/down.sql"))
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            print!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// Waits until missing records can no longer arrive, then compares.
    async fn finish(&self, load: &Load) -> Verdict {
        let accepted: BTreeSet<_> = load.accepted().into_keys().collect();
        let mut progress = (0, Instant::now());
        loop {
            let records = read_all(&self.engines.kafka, &format!("{}{TOPIC}", self.prefix)).await;
            let mut counts = BTreeMap::<String, usize>::new();
            for record in &records {
                let vin = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
                *counts.entry(vin).or_default() += 1;
            }
            if records.len() > progress.0 {
                progress = (records.len(), Instant::now());
            }
            let lost: BTreeSet<_> =
                accepted.iter().filter(|vin| !counts.contains_key(*vin)).cloned().collect();
            let patience = if lost.is_empty() { QUIET } else { PATIENCE };
            if progress.1.elapsed() > patience {
                let rows: BTreeSet<_> =
                    self.database.texts("SELECT vin AS text FROM vehicles").await.into_iter().collect();
                let doubled =
                    counts.into_iter().filter(|(_, count)| *count > 1).map(|(vin, _)| vin).collect();
                return Verdict {
                    lost,
                    doubled,
                    astray: rows.symmetric_difference(&accepted).cloned().collect(),
                };
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn print(&self, what: &str, load: &Load, verdict: &Verdict) {
        println!("\n{what}:");
        println!("{:8} vehicles accepted", load.accepted().len());
        println!("{:8} lost", verdict.lost.len());
        println!("{:8} duplicated", verdict.doubled.len());
        println!("{:8.1} s longest time to a 201", load.longest_post().as_secs_f64());
        for ((name, status), count) in load.answers() {
            println!("{count:8} answers {status} of {name}");
            assert!(!name.starts_with("new") || status != 500, "this release answered 500");
        }
        for (fault, count) in &self.faults {
            println!("{count:8} times {fault}");
        }
        println!();
    }

    async fn end(self) {
        drop(self.instances);
        self.database.clear().await;
        self.engines.end().await;
    }
}
