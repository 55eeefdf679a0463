//! Tests how `make up` starts the cluster, with a fake `docker` that records what it is asked.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::checkout::{Checkout, stderr, stdout};

const FAILS_TWICE: &str = r#"'compose up --detach'*) echo >>attempts; [ "$(wc -l <attempts)" -ge 3 ] ;;"#;
const FAILS: &str = "'compose up --detach'*) exit 1 ;;";

#[test]
fn a_container_that_exits_once_does_not_fail_make_up() {
    let checkout = Checkout::with_docker(FAILS_TWICE);
    let output = checkout.up(&[]);
    assert!(output.status.success(), "{output:?}");
    let calls = checkout.calls();
    let waits = calls.lines().filter(|call| call.starts_with("compose up --detach --no-build --wait "));
    assert_eq!(waits.count(), 3, "{calls}");
    assert!(stdout(&output).contains("admin / password"), "{output:?}");
}

#[test]
fn make_up_gives_up_at_its_deadline() {
    let began = Instant::now();
    let output = Checkout::with_docker(FAILS).up(&[("START_SECONDS", "2")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("not all containers became healthy"), "{output:?}");
    assert!(began.elapsed() >= Duration::from_secs(1), "it did not retry: {output:?}");
}

#[test]
fn make_up_fails_at_once_when_it_cannot_create_or_start_a_container() {
    let creation = Checkout::with_docker("'compose up --no-start'*) exit 1 ;;");
    let output = creation.up(&[]);
    assert!(stderr(&output).contains("creating the containers failed"), "{output:?}");
    assert!(!creation.calls().contains("compose up --detach"));

    let taken = format!(
        "{FAILS}\n'compose ps --all --quiet') echo abc ;;\n'inspect '*) echo '/stock-1: port is already allocated' ;;"
    );
    let start = Checkout::with_docker(&taken);
    let output = start.up(&[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("cannot start: /stock-1: port is already allocated"), "{output:?}");
    assert_eq!(start.calls().matches("compose up --detach").count(), 1);
}

/// The engine keeps the error of a container until the container starts.
#[test]
fn a_container_that_could_not_start_before_does_not_fail_make_up() {
    let stale = format!(
        "{FAILS_TWICE}\n'compose ps --all --quiet') [ -e removed ] || echo abc ;;\n'rm abc') touch removed ;;\n\
         'inspect --format {{{{if .State.Error}}}}{{{{.Id}}}}'*) echo abc ;;\n\
         'inspect '*) echo '/stock-1: port is already allocated' ;;"
    );
    let output = Checkout::with_docker(&stale).up(&[]);
    assert!(output.status.success(), "{output:?}");
}

/// Compose handles SIGINT and ends with 130.
#[test]
fn ctrl_c_ends_make_up() {
    let checkout = Checkout::with_docker(
        "'compose up --detach'*) [ -e waits ] && exit; trap 'exit 130' INT; touch waits; echo waits
            while sleep 0.1; do :; done ;;",
    );
    // A process that starts in the background of a shell ignores SIGINT, as do its children.
    let mut up = checkout.command("env");
    if cfg!(target_os = "linux") {
        up.arg("--default-signal=INT");
    }
    let up = up.arg("compose/up").process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut up = up.spawn().unwrap();
    let mut output = BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(output.any(|line| line == "waits"), "compose did not start");
    let group = format!("-{}", up.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    assert_eq!(up.wait().unwrap().code(), Some(130));
    assert_eq!(checkout.calls().matches("compose up --detach").count(), 1);
}

#[test]
fn make_up_explains_a_database_whose_initialization_was_interrupted() {
    let unhealthy = format!(
        "{FAILS}\n'ps --all'*'service=mongodb'*) echo abc ;;\n'inspect --format {{{{if .State.Health}}}}'*) echo unhealthy ;;"
    );
    let output = Checkout::with_docker(&unhealthy).up(&[("START_SECONDS", "1")]);
    let said = stderr(&output);
    assert!(
        said.contains("mongodb is busy, or does not accept the user") && said.contains("make down DATA=1"),
        "{said}"
    );
    assert!(!said.contains("postgres is busy"), "{said}");
}

#[test]
fn the_versions_of_compose_that_can_wait_are_accepted() {
    for version in ["2.17.0", "v2.40.3", "2.39.1-desktop.1", "5.0.0", "dev"] {
        let output = Checkout::with_docker("").up(&[("COMPOSE_VERSION", version)]);
        assert!(output.status.success(), "{version}: {output:?}");
    }
}

#[test]
fn the_mode_of_a_running_cluster_does_not_change() {
    let broker = "'ps --all'*'service=kafka-1') echo abc ;;";
    let zookeeper = format!("{broker}\n'ps --all'*'service=zookeeper-1') echo def ;;");
    for (answers, kraft, expected) in
        [(zookeeper.as_str(), "1", "runs with ZooKeeper"), (broker, "", "runs without ZooKeeper")]
    {
        let output = Checkout::with_docker(answers).up(&[("KRAFT", kraft)]);
        assert!(stderr(&output).contains(expected) && stderr(&output).contains("make down"), "{output:?}");
    }
    assert!(Checkout::with_docker(&zookeeper).up(&[]).status.success());
    assert!(Checkout::with_docker(broker).up(&[("KRAFT", "1")]).status.success());
}

#[test]
fn the_containers_can_read_a_checkout_of_a_cautious_user() {
    let checkout = Checkout::with_docker("");
    let file = checkout.compose().join("nginx/nginx.conf");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(checkout.compose().join("grafana"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(checkout.up(&[]).status.success());
    let mode = |name: &str| fs::metadata(checkout.compose().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("nginx/nginx.conf"), 0o644);
    assert_eq!(mode("grafana"), 0o755);
}
