//! Starts the estimators of `dev` as processes of their own, signals them and watches their ends.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::dev::LOOPBACK;
use crate::dev::estimator_process::{Assignment, FLAG};

/// Ports below those that systems give to outgoing connections: one of these could occupy the port of a killed
/// estimator.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const PORT_ATTEMPTS: usize = 100;
const SIGTERM: i32 = Signal::TERM.as_raw();

/// The estimators. A thread that starts a process must not end before `dev` does: on Linux, the process ends with it.
pub struct Estimators {
    executable: PathBuf,
    /// The arguments of `dev`.
    arguments: Vec<OsString>,
    slots: RefCell<Vec<Slot>>,
}

struct Slot {
    assignment: Assignment,
    /// None while the estimator is killed.
    process: Option<Child>,
    /// Is cancelled when the process is killed.
    killed: CancellationToken,
    /// The time by which estimates are to take longer.
    delay: Duration,
}

impl Estimators {
    /// Assigns `count` estimators to ports that are free now. Starts none.
    ///
    /// # Errors
    /// Fails when no port is free, or the executable is unknown.
    pub fn new(count: usize, kafka: SocketAddr, registry: SocketAddr) -> anyhow::Result<Self> {
        let mut slots: Vec<Slot> = Vec::new();
        for number in 1..=count {
            let taken: Vec<u16> = slots.iter().map(|slot| slot.assignment.port).collect();
            let port = free_port(&taken).context("no port is free for the health of an estimator")?;
            let assignment = Assignment { number, port, kafka, registry };
            let killed = CancellationToken::new();
            slots.push(Slot { assignment, process: None, killed, delay: Duration::ZERO });
        }
        Ok(Self {
            executable: std::env::current_exe().context("cannot find the own executable")?,
            arguments: std::env::args_os().skip(1).collect(),
            slots: RefCell::new(slots),
        })
    }

    pub fn count(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Returns the addresses of their health and metrics.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.slots.borrow().iter().map(|slot| SocketAddr::new(LOOPBACK, slot.assignment.port)).collect()
    }

    /// Starts all estimators, watches them until `shutdown`, and then ends them.
    ///
    /// # Errors
    /// Fails when a process cannot be started, or ends by itself or with an error.
    pub async fn run(&self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let mut ends = signal(SignalKind::child()).context("cannot listen for SIGCHLD")?;
        let mut outcome = (1..=self.count()).try_for_each(|number| self.start(number));
        while outcome.is_ok() && !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => {}
                _ = ends.recv() => outcome = self.collect_ended().and_then(|ended| match ended {
                    Some((number, _)) => Err(anyhow!("estimator {number} ended unexpectedly")),
                    None => Ok(()),
                }),
            }
        }
        self.terminate();
        while self.slots.borrow().iter().any(|slot| slot.process.is_some()) {
            let collected = self.collect_ended();
            match collected {
                // One that has just been started does not handle the signal yet.
                Ok(Some((_, status))) if status.success() || status.signal() == Some(SIGTERM) => {}
                Ok(Some((number, status))) => {
                    outcome = outcome.and_then(|()| bail!("estimator {number} ended with {status}"));
                }
                Ok(None) => {
                    ends.recv().await;
                }
                Err(error) => return outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// Returns an estimator that has ended by itself, if there is one.
    fn collect_ended(&self) -> anyhow::Result<Option<(usize, ExitStatus)>> {
        for slot in self.slots.borrow_mut().iter_mut() {
            let Some(child) = &mut slot.process else { continue };
            if let Some(status) = child.try_wait().context("cannot watch the process of an estimator")? {
                slot.process = None;
                return Ok(Some((slot.assignment.number, status)));
            }
        }
        Ok(None)
    }

    /// Asks all estimators to end, those that are stopped included.
    fn terminate(&self) {
        for child in self.slots.borrow().iter().filter_map(|slot| slot.process.as_ref()) {
            let pid = Pid::from_child(child);
            // One that has ended already receives no signal.
            let _ = kill_process(pid, Signal::TERM).and_then(|()| kill_process(pid, Signal::CONT));
        }
    }

    /// Starts an estimator that was killed.
    ///
    /// # Errors
    /// Fails when its process cannot be started.
    pub fn start(&self, number: usize) -> anyhow::Result<()> {
        self.with(number, |slot| {
            let mut arguments = self.arguments.clone();
            let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
            arguments.insert(end, format!("{FLAG}={}", slot.assignment).into());
            let child = Command::new(&self.executable)
                .args(arguments)
                .stdin(Stdio::piped())
                // Ctrl-C reaches only dev, which then stops its estimators. A stopped group that loses its parent is
                // continued with SIGHUP.
                .process_group(0)
                .spawn()
                .with_context(|| format!("cannot start estimator {number}"))?;
            slot.process = Some(child);
            slot.killed = CancellationToken::new();
            slot.send_delay();
            Ok(())
        })
    }

    /// Kills an estimator.
    ///
    /// # Errors
    /// Fails when it is not running.
    pub fn kill(&self, number: usize) -> anyhow::Result<()> {
        self.with(number, |slot| {
            let mut child =
                slot.process.take().with_context(|| format!("estimator {number} is not running"))?;
            slot.killed.cancel();
            child.kill().and_then(|()| child.wait()).context("cannot kill the process")?;
            Ok(())
        })
    }

    /// Stops an estimator, and returns a token that is cancelled when it is killed.
    ///
    /// # Errors
    /// Fails when it is not running.
    pub fn pause(&self, number: usize) -> anyhow::Result<CancellationToken> {
        self.with(number, |slot| {
            slot.signal(Signal::STOP)?;
            Ok(slot.killed.clone())
        })
    }

    /// Continues an estimator that was stopped.
    ///
    /// # Errors
    /// Fails when it is not running.
    pub fn resume(&self, number: usize) -> anyhow::Result<()> {
        self.with(number, |slot| slot.signal(Signal::CONT))
    }

    /// Makes estimates take longer in all estimators, and in those that are started later.
    pub fn delay(&self, delay: Duration) {
        for slot in self.slots.borrow_mut().iter_mut() {
            slot.delay = delay;
            slot.send_delay();
        }
    }

    fn with<T>(&self, number: usize, act: impl FnOnce(&mut Slot) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut slots = self.slots.borrow_mut();
        let slot = number.checked_sub(1).and_then(|index| slots.get_mut(index));
        act(slot.with_context(|| format!("there is no estimator {number}"))?)
    }
}

impl Slot {
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let number = self.assignment.number;
        let child = self.process.as_ref().with_context(|| format!("estimator {number} is not running"))?;
        kill_process(Pid::from_child(child), signal).context("cannot signal the process")
    }

    /// Passes the delay to the process, if it is running. The pipe has room for thousands of lines.
    fn send_delay(&self) {
        if let Some(mut pipe) = self.process.as_ref().and_then(|child| child.stdin.as_ref()) {
            // The end of the process is noticed by its signal.
            let _ = writeln!(pipe, "{}", self.delay.as_millis());
        }
    }
}

/// Returns a port that is free now.
fn free_port(taken: &[u16]) -> io::Result<u16> {
    let ports = std::iter::repeat_with(|| rand::random_range(PORTS)).filter(|port| !taken.contains(port));
    let mut last = Err(io::ErrorKind::AddrInUse.into());
    for port in ports.take(PORT_ATTEMPTS) {
        last = TcpListener::bind((LOOPBACK, port)).map(|_| port);
        if last.is_ok() {
            break;
        }
    }
    last
}
