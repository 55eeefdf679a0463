//! Reports the findings of an audit as text and JSON.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use super::trail::{Finding, Stage};
use crate::output::Output;

/// The maximum number of vins shown per finding.
const EXAMPLES: usize = 10;

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    clean: bool,
    vehicles: u64,
    advertised: u64,
    on_their_way: u64,
    /// The number of unresolved dead letters, whether or not a vin can be read in them.
    dead_letters: u64,
    findings: BTreeMap<Finding, Found>,
    /// The number of vehicles whose event was appended again.
    repaired: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Found {
    count: u64,
    /// Some of the vins, or ids of rows without a readable vin.
    examples: Vec<String>,
}

impl Found {
    pub(super) fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

impl Report {
    pub(super) fn new(dead_letters: u64, unreadable: Found) -> Self {
        let clean = dead_letters == 0 && unreadable.count == 0;
        let mut findings: BTreeMap<_, _> = Finding::ALL.map(|finding| (finding, Found::default())).into();
        findings.insert(Finding::Unreadable, unreadable);
        Self { clean, dead_letters, findings, ..Self::default() }
    }

    pub(super) fn count_vehicle(&mut self, stage: Option<Stage>) {
        self.vehicles += 1;
        match stage {
            Some(Stage::Advertised) => self.advertised += 1,
            Some(Stage::OnItsWay) => self.on_their_way += 1,
            None => {}
        }
    }

    pub(super) fn add(&mut self, finding: Finding, vin: &str) {
        self.clean = false;
        self.findings.entry(finding).or_default().add(|| vin.to_owned());
    }

    pub(super) fn count_repaired(&mut self) {
        self.repaired += 1;
    }

    pub(super) fn is_clean(&self) -> bool {
        self.clean
    }

    pub(super) fn print(&self, output: &mut Output<impl Write>) {
        output.line(format_args!("{:>10}  vehicles in stock", self.vehicles));
        output.line(format_args!("{:>10}  with an ad", self.advertised));
        output.line(format_args!("{:>10}  being processed", self.on_their_way));
        for (finding, found) in &self.findings {
            let (what, way_out) = finding.describe();
            if found.count == 0 {
                output.line(format_args!("{:>10}  {what}", 0));
            } else {
                output.line(format_args!("{:>10}  {what}: {way_out}", found.count));
                let more = if found.count > EXAMPLES as u64 { ", ..." } else { "" };
                output.line(format_args!("{:>10}  {}{more}", "", found.examples.join(", ")));
            }
        }
        output.line(format_args!("{:>10}  dead letters", self.dead_letters));
        if self.repaired > 0 {
            output.line(format_args!("{:>10}  repaired: event appended again", self.repaired));
        }
    }
}
