//! Tests how `make up` starts the cluster, with a fake `docker` that records what it is asked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::make_up::write_program;

/// A copy of the folder compose, next to a fake `docker`.
struct Checkout {
    folder: TempDir,
}

/// The answers of an engine that has 16 GiB of memory and no containers.
const ENGINE: &str = r#"'compose version --short') echo "${COMPOSE_VERSION:-2.17.0}" ;;
'info --format {{.MemTotal}}') echo 17179869184 ;;
'volume inspect '*) exit 1 ;;"#;

impl Checkout {
    /// Makes `docker` answer by the branches of a `case` on its arguments, and succeed at everything else.
    fn with_docker(answers: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let checkout = Self { folder };
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose");
        assert!(
            Command::new("cp").arg("-RL").arg(original).arg(checkout.compose()).status().unwrap().success()
        );
        // Those of a cluster on this machine.
        drop(fs::remove_dir_all(checkout.compose().join("secrets")));
        let docker = checkout.path("bin/docker");
        fs::create_dir(docker.parent().unwrap()).unwrap();
        let script = format!(
            "#!/bin/sh\ncd '{}'\necho \"$* files=$COMPOSE_FILE cluster=$KAFKA_CLUSTER_ID password=$KAFKA_UI_PASSWORD\" >>calls\ncase \"$*\" in\n{answers}\n{ENGINE}\nesac\n",
            checkout.folder.path().display(),
        );
        write_program(&docker, &script);
        checkout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn compose(&self) -> PathBuf {
        self.path("compose")
    }

    /// Returns the folder of the volume of a broker.
    fn volume(&self, broker: u8) -> PathBuf {
        self.path(&format!("volumes/vehicle-platform_kraft-{broker}-data"))
    }

    fn secret(&self, name: &str) -> String {
        fs::read_to_string(self.compose().join("secrets").join(name)).unwrap().trim().to_owned()
    }

    fn up(&self, variables: &[(&str, &str)]) -> Output {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(self.compose().join("up"));
        for name in [
            "BIND_ADDRESS",
            "COMPOSE_FILE",
            "COMPOSE_PROFILES",
            "KAFKA_CLUSTER_ID",
            "KAFKA_UI_PASSWORD",
            "KRAFT",
            "START_SECONDS",
        ] {
            command.env_remove(name);
        }
        command.env("PATH", path).env("SKIP_CHECKS", "1").envs(variables.iter().copied());
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Returns the id of Kafka's cluster that the last start passed to compose.
    fn cluster_id(&self) -> String {
        let calls = self.calls();
        let start = calls.lines().rfind(|call| call.starts_with("compose up --detach")).unwrap();
        let (_, id) = start.split_once(" cluster=").unwrap();
        id.split_once(' ').unwrap().0.to_owned()
    }

    /// Returns what `docker` was called with.
    fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

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

#[test]
fn make_up_explains_a_database_whose_initialization_was_interrupted() {
    let unhealthy = format!(
        "{FAILS}\n'ps --all'*'service=mongodb'*) echo abc ;;\n'inspect --format {{{{if .State.Health}}}}'*) echo unhealthy ;;"
    );
    let output = Checkout::with_docker(&unhealthy).up(&[("START_SECONDS", "1")]);
    let said = stderr(&output);
    assert!(
        said.contains("mongodb is busy, or does not accept the user") && said.contains("make clean"),
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
fn kafka_ui_gets_a_random_password_when_other_machines_can_reach_it() {
    for address in ["127.0.0.1", "127.0.0.2", "[::1]", "localhost"] {
        let checkout = Checkout::with_docker("");
        let output = checkout.up(&[("BIND_ADDRESS", address)]);
        assert!(stdout(&output).contains("admin / password"), "{output:?}");
        assert!(!checkout.compose().join("secrets/kafka-ui-password").exists(), "{address}");
    }
    for address in ["0.0.0.0", "192.168.1.5", "[::]"] {
        let checkout = Checkout::with_docker("");
        let output = checkout.up(&[("BIND_ADDRESS", address)]);
        let password = checkout.secret("kafka-ui-password");
        assert_eq!(password.len(), 48);
        assert!(checkout.calls().contains(&format!("password={password}\n")), "{address}");
        assert!(stdout(&output).contains("admin / compose/secrets/kafka-ui-password"), "{output:?}");
        checkout.up(&[("BIND_ADDRESS", address)]);
        assert_eq!(checkout.secret("kafka-ui-password"), password, "it changed");
    }
    let checkout = Checkout::with_docker("");
    let output = checkout.up(&[("BIND_ADDRESS", "0.0.0.0"), ("KAFKA_UI_PASSWORD", "chosen")]);
    assert!(stdout(&output).contains("admin / chosen"), "{output:?}");
}

#[test]
fn each_database_gets_a_user_with_a_password_of_its_own() {
    let checkout = Checkout::with_docker("");
    assert!(checkout.up(&[]).status.success());
    for (name, user, rest) in [
        ("stock-database-url", "postgres://stock:", "@postgres:5432/stock"),
        ("ads-database-url", "mongodb://ads:", "@mongodb:27017/vehicles"),
    ] {
        let url = checkout.secret(name);
        let password = url.strip_prefix(user).unwrap().strip_suffix(rest).unwrap();
        assert_eq!(password.len(), 48);
        for superuser in ["postgres-password", "mongodb-password"] {
            assert_ne!(checkout.secret(superuser), password);
        }
    }
    let folder = fs::metadata(checkout.compose().join("secrets")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_missing_secret_of_an_existing_database_is_not_replaced() {
    for (database, secret) in [("postgres", "stock-database-url"), ("mongodb", "ads-database-url")] {
        let checkout = Checkout::with_docker("'volume inspect '*) [ -e volumes ] ;;");
        assert!(checkout.up(&[]).status.success());
        fs::write(checkout.path("volumes"), "").unwrap();
        assert!(checkout.up(&[]).status.success(), "the secrets exist");
        fs::remove_file(checkout.compose().join("secrets").join(secret)).unwrap();
        let output = checkout.up(&[]);
        let expected =
            format!("compose/secrets/{secret} is missing, but the volume vehicle-platform_{database}-data");
        assert!(stderr(&output).contains(&expected), "{output:?}");
    }
}

#[test]
fn kraft_selects_the_files_without_zookeeper() {
    for (value, expected) in [("1", "files=compose.yaml:kraft.yaml"), ("0", "files= "), ("", "files= ")] {
        let checkout = Checkout::with_docker("");
        assert!(checkout.up(&[("KRAFT", value)]).status.success());
        let calls = checkout.calls();
        let start = calls.lines().find(|call| call.starts_with("compose up --detach")).unwrap();
        assert!(start.contains(expected), "{start}");
    }
}

/// Answers of an engine whose volumes are folders in the folder `volumes`, and whose containers are files in the folder
/// `containers`, with their variables. What is run in an image runs on this machine, in the folder of the mounted volumes.
const KAFKA: &str = r#"'volume ls --quiet') mkdir -p volumes && ls volumes ;;
'run '*' --workdir /volumes '*)
    rm -rf mounted && mkdir mounted
    for argument; do
        case $argument in *:/volumes/*:ro)
            target=${argument#*:/volumes/}
            ln -s "$PWD/volumes/${argument%%:*}" "mounted/${target%:ro}" ;;
        esac
    done
    cd mounted && sh -c "$argument" ;;
'compose up --no-start'*)
    mkdir -p containers
    for broker in 1 2 3; do
        mkdir -p "volumes/vehicle-platform_kraft-$broker-data"
        printf 'PATH=/bin\nCLUSTER_ID=%s\n' "$KAFKA_CLUSTER_ID" >"containers/kafka-$broker"
    done ;;
'compose ps --all --quiet') mkdir -p containers && ls containers ;;
'inspect --format {{range .Config.Env}}'*) shift 3 && cd containers && cat "$@" ;;"#;

/// Creates the volume of a broker that has formatted it.
fn format_volume(checkout: &Checkout, broker: u8, id: &str) {
    let folder = checkout.volume(broker);
    fs::create_dir_all(&folder).unwrap();
    let text = format!("#\n#Thu Jan 01 00:00:00 GMT 2026\ncluster.id={id}\nnode.id={broker}\nversion=1\n");
    fs::write(folder.join("meta.properties"), text).unwrap();
}

/// Runs `make up KRAFT=1` and returns the id of Kafka's cluster.
fn start_kafka(checkout: &Checkout) -> String {
    let output = checkout.up(&[("KRAFT", "1")]);
    assert!(output.status.success(), "{output:?}");
    checkout.cluster_id()
}

/// Runs `make up KRAFT=1`, which must fail before it creates a container, and returns its messages.
fn fail_to_start_kafka(checkout: &Checkout) -> String {
    let output = checkout.up(&[("KRAFT", "1")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!checkout.calls().contains("compose up"));
    stderr(&output)
}

#[test]
fn kafka_gets_a_new_cluster_id_when_neither_a_volume_nor_a_container_has_one() {
    let checkout = Checkout::with_docker(KAFKA);
    let id = start_kafka(&checkout);
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    assert!(id.len() == 22 && id.bytes().all(is_base64url) && !id.starts_with('-'), "{id}");
    assert!(!checkout.calls().contains("run "), "there was no volume");

    fs::remove_dir_all(checkout.path("containers")).unwrap();
    let other = start_kafka(&checkout);
    assert_ne!(other, id, "no volume was formatted");

    fs::remove_dir_all(checkout.path("containers")).unwrap();
    format_volume(&checkout, 1, &other);
    fs::remove_dir_all(checkout.path("volumes")).unwrap();
    assert!(![id, other].contains(&start_kafka(&checkout)), "the volumes were removed");
}

#[test]
fn kafka_retains_the_cluster_id_that_its_volumes_were_formatted_with() {
    for formatted in [&[1, 2, 3][..], &[1], &[3]] {
        let checkout = Checkout::with_docker(KAFKA);
        for &broker in formatted {
            format_volume(&checkout, broker, "abc-_123");
        }
        assert_eq!(start_kafka(&checkout), "abc-_123", "the other volumes do not exist");
        assert_eq!(start_kafka(&checkout), "abc-_123", "the other volumes are not formatted");
    }
}

#[test]
fn kafka_retains_the_cluster_id_of_a_start_that_was_interrupted_before_a_volume_was_formatted() {
    let checkout = Checkout::with_docker(KAFKA);
    let id = start_kafka(&checkout);
    assert_eq!(start_kafka(&checkout), id);
    for broker in [1, 2] {
        fs::remove_file(checkout.path(&format!("containers/kafka-{broker}"))).unwrap();
    }
    assert_eq!(start_kafka(&checkout), id, "only one container was created");

    let containers = Checkout::with_docker(&format!("'compose ps '*) exit 1 ;;\n{KAFKA}"));
    let said = fail_to_start_kafka(&containers);
    assert!(said.contains("cannot read the id of the cluster from the containers"), "{said}");
}

#[test]
fn make_up_fails_at_once_when_the_volumes_of_kafka_belong_to_different_clusters() {
    let checkout = Checkout::with_docker(KAFKA);
    for (broker, id) in [(1, "ours"), (2, "restored"), (3, "ours")] {
        format_volume(&checkout, broker, id);
    }
    let said = fail_to_start_kafka(&checkout);
    let [one, two, three] = [1, 2, 3].map(|broker| format!("vehicle-platform_kraft-{broker}-data"));
    assert!(said.contains(&format!("{one} ours, {two} restored, {three} ours.")), "{said}");
    for way_out in ["make down", "docker volume rm", "make clean"] {
        assert!(said.contains(way_out), "{said}");
    }
}

#[test]
fn make_up_fails_when_it_cannot_read_the_cluster_id_of_existing_volumes() {
    let fails = |checkout: &Checkout, expected: &str| {
        let said = fail_to_start_kafka(checkout);
        assert!(said.contains("cannot read the id of the cluster from the volumes"), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    for answer in ["'volume ls '*) exit 1 ;;", "'run '*) exit 125 ;;"] {
        let checkout = Checkout::with_docker(&format!("{answer}\n{KAFKA}"));
        format_volume(&checkout, 2, "id");
        fails(&checkout, "");
        assert!(checkout.up(&[]).status.success(), "with ZooKeeper, Kafka chooses the id");
        assert_eq!(checkout.cluster_id(), "");
    }
    // A folder cannot be read as a file, not even by root, nor can a file be searched.
    for unreadable in [1, 2, 3] {
        let checkout = Checkout::with_docker(KAFKA);
        for broker in [1, 2, 3] {
            format_volume(&checkout, broker, "id");
        }
        let volume = checkout.volume(unreadable);
        let file = volume.join("meta.properties");
        fs::write(&file, "cluster.id=\nversion=1\n").unwrap();
        let expected = format!("read from vehicle-platform_kraft-{unreadable}-data/meta.properties");
        fails(&checkout, &expected);
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        fails(&checkout, &expected);
        fs::remove_dir_all(&volume).unwrap();
        fs::write(&volume, "").unwrap();
        fails(&checkout, &format!("kraft-{unreadable}-data"));
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
