//! Renders the results as Markdown and as JSON.

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::processes::CpuUse;
use crate::settings::Settings;
use crate::stats::{median, show};

/// Share of a core that processes outside a measure may use: idle registries and `ZooKeeper`.
const QUIET: f64 = 0.2;

/// The goal of a measure.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtLeast(f64),
}

/// The result of an engine alone, measured in the same run.
pub struct Limit {
    pub what: String,
    pub rounds: Vec<f64>,
}

/// One row of the table.
pub struct Row {
    pub work: String,
    pub unit: &'static str,
    pub rounds: Vec<f64>,
    pub limit: Option<Limit>,
    pub goal: Option<Goal>,
}

impl Row {
    pub fn new(work: &str, unit: &'static str, rounds: Vec<f64>) -> Self {
        Self { work: work.to_owned(), unit, rounds, limit: None, goal: None }
    }

    pub fn limit(mut self, what: &str, rounds: Vec<f64>) -> Self {
        self.limit = Some(Limit { what: what.to_owned(), rounds });
        self
    }

    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    fn measured(&self) -> f64 {
        median(&self.rounds)
    }

    fn ratio(&self) -> Option<f64> {
        Some(self.measured() / median(&self.limit.as_ref()?.rounds))
    }

    fn met(&self) -> Option<bool> {
        let (measured, ratio) = (self.measured(), self.ratio().unwrap_or(f64::NAN));
        Some(match self.goal? {
            Goal::AtMost(bound) => measured <= bound,
            Goal::AtLeast(bound) => measured >= bound,
            Goal::RatioAtLeast(bound) => ratio >= bound,
            Goal::RatioAtMost(bound) => ratio <= bound,
        })
    }

    fn goal_text(&self) -> String {
        match self.goal {
            None => String::new(),
            Some(Goal::AtMost(bound)) => {
                format!("at most {} {}", show(bound), self.unit).trim_end().to_owned()
            }
            Some(Goal::AtLeast(bound)) => {
                format!("at least {} {}", show(bound), self.unit).trim_end().to_owned()
            }
            Some(Goal::RatioAtLeast(bound)) => format!("ratio at least {bound}"),
            Some(Goal::RatioAtMost(bound)) => format!("ratio at most {bound}"),
        }
    }

    fn cells(&self) -> [String; 6] {
        let amount = |value: f64| format!("{} {}", show(value), self.unit).trim_end().to_owned();
        let limit = self.limit.as_ref();
        [
            self.work.clone(),
            amount(self.measured()),
            limit.map_or_else(String::new, |limit| {
                format!("{} ({})", amount(median(&limit.rounds)), limit.what)
            }),
            self.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            self.goal_text(),
            self.met().map_or("", |met| if met { "yes" } else { "no" }).to_owned(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "work": self.work,
            "unit": self.unit,
            "measured": self.measured(),
            "rounds": self.rounds,
            "limit": self.limit.as_ref().map(|limit| json!({
                "what": limit.what, "measured": median(&limit.rounds), "rounds": limit.rounds,
            })),
            "ratio": self.ratio(),
            "goal": self.goal.map(|_| self.goal_text()),
            "met": self.met(),
        })
    }
}

/// Processor time by process for one kind of load.
pub struct CpuTable {
    pub work: String,
    pub rounds: Vec<CpuRound>,
}

/// Processor time of one round.
pub struct CpuRound {
    pub during_load: CpuUse,
    /// Includes the time after the load, in which the last events are published.
    pub in_all: CpuUse,
    /// Vehicles that were accepted or processed.
    pub vehicles: u64,
}

impl CpuTable {
    /// Returns name, microseconds per vehicle and share of one core for each process.
    fn lines(&self) -> Vec<(String, f64, f64)> {
        let Some(first) = self.rounds.first() else { return Vec::new() };
        let names = first.in_all.seconds.iter().map(|(name, _)| name.clone());
        let lines = names.enumerate().map(|(index, name)| {
            let each = |figure: &dyn Fn(&CpuRound) -> f64| {
                median(&self.rounds.iter().map(figure).collect::<Vec<_>>())
            };
            let per_vehicle =
                each(&|round| round.in_all.seconds[index].1 * 1e6 / u64::max(round.vehicles, 1) as f64);
            let share = each(&|round| round.during_load.seconds[index].1 / round.during_load.elapsed);
            (name, per_vehicle, share)
        });
        lines.collect()
    }
}

/// The results of a run.
pub struct Report {
    pub machine: Machine,
    pub rows: Vec<Row>,
    pub cpu: Vec<CpuTable>,
    pub notes: Vec<String>,
    pub failures: Vec<String>,
    pub started: String,
}

impl Report {
    /// Adds a table, and a note when other programs disturbed one of its rounds.
    pub fn add_cpu(&mut self, table: CpuTable) {
        let shares = table.rounds.iter().map(|round| round.during_load.other_share());
        let highest = shares.fold(0.0, f64::max);
        if highest > QUIET {
            self.notes.push(format!(
                "Other programs used {:.0} % of a core during a round of \"{}\", so its figures are not reliable.",
                highest * 100.0,
                table.work,
            ));
        }
        self.cpu.push(table);
    }

    pub fn markdown(&self, settings: &Settings) -> String {
        let mut text = format!(
            "Measured at {} by `make bench` with {} rounds of {} s; each figure is the median of its rounds, which \
             alternate with those of the limit.\n\n{}\n\n",
            self.started,
            settings.rounds,
            settings.seconds,
            self.machine.sentences()
        );
        let head = ["Work", "Measured", "Limit, in the same run", "Ratio", "Goal", "Met"].map(str::to_owned);
        text += &table(&[vec![head], self.rows.iter().map(Row::cells).collect()].concat());
        for cpu in &self.cpu {
            text += &format!("\nProcessor time, {}:\n\n", cpu.work);
            let head =
                ["Process", "Microseconds per vehicle", "Share of a core during the load"].map(str::to_owned);
            let lines = cpu.lines().into_iter().map(|(name, per_vehicle, share)| {
                [name, show(per_vehicle), format!("{:.0} %", share * 100.0)]
            });
            text += &table(&[vec![head], lines.collect()].concat());
        }
        for note in &self.notes {
            text += &format!("\n- {note}");
        }
        for failure in &self.failures {
            text += &format!("\n- FAILED: {failure}");
        }
        text.trim_end().to_owned() + "\n"
    }

    pub fn json(&self, settings: &Settings) -> Value {
        let cpu = self.cpu.iter().map(|cpu| {
            let lines = cpu.lines().into_iter().map(|(process, per_vehicle, share)| {
                json!({ "process": process, "microsecondsPerVehicle": per_vehicle, "shareOfACore": share })
            });
            json!({ "work": cpu.work, "processes": lines.collect::<Vec<_>>() })
        });
        json!({
            "started": self.started,
            "settings": format!("{settings:?}"),
            "machine": self.machine,
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "processorTime": cpu.collect::<Vec<_>>(),
            "notes": self.notes,
            "failures": self.failures,
        })
    }
}

/// Renders a Markdown table with aligned columns, for terminals as well. The first line is the header.
fn table<const N: usize>(lines: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0).max(3)
    });
    let render = |cells: [String; N]| {
        let padded: Vec<_> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        text += &render(line.clone());
        if index == 0 {
            text += &render(widths.map(|width| "-".repeat(width)));
        }
    }
    text
}
