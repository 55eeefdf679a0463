//! Shows the progress of a load: as a bar on a terminal, as lines elsewhere.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::ledger::Standing;
use crate::output;

/// The interval between two lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The interval between two states of the bar.
pub const UPDATE_EVERY: Duration = Duration::from_millis(250);
const BAR: &str = "{prefix} {wide_bar} {pos}/{len} {msg}";
const SPINNER: &str = "{spinner} {prefix} {pos} {msg}";

/// The progress on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    next_line: Duration,
}

impl Progress {
    pub fn start() -> Self {
        let bar = io::stderr().is_terminal().then(ProgressBar::new_spinner);
        Self { bar, started: Instant::now(), next_line: LINE_EVERY }
    }

    /// Begins a phase with a known or an unknown number of steps.
    pub fn begin(&self, phase: &'static str, steps: Option<u64>) {
        let Some(bar) = &self.bar else {
            output::report(format_args!("{phase}"));
            return;
        };
        let template = if steps.is_some() { BAR } else { SPINNER };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(phase);
        bar.set_message("");
        bar.set_position(0);
        match steps {
            Some(steps) => bar.set_length(steps),
            None => bar.unset_length(),
        }
    }

    /// Shows how many steps of the phase are done.
    pub fn update(&mut self, done: u64, message: &str) {
        let elapsed = self.started.elapsed();
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message.to_owned());
        } else if elapsed >= self.next_line {
            self.next_line = elapsed + LINE_EVERY;
            output::report(format_args!("{:>5} s  {done}  {message}", elapsed.as_secs()));
        }
    }

    /// Writes a line next to the progress.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::report(format_args!("{text}"))),
            None => output::report(format_args!("{text}")),
        }
    }

    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Describes the state of a load in a few words.
pub fn describe(standing: &Standing) -> String {
    let Standing { accepted, refused, gave_up, dropped, retried, advertised, .. } = *standing;
    let mut words = format!("accepted {accepted}, ads {advertised}");
    let rest = [("retries", retried), ("refused", refused), ("given up", gave_up), ("dropped", dropped)];
    for (name, count) in rest.into_iter().filter(|(_, count)| *count > 0) {
        words.push_str(&format!(", {name} {count}"));
    }
    words
}
