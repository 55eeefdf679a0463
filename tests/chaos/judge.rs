//! Judges the platform under faults with `vehicle-platform load`, as an operator would.

use std::fs::File;
use std::process::{Child, Command, ExitStatus};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use crate::support::BINARY;
use crate::world::World;
use crate::{FAULT_STREAM, LANES, PROCESSING_TIME, Run, disturb, fault::Deck, look_after, stream};

const RATE: &str = "20";
/// Longer than any fault: a vehicle is offered until it is accepted, and an ad is waited for.
const DEADLINE: &str = "5m";
const WAIT: &str = "3m";

/// A load, which ends with the test.
struct Load(Child);

impl Load {
    async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Verifies that the load accepts each of its vehicles, and finds none lost or doubled, while everything is disturbed.
#[tokio::test(flavor = "multi_thread")]
async fn the_load_finds_nothing_lost_or_doubled() {
    let Some(run) = Run::of_environment("load") else { return };
    let seed = run.seed;
    let Some(world) = World::start(&run.processing_time(), &run.logs).await else { return };
    // The load does not stop for an operator who deletes a topic.
    let mut left_out = run.left_out();
    left_out.push("topics created again".to_owned());
    let deck = Mutex::new(Deck::new(stream(seed, FAULT_STREAM), run.nodes.clone(), left_out));

    let time = run.processing_time();
    let length = format!("{}s", run.faults.as_secs());
    let mut command = Command::new(BINARY);
    command.args(["load", "--json", "--rate", RATE, "--for", &length, "--processing-time", &time]);
    command.args(["--deadline", DEADLINE, "--wait", WAIT]);
    command.args(["--stock-url", world.platform.stock_url(), "--ads-url", world.platform.ads_url()]);
    let report = run.logs.join("load.json");
    command.stdout(File::create(&report).unwrap());
    let until = run.until();
    let mut load = Load(command.spawn().unwrap());
    let lanes = futures::future::join_all((0..LANES).map(|lane| disturb(&world, &deck, seed, lane, until)));
    let (status, _) = tokio::select! {
        ended = async { tokio::join!(load.ended(), lanes) } => ended,
        never = look_after(&world) => never,
    };
    world.end().await;

    let report = std::fs::read(report).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap_or_else(|_| panic!("no report: {status}"));
    println!("\nseed {seed}, {} s of faults, {PROCESSING_TIME:?} per estimate:", run.faults.as_secs());
    for (kind, count) in world.counts().await {
        println!("{count:8} {kind}");
    }
    println!("{report:#}");
    let breaches = world.breaches().await;
    assert!(breaches.is_empty(), "seed {seed}: {breaches:#?}");
    assert_eq!(report["clean"], true, "seed {seed}");
    assert_eq!(status.code(), Some(0), "seed {seed}");
    assert_eq!(report["accepted"], report["offered"], "seed {seed}");
    world.platform.remove().await;
}
