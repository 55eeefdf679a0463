//! Runs the scripts of the folder compose with a fake `docker` that records what it is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::make_up::write_program;

/// A copy of the folder compose, next to a fake `docker`.
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn compose(&self) -> PathBuf {
        self.path("compose")
    }

    pub fn secret(&self, name: &str) -> String {
        fs::read_to_string(self.compose().join("secrets").join(name)).unwrap().trim().to_owned()
    }

    pub fn up(&self, variables: &[(&str, &str)]) -> Output {
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

    /// Returns what `docker` was called with.
    pub fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap()
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
