//! Reads pages at the start, in the middle and at the end of a large table.

use std::time::{Duration, Instant};

use crate::events::add_vehicles;
use crate::http::Connection;
use crate::machine::sample_runnable;
use crate::report::{Goal, Report, Row};
use crate::sql::Sql;
use crate::stats::{percentile, say, show};
use crate::stock;
use crate::workspace::Workspace;

/// Vehicles per page.
const LIMIT: i64 = 100;
/// Requests for each page per round.
const REQUESTS: usize = 300;

pub async fn pages(workspace: &Workspace, report: &mut Report) {
    let settings = &workspace.settings;
    let site = workspace.site().await;
    stock::create_tables(workspace, &site).await;
    let mut sql = Sql::connect(site.url()).await;
    add_vehicles(&mut sql, settings.rows).await;
    let last = sql.number("SELECT max(id) AS value FROM vehicles").await;
    drop(sql);
    let stock = stock::start_ready(workspace, &site).await;
    let mut connection = Connection::open(stock.address()).await.unwrap();
    let paths = [
        format!("/stock?limit={LIMIT}"),
        format!("/stock?limit={LIMIT}&after={}", last / 2),
        format!("/stock?limit={LIMIT}&after={}", last - LIMIT),
    ];
    let mut p50 = [const { Vec::new() }; 3];
    // Round 0 is the warm-up.
    for round in 0..=settings.rounds {
        sample_runnable();
        let mut times = [const { Vec::<Duration>::new() }; 3];
        for _ in 0..REQUESTS {
            for (path, times) in paths.iter().zip(&mut times) {
                let sent = Instant::now();
                let answer = connection.get(path).await.unwrap();
                times.push(sent.elapsed());
                assert_eq!(answer.status, 200, "{path}");
            }
        }
        if round > 0 {
            let figures = times.map(|times| percentile(&times, 50));
            say(&format!("pages, round {round}: first, middle, last {figures:.3?} ms"));
            for (figure, rounds) in figures.into_iter().zip(&mut p50) {
                rounds.push(figure);
            }
        }
    }
    stock.stop().await;
    workspace.remove(site).await;

    let [first, middle, last] = p50;
    for (name, rounds) in [("middle", middle), ("last", last)] {
        report.rows.push(
            Row::new(
                &format!("GET /stock, {name} page of 100 among {}: p50", show(settings.rows as f64)),
                "ms",
                rounds,
            )
            .limit("first page", first.clone())
            .goal(Goal::RatioAtMost(1.2)),
        );
    }
}
