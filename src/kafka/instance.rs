//! Which of several instances of a role this process is.

use std::fs::{File, OpenOptions};
use std::io;

/// More than anyone runs on one machine.
const MAX_SLOTS: u32 = 1_000;

/// A name that is this instance's alone while it runs, and is the next one's to take when it ended.
///
/// The name becomes part of the transactional id, which has to be stable: a producer that takes over the id of a
/// killed one ends the transaction that was left open, for which all readers would otherwise wait until it
/// times out.
#[derive(Debug)]
pub struct Instance {
    name: String,
    /// The lock ends with the process, however that ends.
    _slot: Option<File>,
}

impl Instance {
    /// `name` when one is given; otherwise the host's name and the lowest number that no other instance of `role`
    /// holds on this machine.
    pub fn claim(role: &str, name: Option<&str>) -> Self {
        if let Some(name) = name {
            return Self { name: name.to_owned(), _slot: None };
        }
        let host = host_name();
        for slot in 0..MAX_SLOTS {
            let path = std::env::temp_dir().join(format!("vehicle-platform-{role}-{slot}.lock"));
            match lock(&path) {
                Ok(file) => return Self { name: format!("{host}-{slot}"), _slot: Some(file) },
                // Held by another instance, or by another user's.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied
                    ) => {}
                Err(error) => {
                    tracing::debug!(%error, path = %path.display(), "cannot lock a file, taking a random name");
                    break;
                }
            }
        }
        // Not the bare host's name: nothing would keep another process from it.
        Self { name: Self::unique_name(), _slot: None }
    }

    /// A name that no other process has: the host's name, the process's id, and random digits, for two hosts may have
    /// one name.
    pub fn unique_name() -> String {
        format!("{}-{}-{:08x}", host_name(), std::process::id(), rand::random::<u32>())
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

fn lock(path: &std::path::Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    file.try_lock()?;
    Ok(file)
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_that_run_together_differ_and_a_successor_takes_the_name_over() {
        let role = format!("test-{}", std::process::id());
        let first = Instance::claim(&role, None);
        let second = Instance::claim(&role, None);
        assert_ne!(first.name(), second.name());
        let freed = first.name().to_owned();
        drop(first);
        assert_eq!(Instance::claim(&role, None).name(), freed);
    }

    #[test]
    fn a_given_name_is_taken_as_it_stands() {
        assert_eq!(Instance::claim("estimate", Some("blue")).name(), "blue");
    }
}
