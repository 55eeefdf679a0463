//! Tests the workflows and the scripts of a release.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::compose_model::{Mode, strings, text};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn workflow(name: &str) -> Value {
    serde_saphyr::from_str(&text(&format!(".github/workflows/{name}"))).unwrap()
}

/// Returns the steps of all jobs.
fn steps(workflow: &Value) -> Vec<Value> {
    let jobs = workflow["jobs"].as_object().unwrap().values();
    jobs.filter_map(|job| job["steps"].as_array()).flatten().cloned().collect()
}

/// Returns the targets that the commands of a workflow make.
fn made(workflow: &Value) -> Vec<String> {
    let commands = steps(workflow).into_iter().filter_map(|step| step["run"].as_str().map(str::to_owned));
    let makes = commands.filter(|command| command.starts_with("make "));
    let target = |command: String| {
        command.split_whitespace().skip(1).find(|word| !word.starts_with("--")).map(str::to_owned)
    };
    makes.map(|command| target(command).unwrap()).collect()
}

fn release_notes(tag: &str) -> Output {
    Command::new(repository().join(".ci/release-notes")).arg(tag).output().unwrap()
}

#[test]
fn workflows_make_targets_that_exist() {
    let makefile = text("Makefile");
    let mut all = BTreeSet::new();
    for name in ["advisories.yml", "ci.yml", "release.yml"] {
        all.extend(made(&workflow(name)));
    }
    for target in &all {
        assert!(makefile.contains(&format!("\n{target}: ## ")), "{target}");
    }
    for target in
        ["deny", "dist", "checksums", "image", "lint-workflows", "release-notes", "sbom", "test-kubernetes"]
    {
        assert!(all.contains(target), "no workflow makes {target}");
    }
}

/// With the profiles in the environment, `make down` would not have to know them.
#[test]
fn ci_starts_the_cluster_with_all_profiles_and_checks_that_make_down_stops_them() {
    let services = Mode::ZooKeeper.all_services();
    let mut profiles: BTreeSet<_> =
        services.values().flat_map(|service| strings(&service["profiles"])).collect();
    profiles.remove("tools");
    let job = workflow("ci.yml")["jobs"]["compose"].clone();
    assert!(job["env"].get("COMPOSE_PROFILES").is_none());
    let steps = job["steps"].as_array().unwrap();
    for step in steps {
        let started = step["env"]["COMPOSE_PROFILES"].as_str().unwrap_or_default().split(',');
        let started = started.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let expected = if step["run"] == "make up" { profiles.clone() } else { BTreeSet::new() };
        assert_eq!(expected, started, "{step}");
    }
    let down = steps.iter().position(|step| step["run"] == "make down").unwrap();
    assert!(steps[down + 1]["run"].as_str().unwrap().starts_with("test -z \"$(docker ps --all "));
}

#[test]
fn a_release_passes_ci_and_only_its_pinned_actions_may_write() {
    let release = workflow("release.yml");
    assert_eq!(release["jobs"]["ci"]["uses"], "./.github/workflows/ci.yml");
    assert_eq!(strings(&release["jobs"]["publish"]["needs"]), ["ci", "binary", "image"]);
    for step in steps(&release) {
        if let Some(action) = step["uses"].as_str() {
            let (_, commit) = action.split_once('@').unwrap();
            let pinned = commit.len() == 40 && commit.chars().all(|digit| digit.is_ascii_hexdigit());
            assert!(pinned, "{action} is not pinned to a commit");
        }
    }
    for name in ["advisories.yml", "ci.yml"] {
        let workflow = workflow(name);
        assert_eq!(workflow["permissions"], serde_json::json!({ "contents": "read" }), "{name}");
        for (job, content) in workflow["jobs"].as_object().unwrap() {
            assert!(content.get("permissions").is_none(), "{job} of {name}");
        }
    }
}

#[test]
fn the_notes_of_a_release_are_the_section_of_its_version() {
    let output = release_notes(&format!("v{VERSION}"));
    let section = text("CHANGELOG.md").contains(&format!("\n## [{VERSION}] - "));
    assert_eq!(output.status.success(), section, "{output:?}");
    if section {
        let notes = String::from_utf8(output.stdout).unwrap();
        assert!(!notes.contains("\n## ") && notes.contains("### "), "{notes}");
    }
}

#[test]
fn a_tag_that_is_not_the_version_is_refused() {
    for tag in ["", VERSION, "v0.0.0"] {
        let output = release_notes(tag);
        assert_eq!(output.status.code(), Some(1), "{tag}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("'{tag}'")) && said.contains(VERSION), "{said}");
    }
}

/// Writes a program that answers as the executable does where an archive needs it.
fn stand_in(directory: &Path) -> PathBuf {
    let program = directory.join("program");
    let script = "#!/bin/sh\ncase $1 in\n--version) echo vehicle-platform 1.2.3 ;;\n\
                  man) echo page >\"$2/vehicle-platform.1\" ;;\ncompletions) echo \"$2\" ;;\nesac\n";
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    program
}

#[test]
fn the_same_commit_and_binary_give_the_same_archive() {
    let directory = tempfile::tempdir().unwrap();
    let program = stand_in(directory.path());
    let archives = ["first", "second"].map(|name| {
        let folder = directory.path().join(name);
        let mut command = Command::new(repository().join(".ci/dist"));
        let output =
            command.arg(&program).arg(&folder).env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    });
    let [first, second] = archives.each_ref().map(|archive| fs::read(archive).unwrap());
    assert!(first == second);

    let listed = Command::new("tar").arg("tvzf").arg(&archives[0]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let folder = archives[0].file_name().unwrap().to_str().unwrap().strip_suffix(".tar.gz").unwrap();
    assert!(folder.starts_with("vehicle-platform-1.2.3-"), "{folder}");
    for (mode, file) in [
        ("-rwxr-xr-x", "vehicle-platform"),
        ("-rw-r--r--", "LICENSE"),
        ("-rw-r--r--", "man/man1/vehicle-platform.1"),
        ("-rw-r--r--", "completions/vehicle-platform.zsh"),
    ] {
        let entry = listed.lines().find(|line| line.ends_with(&format!(" {folder}/{file}")));
        assert!(
            entry.is_some_and(|line| line.starts_with(mode) && line.contains(" 0/0 ")),
            "{file}: {listed}"
        );
    }
}
