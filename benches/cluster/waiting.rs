//! Measures the memory of an estimator that holds waiting vehicles.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use vehicle_platform::event::VEHICLE_CREATED;

use crate::machine::sample_runnable;
use crate::processes::memory_bytes;
use crate::records::{self, created};
use crate::report::{Goal, Report, Row};
use crate::role::Role;
use crate::stats::{say, show};
use crate::workspace::{Site, Workspace};

/// The processing time, longer than the measure.
const PROCESSING_TIME: &str = "10m";
const PATIENCE: Duration = Duration::from_secs(120);
/// The period after all vehicles were read for which the largest memory is reported.
const SETTLE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);
const SAY: Duration = Duration::from_secs(5);
const GOAL_MB: f64 = 130.0;

/// Memory of a process, in millions of bytes.
struct Memory {
    idle: f64,
    resident: f64,
    peak: f64,
}

pub async fn waiting(workspace: &Workspace, report: &mut Report) {
    let count = workspace.settings.waiting;
    let site = workspace.site().await;
    records::write(workspace, &site, VEHICLE_CREATED, count, created).await;
    let mut rounds = Vec::new();
    // Nothing is committed, so each round reads the same vehicles.
    for round in 1..=workspace.settings.rounds {
        sample_runnable();
        let memory = one_round(workspace, report, &site, round == 1).await;
        say(&format!(
            "waiting, round {round}: {:.1} MB, at most {:.1} MB before; {:.1} MB at the start",
            memory.resident, memory.peak, memory.idle
        ));
        rounds.push(memory);
    }
    workspace.remove(site).await;

    let work = format!("Estimate, {} vehicles wait: resident memory", show(count as f64));
    let each = |figure: fn(&Memory) -> f64| rounds.iter().map(figure).collect::<Vec<_>>();
    let idle = each(|memory| memory.idle);
    report.rows.extend([
        Row::new(&format!("{work} (VmRSS)"), "MB", each(|memory| memory.resident))
            .limit("before it reads", idle.clone())
            .goal(Goal::AtMost(GOAL_MB)),
        Row::new(&format!("{work}, highest since the start (VmHWM)"), "MB", each(|memory| memory.peak))
            .limit("before it reads", idle)
            .goal(Goal::AtMost(GOAL_MB)),
    ]);
}

async fn one_round(workspace: &Workspace, report: &mut Report, site: &Site, notes: bool) -> Memory {
    let count = workspace.settings.waiting;
    let limit = count.to_string();
    let arguments = ["--processing-time", PROCESSING_TIME, "--max-in-flight", &limit];
    let mut estimate = Role::start(workspace, site, "estimate", &arguments);
    let pid = estimate.process().pid;
    let (started, mut said) = (Instant::now(), Instant::now());
    let mut idle = 0.0;
    loop {
        estimate.assert_running();
        let in_flight = estimate.metric("estimate_records_in_flight").await;
        match in_flight {
            Some(0.0) => idle = megabytes(pid, "VmRSS"),
            Some(in_flight) if in_flight >= count as f64 => break,
            _ => {}
        }
        let in_flight = in_flight.unwrap_or(0.0);
        assert!(
            started.elapsed() < PATIENCE,
            "after {PATIENCE:?} only {in_flight} of {count} vehicles are in flight: estimate has a lower limit, see \
             estimate.log"
        );
        if said.elapsed() > SAY {
            said = Instant::now();
            say(&format!("  waiting: {} vehicles are in flight", show(in_flight)));
        }
        tokio::time::sleep(POLL).await;
    }
    let mut memory = Memory { idle, resident: 0.0, peak: 0.0 };
    let settled = Instant::now() + SETTLE;
    while Instant::now() < settled {
        memory.resident = memory.resident.max(megabytes(pid, "VmRSS"));
        memory.peak = memory.peak.max(megabytes(pid, "VmHWM"));
        tokio::time::sleep(POLL).await;
    }
    estimate.assert_running();
    if notes {
        report.notes.push(format!(
            "Waiting vehicles: one estimator with `{}`. {}",
            arguments.join(" "),
            allocator(pid, &workspace.settings.binary)
        ));
    }
    estimate.stop().await;
    memory
}

fn megabytes(pid: u32, field: &str) -> f64 {
    memory_bytes(pid, field) / 1e6
}

/// Returns which allocator a process uses and with which settings, according to its executable and /proc.
fn allocator(pid: u32, binary: &Path) -> String {
    let code = fs::read(binary).unwrap();
    let names = |text: &[u8]| code.windows(text.len()).any(|window| window == text);
    // The messages of both allocators begin with their names.
    let name = match (names(b"<jemalloc>"), names(b"mimalloc: ")) {
        (false, false) => {
            let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
            let library = |path: &&str| path.contains("/libc.so") || path.contains("/ld-musl");
            let library = maps.split_whitespace().find(library).unwrap_or("the C library");
            format!("that of {library}")
        }
        (true, false) => "jemalloc, linked into the executable".to_owned(),
        (false, true) => "mimalloc, linked into the executable".to_owned(),
        (true, true) => "unknown, the executable contains both jemalloc and mimalloc".to_owned(),
    };
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let settings: Vec<_> = environment
        .split(|&byte| byte == 0)
        .map(String::from_utf8_lossy)
        .filter(|variable| variable.contains("MALLOC") || variable.starts_with("GLIBC_TUNABLES="))
        .collect();
    let settings = if settings.is_empty() { "none".to_owned() } else { settings.join(", ") };
    format!("Its allocator: {name}; settings in its environment: {settings}.")
}
