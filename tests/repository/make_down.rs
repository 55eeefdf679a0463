//! Tests how `make` stops the cluster and removes it, with a fake `docker` that records what it is asked.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use crate::checkout::Checkout;
use crate::compose_model::{Mode, strings, text};
use crate::make_up::{program, write_program};

/// A checkout whose cluster has secrets and a volume.
fn started() -> Checkout {
    let checkout = Checkout::with_docker("");
    assert!(checkout.up(&[]).status.success());
    for file in ["data/stock.db", "target/debug/program"] {
        let path = checkout.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    fs::remove_file(checkout.path("calls")).unwrap();
    checkout
}

fn removals(checkout: &Checkout) -> Vec<String> {
    let calls = checkout.calls();
    calls.lines().filter(|call| call.contains("down --volumes")).map(str::to_owned).collect()
}

fn assert_removes_both_modes(checkout: &Checkout) {
    let removals = removals(checkout);
    assert_eq!(removals.len(), Mode::ALL.len(), "{removals:?}");
    for (removal, mode) in removals.iter().zip(Mode::ALL) {
        assert!(removal.contains(&format!("files={} ", mode.files())), "{removal}");
    }
}

#[test]
fn make_down_retains_the_data_unless_it_is_told_to_remove_them() {
    let checkout = started();
    assert!(checkout.make(&["down"]).status.success());
    assert_eq!(removals(&checkout), [""; 0]);
    assert!(checkout.compose().join("secrets").exists());

    assert!(checkout.make(&["down", "DATA=1"]).status.success());
    assert_removes_both_modes(&checkout);
    assert!(!checkout.compose().join("secrets").exists());
    for file in ["data/stock.db", "target/debug/program"] {
        assert!(checkout.path(file).exists(), "{file} belongs to make dev");
    }
}

#[test]
fn the_passwords_remain_when_the_data_cannot_be_removed() {
    let checkout = Checkout::with_docker("*' down '*) [ $COMPOSE_FILE != compose.yaml:kraft.yaml ] ;;");
    assert!(checkout.up(&[]).status.success());
    assert!(!checkout.make(&["down", "DATA=1"]).status.success());
    assert!(checkout.compose().join("secrets").exists());
}

/// Runs `make clean` with the programs of the fake `docker` only, so that a toolchain of this machine is not found.
fn clean(checkout: &Checkout, toolchain: bool) {
    let programs = checkout.path("programs");
    fs::create_dir(&programs).unwrap();
    for name in ["make", "rm", "sh"] {
        symlink(program(name), programs.join(name)).unwrap();
    }
    symlink(checkout.path("bin/docker"), programs.join("docker")).unwrap();
    if toolchain {
        write_program(&programs.join("cargo"), "#!/bin/sh\n[ \"$*\" = clean ] && rm -r target\n");
    }
    let output = checkout.command("make").arg("clean").env("PATH", programs).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn make_clean_removes_everything_with_a_toolchain_or_without() {
    for toolchain in [true, false] {
        let checkout = started();
        clean(&checkout, toolchain);
        assert_removes_both_modes(&checkout);
        for folder in ["compose/secrets", "data", "target"] {
            assert!(!checkout.path(folder).exists(), "{folder}");
        }
    }
}

#[test]
fn make_clean_leaves_the_cluster_of_another_folder() {
    let checkout = Checkout::with_docker("");
    clean(&checkout, false);
    assert_eq!(checkout.calls(), "");
}

#[test]
fn every_target_of_the_cluster_includes_the_containers_of_all_profiles() {
    let services = Mode::ZooKeeper.all_services();
    let profiles: BTreeSet<_> = services.values().flat_map(|service| strings(&service["profiles"])).collect();
    let checkout = started();
    for target in ["down", "ps", "logs"] {
        assert!(checkout.make(&[target]).status.success(), "{target}");
    }
    let calls = checkout.calls();
    assert_eq!(calls.lines().count(), 3, "{calls}");
    for profile in profiles.iter().filter(|profile| *profile != "tools") {
        let included = calls.lines().all(|call| call.contains(&format!("--profile {profile} ")));
        assert!(included, "{profile}: {calls}");
    }
}

#[test]
fn the_way_out_that_messages_name_removes_nothing_of_make_dev() {
    for file in ["compose/up", "README.md", "docs/OPERATIONS.md", "docs/UPGRADING.md"] {
        let text = text(file);
        assert!(text.contains("make down DATA=1") && !text.contains("make clean"), "{file}");
    }
}
