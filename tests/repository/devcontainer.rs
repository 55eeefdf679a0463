//! Tests the development container: it builds what `make dev` runs and forwards the ports of it.

use serde_json::Value;
use vehicle_platform::cli::Cli;
use vehicle_platform::environment::command_of;

use crate::compose_model::text;

fn container() -> Value {
    serde_json::from_str(&text(".devcontainer/devcontainer.json")).unwrap()
}

#[test]
fn it_forwards_the_ports_of_dev() {
    let command = command_of::<Cli>();
    let dev = command.find_subcommand("dev").unwrap();
    let arguments = dev.get_arguments().filter(|argument| argument.get_id().as_str().ends_with("_port"));
    let ports: Vec<u64> = arguments
        .map(|argument| argument.get_default_values()[0].to_str().unwrap().parse().unwrap())
        .collect();
    assert!(!ports.is_empty());
    let container = container();
    assert_eq!(container["forwardPorts"], serde_json::json!(ports));
    for port in ports {
        assert!(container["portsAttributes"][port.to_string()]["label"].is_string(), "{port}");
    }
}

#[test]
fn it_builds_what_make_dev_runs_with_the_toolchain_that_is_pinned() {
    let makefile = text("Makefile");
    let run =
        makefile.lines().find(|line| line.starts_with("\tcargo run ") && line.ends_with(" -- dev")).unwrap();
    let flags = run.strip_prefix("\tcargo run ").unwrap().strip_suffix(" -- dev").unwrap();
    // Without a version, rustup takes that of rust-toolchain.toml.
    let expected = format!("rustup toolchain install && cargo build {flags}");
    assert_eq!(container()["updateContentCommand"], expected);
}

#[test]
fn it_has_the_system_that_builds_the_image() {
    let dockerfile = text("Dockerfile");
    let builder =
        dockerfile.lines().find_map(|line| line.strip_prefix("FROM rust:${RUST_VERSION}-")).unwrap();
    let (debian, _) = builder.split_once(' ').unwrap();
    assert_eq!(container()["image"], format!("mcr.microsoft.com/devcontainers/rust:2-1-{debian}"));
}
