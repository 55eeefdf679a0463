//! Tests that the metrics which the dashboard, the alert rules and the documentation name are those that exist.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Platform, RoleProcess, eventually, free_port, get};
use serde::Deserialize;
use serde_json::Value;

/// Returns the queries of all panels.
fn queries() -> Vec<String> {
    let dashboard: Value =
        serde_json::from_str(include_str!("../../compose/grafana/dashboards/pipeline.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// Returns the platform's metrics in a query; the name of each begins with its role.
fn metrics(query: &str) -> BTreeSet<String> {
    let words = query.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let ours = |word: &&str| ["stock_", "estimate_", "ads_"].iter().any(|role| word.starts_with(role));
    words.filter(ours).map(str::to_owned).collect()
}

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<RuleGroup>,
}

#[derive(Deserialize)]
struct RuleGroup {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    annotations: BTreeMap<String, String>,
}

fn rules() -> Vec<Rule> {
    let file: RuleFile = serde_saphyr::from_str(include_str!("../../compose/prometheus/alerts.yml")).unwrap();
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

#[test]
fn every_alert_has_a_summary_and_a_section_of_the_runbook() {
    let runbook = include_str!("../../docs/RUNBOOK.md");
    let sections: BTreeSet<_> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let rules = rules();
    let alerts: BTreeSet<_> = rules.iter().map(|rule| rule.alert.as_str()).collect();
    assert_eq!(alerts, sections);
    for Rule { alert, annotations, .. } in &rules {
        assert_eq!(annotations["runbook"], format!("docs/RUNBOOK.md#{}", alert.to_lowercase()));
        assert!(!annotations["summary"].is_empty(), "{alert}");
    }
}

/// Returns the metrics of the documentation's table, with their kinds.
fn documented() -> BTreeMap<String, String> {
    let operations = include_str!("../../docs/OPERATIONS.md");
    let (_, section) = operations.split_once("\n## Metrics\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let mut documented = BTreeMap::new();
    for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (name, rest) = row.split_once("` | ").unwrap();
        let kind = rest.split([',', ' ']).next().unwrap();
        // As the text below the table says.
        let roles: &[_] = match name {
            "<role>_http_request_duration_seconds" => &["stock", "estimate", "ads"],
            "<role>_unreadable_rows_skipped_total" => &["stock", "ads"],
            _ => &["estimate", "ads"],
        };
        for role in roles {
            documented.insert(name.replace("<role>", role), kind.to_owned());
        }
    }
    documented
}

/// Returns the metrics in the answer of a role, with their kinds.
fn families(served: &str) -> BTreeMap<String, String> {
    let declared = served.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let named = declared.map(|(name, kind)| {
        let suffix = if kind == "counter" { "_total" } else { "" };
        (format!("{name}{suffix}"), kind.to_owned())
    });
    named.collect()
}

#[test]
fn every_page_of_the_documentation_names_existing_metrics() {
    let documented = documented();
    assert!(documented.len() > 30, "{documented:?}");
    for (page, text) in [
        ("README.md", include_str!("../../README.md")),
        ("docs/OPERATIONS.md", include_str!("../../docs/OPERATIONS.md")),
        ("docs/RUNBOOK.md", include_str!("../../docs/RUNBOOK.md")),
        ("docs/UPGRADING.md", include_str!("../../docs/UPGRADING.md")),
        ("docs/EXACTLY-ONCE.md", include_str!("../../docs/EXACTLY-ONCE.md")),
        ("docs/ARCHITECTURE.md", include_str!("../../docs/ARCHITECTURE.md")),
    ] {
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_metric = metrics(quoted).first().is_some_and(|metric| metric == quoted);
            // A prefix, or the name of a table, a file or a group.
            let other = quoted.ends_with('_') || !quoted.trim_matches('_').contains('_');
            assert!(!is_metric || other || documented.contains_key(quoted), "{page}: {quoted}");
        }
    }
}

#[tokio::test]
async fn every_metric_on_the_dashboard_in_an_alert_and_in_the_documentation_is_served_by_a_role() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    let port = free_port().to_string();
    let _estimate = RoleProcess::spawn(&[
        "estimate",
        "--processing-time",
        "0s",
        "--port",
        &port,
        "--kafka-bootstrap-servers",
        platform.kafka(),
        "--schema-registry-url",
        platform.registry(),
        "--topic-replication-factor",
        "1",
        "--topic-min-insync-replicas",
        "1",
    ]);
    platform.accept("measured").await;
    platform.await_ads(1).await;

    let estimate = format!("http://127.0.0.1:{port}");
    let mut served = String::new();
    for base in [platform.stock(), platform.ads_url(), &estimate] {
        // The metrics of requests exist from the first one on.
        let alive = format!("{base}/healthz");
        eventually(&alive, async || get(&alive).await.ok()).await;
        let url = format!("{base}/metrics");
        served += &eventually(&url, async || get(&url).await.ok()?.text().await.ok()).await;
    }
    let alerts = rules().into_iter().map(|rule| rule.expr);
    let shown: BTreeSet<_> = queries().into_iter().chain(alerts).flat_map(|query| metrics(&query)).collect();
    assert!(shown.len() > 8, "{shown:?}");
    for metric in shown {
        let sample = |line: &str| line.strip_prefix(&metric).is_some_and(|rest| rest.starts_with([' ', '{']));
        assert!(served.lines().any(sample), "{metric} is not among\n{served}");
    }
    assert_eq!(families(&served), documented());
    for labels in [r#"method="POST",route="/stock""#, r#"method="GET",route="/ads""#] {
        assert!(queries().iter().any(|query| query.contains(labels)), "{labels}");
        assert!(served.contains(labels), "{labels} are not among\n{served}");
    }
    platform.finish().await;
}
