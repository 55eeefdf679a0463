//! Tests the messages of `make up` on a machine that cannot start the cluster.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// A directory of programs that is the whole `PATH`, with or without a fake `docker`.
struct Machine {
    programs: TempDir,
}

impl Machine {
    fn without_docker() -> Self {
        let programs = tempfile::tempdir().unwrap();
        for name in ["awk", "bash", "dirname", "env", "sed", "sh"] {
            symlink(program(name), programs.path().join(name)).unwrap();
        }
        Self { programs }
    }

    /// Adds a `docker` script whose `case` on its arguments has the branches `answers`.
    fn with_docker(answers: &str) -> Self {
        let machine = Self::without_docker();
        let docker = format!("#!/bin/sh\ncase \"$*\" in\n{answers}\nesac\n");
        write_program(&machine.programs.path().join("docker"), &docker);
        machine
    }

    fn run(&self, program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(REPOSITORY).env("PATH", self.programs.path());
        command.env_remove("SKIP_CHECKS").envs(variables.iter().copied()).output().unwrap()
    }

    /// Runs `make up`, which must fail its checks, and returns its messages.
    fn up(&self, variables: &[(&str, &str)]) -> String {
        let output = self.run(&Path::new(REPOSITORY).join("compose/up"), &[], variables);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// Writes a script in another process: a child that this process forks meanwhile would hold the file open for writing,
/// and such a file cannot be executed.
pub fn write_program(path: &Path, text: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Returns the path of a program on this machine.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists()).unwrap()
}

const COMPOSE: &str = "'compose version --short') echo 2.40.3 ;;";

#[test]
fn make_up_without_docker_reports_it_and_suggests_make_dev() {
    let machine = Machine::without_docker();
    let said = machine.up(&[]);
    assert!(said.contains("Docker is not installed") && said.contains("make dev"), "{said}");

    let output = machine.run(&program("make"), &["up"], &[]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Docker is not installed") && said.contains("make dev"), "{said}");
}

#[test]
fn make_up_reports_a_problem_with_docker_and_suggests_make_dev() {
    for (answers, expected) in [
        ("*) exit 1 ;;".to_owned(), "compose plugin is missing"),
        ("*) echo 1.29.2 ;;".to_owned(), "has version 1.29.2, but version 2.17"),
        ("*) echo v2.16.0 ;;".to_owned(), "has version v2.16.0, but version 2.17"),
        (
            format!("{COMPOSE}\n*) echo 'Cannot connect to the daemon' >&2; exit 1 ;;"),
            "Docker does not answer",
        ),
        (format!("{COMPOSE}\n*) echo 'permission denied' >&2; exit 1 ;;"), "you may not use Docker"),
    ] {
        let said = Machine::with_docker(&answers).up(&[]);
        assert!(said.contains(expected) && said.contains("make dev"), "{said}");
    }
}

#[test]
fn make_up_reports_insufficient_memory_and_every_taken_port() {
    let listeners = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let [stock, ads] = listeners.each_ref().map(|taken| taken.local_addr().unwrap().port().to_string());
    let answers = format!("{COMPOSE}\n'info --format {{{{.MemTotal}}}}') echo 4294967296 ;;");
    let said = Machine::with_docker(&answers).up(&[("STOCK_PORT", &stock), ("ADS_PORT", &ads)]);
    assert!(said.contains("Docker has 4096 MiB") && said.contains("make dev"), "{said}");
    for (setting, port) in [("STOCK_PORT", stock), ("ADS_PORT", ads)] {
        assert!(said.contains(&format!("port {port} is taken")), "{said}");
        assert!(said.contains(&format!("{setting}=<port> make up")), "{said}");
    }
}
