//! Describes the machine of a run and the other load on it.

use std::fs;
use std::sync::Mutex;

use serde::Serialize;

/// The machine and the load that other programs put on it.
#[derive(Debug, Serialize)]
pub struct Machine {
    processor: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    engines: String,
    load_average_before: String,
    load_average_after: String,
    /// Runnable threads other than the bench's own, sampled before each round.
    other_runnable: Vec<u64>,
}

static RUNNABLE: Mutex<Vec<u64>> = Mutex::new(Vec::new());

impl Machine {
    /// Describes this machine; `engines` are the versions of the engines.
    pub fn describe(engines: String) -> Self {
        Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().unwrap().get(),
            memory_gib: field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
                .unwrap_or(0)
                .div_ceil(1 << 20),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            engines,
            load_average_before: load_average(),
            load_average_after: String::new(),
            other_runnable: Vec::new(),
        }
    }

    pub fn finish(&mut self) {
        self.load_average_after = load_average();
        self.other_runnable = RUNNABLE.lock().unwrap().clone();
    }

    /// Returns the description as prose.
    pub fn sentences(&self) -> String {
        let runnable = &self.other_runnable;
        let mean = runnable.iter().sum::<u64>() as f64 / runnable.len().max(1) as f64;
        format!(
            "{} cores ({}), {} GiB, Linux {}. {}. Load average {} before and {} after the run; before the rounds {:.1} \
             other threads were runnable on average, {} at most.",
            self.cores,
            self.processor,
            self.memory_gib,
            self.kernel,
            self.engines,
            self.load_average_before,
            self.load_average_after,
            mean,
            runnable.iter().max().unwrap_or(&0),
        )
    }
}

/// Records how many other threads are runnable. Call it between rounds, not during one.
pub fn sample_runnable() {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let running =
        stat.lines().find_map(|line| line.strip_prefix("procs_running ")?.trim().parse::<u64>().ok());
    RUNNABLE.lock().unwrap().push(running.unwrap_or(1).saturating_sub(1));
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
