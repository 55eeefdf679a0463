//! Tests that the dashboard and the alert rules query existing metrics.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Platform, RoleProcess, eventually, free_port};
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

#[tokio::test]
async fn every_metric_on_the_dashboard_and_in_an_alert_is_served_by_a_role() {
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
        let url = format!("{base}/metrics");
        served += &eventually(&url, async || reqwest::get(&url).await.ok()?.text().await.ok()).await;
    }
    let alerts = rules().into_iter().map(|rule| rule.expr);
    let shown: BTreeSet<_> = queries().into_iter().chain(alerts).flat_map(|query| metrics(&query)).collect();
    assert!(shown.len() > 8, "{shown:?}");
    for metric in shown {
        let sample = |line: &str| line.strip_prefix(&metric).is_some_and(|rest| rest.starts_with([' ', '{']));
        assert!(served.lines().any(sample), "{metric} is not among\n{served}");
    }
    for labels in [r#"method="POST",route="/stock""#, r#"method="GET",route="/ads""#] {
        assert!(queries().iter().any(|query| query.contains(labels)), "{labels}");
        assert!(served.contains(labels), "{labels} are not among\n{served}");
    }
    platform.finish().await;
}
