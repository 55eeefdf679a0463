//! Runs the scripts of the cluster with a fake `docker` that records what it is asked.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::compose_model::{defaults, repository};
use crate::make_up::write_program;

/// A copy of the folder compose and of the Makefile, next to a fake `docker`.
pub struct Checkout {
    folder: TempDir,
}

/// The answers of an engine that has 16 GiB of memory and no containers.
const ENGINE: &str = r#"'compose version --short') echo "${COMPOSE_VERSION:-2.17.0}" ;;
'info --format {{.MemTotal}}') echo 17179869184 ;;
'volume inspect '*) exit 1 ;;"#;

impl Checkout {
    /// Makes `docker` answer by the branches of a `case` on its arguments, and succeed at everything else.
    pub fn with_docker(answers: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let checkout = Self { folder };
        let originals = ["compose", "Makefile"].map(|name| repository().join(name));
        let copied = Command::new("cp").arg("-RL").args(originals).arg(checkout.folder.path()).status();
        assert!(copied.unwrap().success());
        // Those of a cluster on this machine.
        drop(fs::remove_dir_all(checkout.compose().join("secrets")));
        let docker = checkout.path("bin/docker");
        fs::create_dir(docker.parent().unwrap()).unwrap();
        let script = format!(
            "#!/bin/sh\ncd '{}'\necho \"$* files=$COMPOSE_FILE cluster=$KAFKA_CLUSTER_ID read_only=$CONSOLE_READ_ONLY password=$KAFKA_UI_PASSWORD\" >>calls\ncase \"$*\" in\n{answers}\n{ENGINE}\nesac\n",
            checkout.folder.path().display(),
        );
        write_program(&docker, &script);
        checkout
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn compose(&self) -> PathBuf {
        self.path("compose")
    }

    pub fn secret(&self, name: &str) -> String {
        fs::read_to_string(self.compose().join("secrets").join(name)).unwrap().trim().to_owned()
    }

    /// Changes the settings in the file .env.
    pub fn set(&self, lines: &str) {
        let file = self.compose().join(".env");
        fs::write(&file, fs::read_to_string(&file).unwrap() + lines).unwrap();
    }

    /// Returns a command of this checkout that uses the fake `docker`, without the settings of this process.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(program);
        let settings = defaults().into_keys();
        for name in
            settings.chain(["COMPOSE_PROFILES", "KAFKA_CLUSTER_ID", "START_SECONDS"].map(str::to_owned))
        {
            command.env_remove(name);
        }
        command
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("SKIP_CHECKS", "1")
            .stdin(Stdio::null());
        command
    }

    pub fn up(&self, variables: &[(&str, &str)]) -> Output {
        self.command(self.compose().join("up")).envs(variables.iter().copied()).output().unwrap()
    }

    /// Runs `make` with these arguments and returns its output.
    pub fn make(&self, arguments: &[&str]) -> Output {
        // As if this process were not run by a `make`.
        self.command("make").args(arguments).env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().unwrap()
    }

    /// Returns what `docker` was called with.
    pub fn calls(&self) -> String {
        // It does not exist before the first call.
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
