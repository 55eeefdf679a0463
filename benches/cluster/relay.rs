//! Measures the relay alone on a backlog that exists when stock starts.

use std::rc::Rc;
use std::time::Duration;

use crate::drain::Backlog;
use crate::events::Events;
use crate::machine::sample_runnable;
use crate::report::{Goal, Report, Row};
use crate::sql::Sql;
use crate::stats::{say, show};
use crate::stock;
use crate::transactions;
use crate::workspace::{Site, Workspace};

/// The metric that counts events whose transaction has committed.
const PUBLISHED: &str = "stock_events_published_total";

/// The state of the database in addition to the backlog.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Plain,
    /// Published events precede the backlog.
    History,
    /// An open transaction holds a snapshot, so that VACUUM cannot remove dead rows.
    Snapshot,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "alone",
            Self::History => "after a history",
            Self::Snapshot => "next to an open snapshot",
        }
    }
}

pub async fn relay(workspace: &Workspace, report: &mut Report) {
    let settings = &workspace.settings;
    let with_history = if settings.history > 0 { history(workspace, report).await } else { None };
    let mut cases = vec![(Case::Plain, Vec::new()), (Case::Snapshot, Vec::new())];
    if with_history.is_some() {
        cases.insert(1, (Case::History, Vec::new()));
    }
    let mut limits = Vec::new();
    for round in 1..=settings.rounds {
        sample_runnable();
        let limit = limit(workspace).await;
        say(&format!("relay, round {round}: transactions of librdkafka alone {}/s", show(limit)));
        limits.push(limit);
        for (case, rates) in &mut cases {
            let site = match &with_history {
                Some(site) if *case == Case::History => Rc::clone(site),
                _ => {
                    let site = workspace.site().await;
                    stock::create_tables(workspace, &site).await;
                    site
                }
            };
            rates.push(one_backlog(workspace, report, &site, *case).await);
            if *case != Case::History {
                workspace.remove(site).await;
            }
        }
    }
    if let Some(site) = with_history {
        workspace.remove(site).await;
    }

    let plain = cases[0].1.clone();
    let backlog = format!("Relay, a backlog of {} events", show(settings.backlog as f64));
    report.rows.push(
        Row::new(&backlog, "/s", plain.clone())
            .limit(&format!("librdkafka, transactions of {}", transactions::BATCH), limits)
            .goal(Goal::AtLeast(50_000.0)),
    );
    for (case, rates) in cases.into_iter().skip(1) {
        let before = match case {
            Case::History => format!(" after {} published events", show(settings.history as f64)),
            _ => " next to an open snapshot".to_owned(),
        };
        report.rows.push(
            Row::new(&format!("{backlog}{before}"), "/s", rates)
                .limit("that backlog alone", plain.clone())
                .goal(Goal::RatioAtLeast(0.9)),
        );
    }
}

/// Creates a database with a history. Returns `None` when the schema does not retain published events.
async fn history(workspace: &Workspace, report: &mut Report) -> Option<Rc<Site>> {
    let site = workspace.site().await;
    let events = stock::create_tables(workspace, &site).await;
    if events == Events::Outbox {
        report.notes.push(
            "The relay was not measured after a history: the outbox does not retain published events."
                .to_owned(),
        );
        workspace.remove(site).await;
        return None;
    }
    events.add_published(&mut Sql::connect(site.url()).await, workspace.settings.history).await;
    Some(site)
}

/// Measures transactions of librdkafka alone, with a quarter of the backlog or 100,000 records.
async fn limit(workspace: &Workspace) -> f64 {
    let site = workspace.site().await;
    let topic = site.topic("limit");
    workspace.create_topic(&topic).await;
    let rate =
        transactions::write(&workspace.kafka, &topic, (workspace.settings.backlog / 4).max(100_000)).await;
    workspace.remove(site).await;
    rate
}

/// Publishes one backlog. Returns the events per second between the first and the last, or 0 after a timeout.
async fn one_backlog(workspace: &Workspace, report: &mut Report, site: &Site, case: Case) -> f64 {
    let mut sql = Sql::connect(site.url()).await;
    let events = Events::detect(&mut sql).await;
    events.add_waiting(&mut sql, workspace.settings.backlog).await;
    let mut snapshot = Sql::connect(site.url()).await;
    if case == Case::Snapshot {
        snapshot.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        snapshot.number("SELECT count(*) AS value FROM pg_class").await;
    }
    sample_runnable();
    let mut stock = stock::start(workspace, site);
    let backlog = Backlog {
        what: &format!("relay {}", case.name()),
        begun: PUBLISHED,
        done: PUBLISHED,
        count: workspace.settings.backlog,
    };
    let drained = backlog.drain(workspace, report, &mut stock).await;
    if drained.is_some() {
        let left = events.await_published(&mut sql, Duration::from_secs(5)).await;
        assert!(
            left.is_some(),
            "the metric counted all events as published, but the database still has some"
        );
    }
    drop((sql, snapshot));
    stock.stop().await;
    drained.map_or(0.0, |drained| drained.per_second)
}
