//! What the command line says when something is wrong.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::{Command, Output};

use support::{BINARY, Platform};

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn a_taken_port_or_data_directory_is_an_error_that_names_the_flag() {
    let platform = Platform::start(&["--roles", "none"]).await;
    let data_dir = platform.data_dir().to_str().unwrap();
    let output = run(&["dev", "--kafka-port", "0", "--data-dir", data_dir]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--data-dir"), "{}", stderr(&output));

    let other = tempfile::tempdir().unwrap();
    let other = other.path().to_str().unwrap();
    let (_, taken) = platform.kafka().rsplit_once(':').unwrap();
    for flag in ["--kafka-port", "--registry-port", "--stock-port", "--ads-port"] {
        let mut arguments = vec!["dev", "--data-dir", other];
        for port in ["--kafka-port", "--registry-port", "--stock-port", "--ads-port"] {
            arguments.extend([port, if port == flag { taken } else { "0" }]);
        }
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(flag), "{}", stderr(&output));
    }
    platform.finish().await;
}

#[test]
fn wrong_usage_ends_with_2_and_names_the_flag() {
    for (arguments, named) in [
        (vec!["estimate", "--processing-time", "soon"], "--processing-time"),
        (vec!["estimate", "--max-in-flight", "0"], "--max-in-flight"),
        (vec!["stock", "--database-url", "mysql://h/d"], "--database-url"),
        (vec!["stock", "--schema-registry-url", "h:8081"], "--schema-registry-url"),
        (vec!["stock", "--kafka-property", "isolation.level=read_uncommitted"], "--kafka-property"),
        (vec!["dev", "--roles", "stok"], "--roles"),
        (vec!["nothing"], "nothing"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(named), "{}", stderr(&output));
    }
}

#[test]
fn a_wrong_setting_ends_with_1_and_names_the_flag() {
    for (arguments, named) in [
        (vec!["estimate", "--kafka-property", "no.such.setting=1"], "--kafka-property"),
        (vec!["stock", "--port", "0", "--database-url", "mongodb://h/d"], "--database-url"),
        (vec!["ads", "--port", "0", "--database-url", "postgres://h/d"], "--database-url"),
        (vec!["stock", "--port", "0", "--database-url-file", "/does/not/exist"], "--database-url-file"),
        (vec!["dev", "--roles", "stock,stock"], "--roles"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(named), "{}", stderr(&output));
    }
}

#[test]
fn a_wrong_value_that_may_be_a_secret_is_not_repeated() {
    for (variable, value) in [
        ("DATABASE_URL", "mysql://user:hidden@host/db"),
        ("KAFKA_PROPERTIES", "sasl.password:hidden"),
        ("SCHEMA_REGISTRY_URL", "ftp://user:hidden@host"),
    ] {
        let output = Command::new(BINARY).arg("stock").env(variable, value).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{variable}");
        assert!(!stderr(&output).contains("hidden"), "{}", stderr(&output));
    }
}

#[test]
fn help_shows_every_setting_with_its_variable_and_no_secret() {
    for command in ["stock", "estimate", "ads", "dev"] {
        let output = Command::new(BINARY)
            .args([command, "--help"])
            .env("DATABASE_URL", "postgres://user:hidden@host/db")
            .env("KAFKA_PROPERTIES", "sasl.password=hidden")
            .output()
            .unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("[env: SHUTDOWN_TIMEOUT="), "{help}");
        assert!(!help.contains("hidden"), "{help}");
    }
}
