//! Tests who may inject faults, which requests are refused, and that no process outlives `dev`.

use std::path::Path;
use std::process::Command;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::console::snapshot;
use crate::faults::{Disturbed, inject};
use crate::support::{BINARY, Platform, eventually, get, http_client};

const KEY: &str = "a-key-of-the-tests";

#[tokio::test(flavor = "multi_thread")]
async fn without_the_flag_there_are_no_faults() {
    let platform = Platform::start(&["--console-port", "0"]).await;
    let console = platform.console();
    assert_eq!(inject(console, "kill-estimator", &json!({})).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(get(format!("{console}/faults")).await.unwrap().status(), StatusCode::NOT_FOUND);
    assert!(snapshot(console).await["faults"].is_null(), "the page shows no panel");
    assert!(children(platform.pid()).is_empty());
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_fault_is_checked() {
    let disturbed = Disturbed::start("1s").await;
    let answer: Value =
        get(format!("{}/faults", disturbed.platform.console())).await.unwrap().json().await.unwrap();
    let names: Vec<_> =
        answer["faults"].as_array().unwrap().iter().map(|fault| fault["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "kill-estimator",
            "pause-estimator",
            "slow-estimates",
            "registry-unavailable",
            "broker-stalled",
            "database-unavailable",
            "poison",
            "duplicates"
        ]
    );
    for (name, body, status) in [
        ("unknown", json!({}), 404),
        ("slow-estimates", json!({ "for": "0s" }), 400),
        ("slow-estimates", json!({ "for": "6m" }), 400),
        ("slow-estimates", json!({ "for": 5 }), 400),
        ("slow-estimates", json!({ "target": "1" }), 400),
        ("slow-estimates", json!({ "unknown": 1 }), 400),
        ("slow-estimates", json!([]), 400),
        ("kill-estimator", json!({ "target": "3" }), 400),
        ("poison", json!({ "for": "5s" }), 400),
    ] {
        let answer = disturbed.inject(name, body.clone()).await;
        assert_eq!(answer.status().as_u16(), status, "{name} {body}");
    }
    let url = format!("{}/faults/slow-estimates", disturbed.platform.console());
    let form = http_client().post(&url).body("for=5s").send().await.unwrap();
    assert_eq!(form.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let foreign = http_client().post(&url).json(&json!({})).header("Origin", "http://evil.example");
    assert_eq!(foreign.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert!(disturbed.fault("slow-estimates").await["running"].is_null());

    let answer = disturbed.inject("slow-estimates", json!({ "for": "10s" })).await;
    let left = answer.json::<Value>().await.unwrap()["secondsLeft"].as_f64().unwrap();
    assert!((5.0..=10.0).contains(&left), "{left}");
    assert!(disturbed.fault("slow-estimates").await["running"]["secondsLeft"].as_f64().unwrap() > 0.0);
    let again = disturbed.inject("slow-estimates", json!({})).await;
    assert_eq!(again.status(), StatusCode::CONFLICT);
    assert_eq!(again.json::<Value>().await.unwrap()["type"], "/problems/fault-running");
    disturbed.await_end("slow-estimates").await;
    disturbed.platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_needs_the_key_of_the_platform() {
    let platform = Platform::start(&["--console-port", "0", "--faults", "--api-key", KEY]).await;
    let body = json!({ "for": "1s" });
    assert_eq!(inject(platform.console(), "slow-estimates", &body).await.status(), StatusCode::UNAUTHORIZED);
    let url = format!("{}/faults/slow-estimates", platform.console());
    let allowed = http_client().post(url).bearer_auth(KEY).json(&body).send().await.unwrap();
    assert_eq!(allowed.status(), StatusCode::OK);
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_estimator_outlives_a_platform_that_is_killed_or_ends_even_a_stopped_one() {
    for kill in [true, false] {
        let disturbed = Disturbed::start("1s").await;
        let estimators = children(disturbed.platform.pid());
        assert_eq!(estimators.len(), 2);
        let stopped = disturbed.inject("pause-estimator", json!({ "for": "5m" })).await;
        assert_eq!(stopped.status(), StatusCode::OK);
        let states = || estimators.iter().map(|pid| state(*pid)).collect::<Vec<_>>();
        eventually("a stopped estimator", async || states().contains(&Some('T')).then_some(())).await;
        if kill {
            disturbed.platform.kill();
        } else {
            disturbed.platform.end().await;
        }
        // A process whose new parent has not collected it is over, too.
        eventually("the end of the estimators", async || {
            states().iter().all(|state| matches!(state, None | Some('Z'))).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_ends_when_an_estimator_ends_by_itself() {
    let disturbed = Disturbed::start("1s").await;
    let estimators = children(disturbed.platform.pid());
    let killed = Command::new("kill").args(["-KILL", &estimators[0].to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(disturbed.platform.ended().await.code(), Some(1));
    eventually("the end of the other estimator", async || {
        matches!(state(estimators[1]), None | Some('Z')).then_some(())
    })
    .await;
}

#[test]
fn only_dev_has_faults_and_only_with_roles_and_a_console() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, text) in [
        (&["--faults", "--console-port", "none"][..], "--faults (FAULTS) needs the console"),
        (&["--faults", "--roles", "none"], "--faults (FAULTS) cannot be combined with --roles none"),
        (&["--faults-seed", "7"], "--faults-seed (FAULTS_SEED) needs --faults"),
    ] {
        let output = Command::new(BINARY)
            .args(["dev", "--data-dir"])
            .arg(directory.path())
            .args(arguments)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(text), "{error}");
    }
    for role in ["stock", "estimate", "ads", "console"] {
        let output = Command::new(BINARY).args([role, "--faults"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{role}");
    }
}

/// Returns the state of a process in `/proc`, such as `T` for a stopped one.
fn state(pid: u32) -> Option<char> {
    stat(Path::new("/proc").join(pid.to_string()).as_path()).map(|(state, _)| state)
}

/// Returns the state and the parent of the process in this directory of `/proc`.
fn stat(directory: &Path) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(directory.join("stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Returns the processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = processes.filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        (stat(&process.path())?.1 == parent).then_some(pid)
    });
    pids.collect()
}
