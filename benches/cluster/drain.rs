//! Waits until the metrics of a role show that it has processed a backlog.

use std::time::{Duration, Instant};

use crate::processes::{Process, Watch};
use crate::report::{CpuRound, Report};
use crate::role::Role;
use crate::stats::{say, show};
use crate::workspace::Workspace;

const POLL: Duration = Duration::from_millis(20);
const SAY: Duration = Duration::from_secs(5);

/// A backlog and the metrics that show its progress.
pub struct Backlog<'a> {
    /// The name of the work, for messages.
    pub what: &'a str,
    /// A counter that is above 0 once the work has begun.
    pub begun: &'a str,
    /// A counter of the completed records.
    pub done: &'a str,
    pub count: u64,
}

/// The rate at which a backlog was processed, and its processor time.
pub struct Drained {
    pub per_second: f64,
    pub cpu: CpuRound,
}

impl Backlog<'_> {
    /// Waits until all records are done. Returns the rate and the processor time since the work began, which is
    /// detected within 20 ms. After a timeout, adds a note to the report and returns `None`.
    pub async fn drain(
        &self,
        workspace: &Workspace,
        report: &mut Report,
        role: &mut Role,
    ) -> Option<Drained> {
        let deadline = Instant::now() + Duration::from_secs(workspace.settings.relay_seconds);
        let mut processes = vec![role.process(), Process::load_generator()];
        processes.extend(workspace.engines.iter().cloned());
        let mut began: Option<(Instant, f64, Watch)> = None;
        let mut said = Instant::now();
        loop {
            role.assert_running();
            let metrics = role.metrics().await;
            let value = |name| metrics.as_ref().and_then(|metrics| metrics.value(name)).unwrap_or(0.0);
            let (now, done) = (Instant::now(), value(self.done));
            if began.is_none() && value(self.begun) > 0.0 {
                began = Some((now, done, Watch::start(processes.clone())));
            }
            if let Some((began, before, watch)) = &began
                && done >= self.count as f64
            {
                let per_second = (done - before) / (now - *began).as_secs_f64();
                say(&format!("  {}: {}/s", self.what, show(per_second)));
                let cpu = CpuRound { during_load: watch.end(), in_all: watch.end(), vehicles: self.count };
                return Some(Drained { per_second, cpu });
            }
            if now > deadline {
                report.notes.push(format!(
                    "{}: {} of {} were done after {} s; the rate counts as 0.",
                    self.what,
                    show(done),
                    show(self.count as f64),
                    workspace.settings.relay_seconds,
                ));
                return None;
            }
            if said.elapsed() > SAY {
                said = now;
                say(&format!("  {}: {} done", self.what, show(done)));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
