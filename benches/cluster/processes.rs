//! Reads the processor time and memory of processes from /proc.

use std::fs;
use std::time::Instant;

/// Clock ticks per second in /proc (`USER_HZ`), the same on every architecture that the platform supports.
const TICKS: f64 = 100.0;

/// A process whose processor time is measured.
#[derive(Clone, Debug)]
pub struct Process {
    pub name: String,
    pub pid: u32,
    /// Whether to count its children, including those that have exited.
    pub with_children: bool,
}

impl Process {
    pub fn new(name: &str, pid: u32) -> Self {
        Self { name: name.to_owned(), pid, with_children: true }
    }

    /// Returns this process.
    pub fn load_generator() -> Self {
        Self { name: "load generator".to_owned(), pid: std::process::id(), with_children: false }
    }

    /// Returns the processor time used so far, in seconds.
    fn used(&self) -> f64 {
        let Some(stat) = Stat::read(self.pid) else { return 0.0 };
        if !self.with_children {
            return stat.own;
        }
        let children = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Stat::read(pid).filter(|child| child.parent == self.pid)
        });
        stat.own + stat.ended_children + children.map(|child| child.own + child.ended_children).sum::<f64>()
    }
}

struct Stat {
    parent: u32,
    own: f64,
    ended_children: f64,
}

impl Stat {
    /// Reads /proc/PID/stat. Returns `None` when the process does not exist.
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name may contain any character. The fields after it start at number 3 of proc(5).
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let seconds = |field: usize| Some(fields.get(field - 3)?.parse::<f64>().ok()? / TICKS);
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: seconds(14)? + seconds(15)?,
            ended_children: seconds(16)? + seconds(17)?,
        })
    }
}

/// Processor time of the whole machine, in seconds since boot.
struct Machine {
    busy: f64,
    stolen: f64,
}

impl Machine {
    fn read() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let times: Vec<f64> = stat
            .lines()
            .next()
            .unwrap()
            .split_whitespace()
            .skip(1)
            .map(|ticks| ticks.parse::<f64>().unwrap() / TICKS)
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal.
        Self { busy: times[0] + times[1] + times[2] + times[5] + times[6], stolen: times[7] }
    }
}

/// Measures processor time from a start to one or more ends.
pub struct Watch {
    processes: Vec<Process>,
    before: Vec<f64>,
    machine: Machine,
    started: Instant,
}

/// Processor time by process, in seconds.
pub struct CpuUse {
    /// The last two entries are all other processes and the time stolen by the hypervisor.
    pub seconds: Vec<(String, f64)>,
    pub elapsed: f64,
}

impl CpuUse {
    /// Returns the share of a core that other processes used.
    pub fn other_share(&self) -> f64 {
        self.seconds[self.seconds.len() - 2].1 / self.elapsed
    }
}

impl Watch {
    pub fn start(processes: Vec<Process>) -> Self {
        let before = processes.iter().map(Process::used).collect();
        Self { processes, before, machine: Machine::read(), started: Instant::now() }
    }

    pub fn end(&self) -> CpuUse {
        let machine = Machine::read();
        let elapsed = self.started.elapsed().as_secs_f64();
        let mut seconds = Vec::new();
        for (process, before) in self.processes.iter().zip(&self.before) {
            seconds.push((process.name.clone(), (process.used() - before).max(0.0)));
        }
        let known: f64 = seconds.iter().map(|(_, used)| used).sum();
        let others = (machine.busy - self.machine.busy - known).max(0.0);
        seconds.push(("all other processes".to_owned(), others));
        seconds.push(("stolen by the hypervisor".to_owned(), machine.stolen - self.machine.stolen));
        CpuUse { seconds, elapsed }
    }
}

/// Returns the resident memory of a process in MiB, or 0 when it does not exist.
pub fn resident_mib(pid: u32) -> f64 {
    memory_bytes(pid, "VmRSS") / (1_024.0 * 1_024.0)
}

/// Returns a field of /proc/PID/status in bytes, or 0 when the process does not exist.
pub fn memory_bytes(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1_024.0
}
