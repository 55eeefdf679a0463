//! Counts each change of a log once, although each session and each assignment detects it again until something is
//! committed.

use std::collections::HashMap;

/// The recorded changes of the logs that a group reads, by partition.
#[derive(Debug, Default)]
pub(super) struct LogChanges {
    /// The offsets that the group has committed, as far as this process knows.
    committed: HashMap<i32, Option<i64>>,
    /// The offsets that were committed when the log was found to have gone back.
    went_back: HashMap<i32, Option<i64>>,
    /// The offsets that were committed when records were found to be deleted, with the first offset of the log.
    expired: HashMap<i32, (Option<i64>, i64)>,
}

impl LogChanges {
    /// Records the offset that the group has committed.
    pub(super) fn commits(&mut self, partition: i32, committed: Option<i64>) {
        if self.committed.insert(partition, committed) != Some(committed) {
            self.went_back.remove(&partition);
            self.expired.remove(&partition);
        }
    }

    /// Records that the log of a partition went back, and returns whether this is new.
    pub(super) fn notes_went_back(&mut self, partition: i32) -> bool {
        let committed = self.committed(partition);
        self.went_back.insert(partition, committed) != Some(committed)
    }

    /// Records that `offsets` before `first` were deleted, and returns how many of them are new.
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
    fn a_log_that_went_back_is_counted_once_until_something_is_committed() {
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
    fn each_deleted_offset_is_counted_once() {
        let mut changes = LogChanges::default();
        changes.commits(0, Some(7));
        assert_eq!(changes.notes_expired(0, 10, 3), 3);
        assert_eq!(changes.notes_expired(0, 10, 3), 0);
        assert_eq!(changes.notes_expired(0, 14, 7), 4);
        changes.commits(0, Some(20));
        assert_eq!(changes.notes_expired(0, 25, 5), 5);
    }
}
