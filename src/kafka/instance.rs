//! Determines the name of this process among the instances of a role.

use std::fs::{File, OpenOptions};
use std::io;

/// The maximum number of instances of a role on one machine.
const MAX_SLOTS: u32 = 1_000;

/// A name that belongs to this instance while it runs and that another one can claim afterwards.
///
/// The name is part of the transactional id, which must be stable. A producer that takes over the id of a killed
/// process ends the transaction that was left open. Otherwise, all readers would wait until the transaction times out.
#[derive(Debug)]
pub struct Instance {
    name: String,
    /// The lock, which the operating system releases when the process ends.
    _slot: Option<File>,
}

impl Instance {
    /// Returns an instance with the given `name`. Without one, its name is the host's name and the lowest number that
    /// no other instance of `role` on this machine has claimed.
    pub fn claim(role: &str, name: Option<&str>) -> Self {
        if let Some(name) = name {
            return Self { name: name.to_owned(), _slot: None };
        }
        let host = host_name();
        for slot in 0..MAX_SLOTS {
            let path = std::env::temp_dir().join(format!("vehicle-platform-{role}-{slot}.lock"));
            match lock(&path) {
                Ok(file) => return Self { name: format!("{host}-{slot}"), _slot: Some(file) },
                // Locked by another instance, or owned by another user.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied
                    ) => {}
                Err(error) => {
                    tracing::debug!(%error, path = %path.display(), "cannot lock a file, using a random name");
                    break;
                }
            }
        }
        // The host's name alone is not sufficient, because another process could use it too.
        Self { name: Self::unique_name(), _slot: None }
    }

    /// Returns a name that no other process has: the host's name, the process id and random digits, because two hosts
    /// may have the same name.
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
    fn concurrent_instances_have_different_names_and_a_successor_reuses_a_released_name() {
        let role = format!("test-{}", std::process::id());
        let first = Instance::claim(&role, None);
        let second = Instance::claim(&role, None);
        assert_ne!(first.name(), second.name());
        let freed = first.name().to_owned();
        drop(first);
        assert_eq!(Instance::claim(&role, None).name(), freed);
    }

    #[test]
    fn a_given_name_is_used_unchanged() {
        assert_eq!(Instance::claim("estimate", Some("blue")).name(), "blue");
    }
}
