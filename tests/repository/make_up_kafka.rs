//! Tests which id `make up KRAFT=1` gives to Kafka's cluster.

use std::fs;
use std::path::PathBuf;

use crate::checkout::{Checkout, stderr};

/// Returns the folder of the volume of a broker.
fn volume_of(checkout: &Checkout, broker: u8) -> PathBuf {
    checkout.path(&format!("volumes/vehicle-platform_kraft-{broker}-data"))
}

/// Returns the id of Kafka's cluster that the last start passed to compose.
fn cluster_id(checkout: &Checkout) -> String {
    let calls = checkout.calls();
    let start = calls.lines().rfind(|call| call.starts_with("compose up --detach")).unwrap();
    let (_, id) = start.split_once(" cluster=").unwrap();
    id.split_once(' ').unwrap().0.to_owned()
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
    let folder = volume_of(checkout, broker);
    fs::create_dir_all(&folder).unwrap();
    let text = format!("#\n#Thu Jan 01 00:00:00 GMT 2026\ncluster.id={id}\nnode.id={broker}\nversion=1\n");
    fs::write(folder.join("meta.properties"), text).unwrap();
}

/// Runs `make up KRAFT=1` and returns the id of Kafka's cluster.
fn start_kafka(checkout: &Checkout) -> String {
    let output = checkout.up(&[("KRAFT", "1")]);
    assert!(output.status.success(), "{output:?}");
    cluster_id(checkout)
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
    for way_out in ["make down ", "docker volume rm", "make down DATA=1"] {
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
        assert_eq!(cluster_id(&checkout), "");
    }
    // A folder cannot be read as a file, not even by root, nor can a file be searched.
    for unreadable in [1, 2, 3] {
        let checkout = Checkout::with_docker(KAFKA);
        for broker in [1, 2, 3] {
            format_volume(&checkout, broker, "id");
        }
        let volume = volume_of(&checkout, unreadable);
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
