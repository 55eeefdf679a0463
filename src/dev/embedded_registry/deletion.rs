//! Deletes versions and subjects: first so that they can be restored, then permanently.

use std::collections::BTreeSet;

use super::api_error::ApiError;
use super::state::State;
use super::stored::{Stored, Version};

impl State {
    /// Deletes the versions of a subject and returns their numbers.
    pub(super) fn delete_subject(&mut self, subject: &str, permanent: bool) -> Result<Vec<u32>, ApiError> {
        let all = self.versions(subject, true);
        if all.is_empty() {
            return Err(ApiError::subject(subject));
        }
        let active = self.versions(subject, false);
        if !permanent && active.is_empty() {
            let message =
                format!("Subject '{subject}' was soft deleted. Set permanent=true to delete permanently");
            return Err(ApiError::new(40404, message));
        }
        let versions = if permanent { all } else { active.clone() };
        for version in &versions {
            self.check_deletable(subject, version)?;
        }
        if permanent && !active.is_empty() {
            let message =
                format!("Subject '{subject}' was not deleted first before being permanently deleted");
            return Err(ApiError::new(40405, message));
        }
        let numbers: Vec<_> = versions.iter().map(|version| version.number).collect();
        self.delete(subject, &numbers, permanent)?;
        Ok(numbers)
    }

    /// Deletes a version of a subject.
    pub(super) fn delete_version(
        &mut self,
        subject: &str,
        version: Version,
        permanent: bool,
    ) -> Result<(), ApiError> {
        let Version { number, deleted, .. } = version;
        if deleted && !permanent {
            let message = format!(
                "Subject '{subject}' Version {number} was soft deleted. Set permanent=true to delete permanently"
            );
            return Err(ApiError::new(40406, message));
        }
        self.check_deletable(subject, &version)?;
        if !deleted && permanent {
            let message = format!(
                "Subject '{subject}' Version {number} was not deleted first before being permanently deleted"
            );
            return Err(ApiError::new(40407, message));
        }
        self.delete(subject, &[number], permanent)
    }

    fn check_deletable(&self, subject: &str, version: &Version) -> Result<(), ApiError> {
        self.check_writable(subject)?;
        if self.referenced_by(subject, version.number).is_empty() {
            return Ok(());
        }
        let message =
            format!("One or more references exist to the schema {subject} version {}.", version.number);
        Err(ApiError::new(42206, message))
    }

    /// Returns the ids of the schemas that refer to a version and are not deleted.
    pub(super) fn referenced_by(&self, subject: &str, number: u32) -> BTreeSet<u32> {
        let stored = self.stored();
        let versions = stored.subjects.values().flat_map(|versions| &versions.0);
        let ids = versions.filter(|version| !version.deleted).map(|version| version.id);
        let refers = |id: &u32| {
            stored.schemas.get(id).is_some_and(|schema| {
                let mut references = schema.references.iter();
                references.any(|reference| {
                    reference.subject == subject && u32::try_from(reference.version) == Ok(number)
                })
            })
        };
        ids.filter(refers).collect()
    }

    fn delete(&mut self, subject: &str, numbers: &[u32], permanent: bool) -> Result<(), ApiError> {
        self.change(|stored| {
            if let Some(versions) = stored.subjects.get_mut(subject) {
                for version in &mut versions.0 {
                    version.deleted |= numbers.contains(&version.number);
                }
                if permanent {
                    versions.0.retain(|version| !numbers.contains(&version.number));
                }
                if versions.0.is_empty() {
                    stored.subjects.remove(subject);
                    stored.levels.subjects.remove(subject);
                    stored.modes.subjects.remove(subject);
                }
            }
            if permanent {
                remove_unused(stored);
            }
            Ok(())
        })
    }
}

/// Removes the schemas that no version has.
fn remove_unused(stored: &mut Stored) {
    let used: BTreeSet<_> =
        stored.subjects.values().flat_map(|versions| &versions.0).map(|version| version.id).collect();
    stored.schemas.retain(|id, _| used.contains(id));
}
