//! Counts each change of a log once: it is found again by each session and each assignment, until something is
//! committed.

use std::collections::HashMap;

/// What was noted of the logs that a group reads, by partition.
#[derive(Debug, Default)]
pub(super) struct LogChanges {
    /// What the group has committed, as far as this process knows.
    committed: HashMap<i32, Option<i64>>,
    /// What was committed when the log was found to have gone back.
    went_back: HashMap<i32, Option<i64>>,
    /// What was committed when records were found to be deleted, and the first offset of the log.
    expired: HashMap<i32, (Option<i64>, i64)>,
}

impl LogChanges {
    /// Notes what the group has committed.
    pub(super) fn commits(&mut self, partition: i32, committed: Option<i64>) {
        if self.committed.insert(partition, committed) != Some(committed) {
            self.went_back.remove(&partition);
            self.expired.remove(&partition);
        }
    }

    /// Whether it is new that the log of a partition went back.
    pub(super) fn notes_went_back(&mut self, partition: i32) -> bool {
        let committed = self.committed(partition);
        self.went_back.insert(partition, committed) != Some(committed)
    }

    /// Returns how many of the `offsets` that were deleted before `first` are new.
    pub(super) fn notes_expired(&mut self, partition: i32, first: i64, offsets: i64) -> i64 {
        let committed = self.committed(partition);
        match self.expired.insert(partition, (committed, first)) {
            Some((same, noted)) if same == committed => (first - noted).clamp(0, offsets),
            _ => offsets,
        }
    }

    fn committed(&self, partition: i32) -> Option<i64> {
        self.committed.get(&partition).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_went_back_is_new_once_until_something_is_committed() {
        let mut changes = LogChanges::default();
        changes.commits(0, Some(7));
        assert!(changes.notes_went_back(0));
        changes.commits(0, Some(7));
        assert!(!changes.notes_went_back(0), "another assignment");
        assert!(changes.notes_went_back(1), "another partition");
        changes.commits(0, Some(2));
        assert!(changes.notes_went_back(0), "something was committed");
    }

    #[test]
    fn each_deleted_offset_is_new_once() {
        let mut changes = LogChanges::default();
        changes.commits(0, Some(7));
        assert_eq!(changes.notes_expired(0, 10, 3), 3);
        assert_eq!(changes.notes_expired(0, 10, 3), 0);
        assert_eq!(changes.notes_expired(0, 14, 7), 4);
        changes.commits(0, Some(20));
        assert_eq!(changes.notes_expired(0, 25, 5), 5);
    }
}
