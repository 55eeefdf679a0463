//! Detects partitions in which records wait and a group commits nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::silence::Extent;

/// The time without a commit after which a partition in which the group is behind is checked for records.
const QUIET: Duration = Duration::from_secs(10);
/// The maximum number of partitions that a message names.
const MAX_NAMED: usize = 5;

/// The state of each partition. The partitions are watched separately, so that progress in one does not hide a stall in
/// another.
///
/// An uncommitted offset may belong to a transaction marker, which is never read. A group that seems to be behind is
/// therefore only suspected, until a waiting record was found.
#[derive(Debug, Default)]
pub(super) struct StalledPartitions(BTreeMap<i32, Watched>);

#[derive(Debug)]
struct Watched {
    extent: Extent,
    /// When the current committed offset was first seen.
    since: Instant,
    /// Whether the partition was checked for records since the last change, or has one.
    looked: bool,
    waiting_since: Option<Instant>,
}

impl StalledPartitions {
    /// Evaluates a measurement of all partitions to judge. Returns the partitions that must be checked for records,
    /// with the offsets to begin at.
    pub(super) fn suspects(&mut self, extents: &BTreeMap<i32, Extent>, now: Instant) -> BTreeMap<i32, i64> {
        self.0.retain(|partition, watched| {
            extents.get(partition).is_some_and(|extent| extent.committed == watched.extent.committed)
        });
        let mut suspects = BTreeMap::new();
        for (&partition, &extent) in extents {
            let new = Watched { extent, since: now, looked: false, waiting_since: None };
            let watched = self.0.entry(partition).or_insert(new);
            if watched.extent != extent && watched.waiting_since.is_none() {
                watched.looked = false;
            }
            watched.extent = extent;
            if extent.next() >= extent.end {
                // The records were deleted.
                watched.waiting_since = None;
                watched.looked = false;
            }
            let is_quiet = now.saturating_duration_since(watched.since) >= QUIET;
            if extent.next() < extent.end && !watched.looked && is_quiet {
                suspects.insert(partition, extent.next());
            }
        }
        suspects
    }

    /// Records whether a record waits in a partition.
    pub(super) fn learned(&mut self, partition: i32, waits: bool, now: Instant) {
        if let Some(watched) = self.0.get_mut(&partition) {
            watched.looked = true;
            watched.waiting_since = waits.then_some(now);
        }
    }

    /// Describes the partitions in which records wait and nothing was committed for longer than `patience`. It includes
    /// those that are `assigned` to this member, and those of other members unless these commit in some partition.
    pub(super) fn describe(&self, assigned: &[i32], patience: Duration, now: Instant) -> Option<String> {
        let is_long = |since: Instant| now.saturating_duration_since(since) > patience;
        let others_stand_still = self
            .0
            .iter()
            .filter(|(partition, _)| !assigned.contains(partition))
            .all(|(_, watched)| is_long(watched.since));
        let stalled: Vec<_> = self
            .0
            .iter()
            .filter(|(partition, _)| others_stand_still || assigned.contains(partition))
            .filter_map(|(partition, watched)| Some((partition, watched.waiting_since?)))
            .filter(|(_, since)| is_long(*since))
            .collect();
        let since = stalled.iter().map(|(_, since)| *since).min()?;
        let seconds = now.saturating_duration_since(since).as_secs();
        let named = stalled.iter().take(MAX_NAMED).map(|(partition, _)| partition.to_string());
        let named = named.collect::<Vec<_>>().join(", ");
        let more = match stalled.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let partitions = if stalled.len() == 1 { "partition" } else { "partitions" };
        Some(format!(
            "records wait in {partitions} {named}{more}, and the group commits nothing there for {seconds} s"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Returns partitions numbered from 0, each with the given committed offset and end.
    fn extents(partitions: &[(i64, i64)]) -> BTreeMap<i32, Extent> {
        let extent = |&(committed, end)| Extent { committed: Some(committed), first: 0, end };
        (0..).zip(partitions.iter().map(extent)).collect()
    }

    struct Watch {
        stalled: StalledPartitions,
        began: Instant,
    }

    impl Watch {
        fn new() -> Self {
            Self { stalled: StalledPartitions::default(), began: Instant::now() }
        }

        fn suspects(&mut self, seconds: u64, partitions: &[(i64, i64)]) -> Vec<i32> {
            let now = self.began + Duration::from_secs(seconds);
            self.stalled.suspects(&extents(partitions), now).into_keys().collect()
        }

        fn learned(&mut self, seconds: u64, partition: i32, waits: bool) {
            self.stalled.learned(partition, waits, self.began + Duration::from_secs(seconds));
        }

        fn describe(&self, seconds: u64, assigned: &[i32]) -> Option<String> {
            self.stalled.describe(assigned, PATIENCE, self.began + Duration::from_secs(seconds))
        }
    }

    #[test]
    fn a_quiet_partition_is_checked_once_until_something_changes() {
        let mut watch = Watch::new();
        assert!(watch.suspects(0, &[(5, 6)]).is_empty());
        assert_eq!(watch.suspects(10, &[(5, 6)]), [0]);
        watch.learned(10, 0, false);
        assert!(watch.suspects(1_000, &[(5, 6)]).is_empty(), "only the end of a transaction");
        assert_eq!(watch.suspects(1_005, &[(5, 8)]), [0]);
        watch.learned(1_005, 0, true);
        assert!(watch.suspects(1_010, &[(5, 9)]).is_empty());
        assert!(watch.describe(1_066, &[0]).is_some());
        assert!(watch.suspects(1_070, &[(7, 9)]).is_empty());
        assert_eq!(watch.describe(1_070, &[0]), None, "the group moves");
    }

    #[test]
    fn records_that_were_deleted_are_no_longer_waiting() {
        let mut watch = Watch::new();
        watch.suspects(0, &[(5, 9)]);
        watch.suspects(10, &[(5, 9)]);
        watch.learned(10, 0, true);
        assert!(watch.describe(80, &[0]).is_some());
        assert!(watch.suspects(85, &[(5, 5)]).is_empty());
        assert_eq!(watch.describe(90, &[0]), None);
        assert_eq!(watch.suspects(95, &[(5, 6)]), [0], "a new record is looked for");
    }

    #[test]
    fn one_stalled_partition_is_found_among_others_that_make_progress() {
        let mut watch = Watch::new();
        for second in 0..=71 {
            let moving = i64::try_from(second).unwrap();
            let moving = (moving, moving + 1);
            let suspects = watch.suspects(second, &[moving, moving, (5, 9), moving, moving]);
            for partition in suspects {
                assert_eq!((second, partition), (10, 2));
                watch.learned(second, partition, true);
            }
        }
        let reason = watch.describe(71, &[0, 1, 2, 3, 4]).unwrap();
        assert_eq!(reason, "records wait in partition 2, and the group commits nothing there for 61 s");
        assert_eq!(watch.describe(71, &[0, 1]), None, "the member that has it reports it");
    }

    #[test]
    fn partitions_that_no_member_reads_are_reported_by_the_members_of_other_partitions() {
        let mut watch = Watch::new();
        for second in 0..=71 {
            let moving = i64::try_from(second).unwrap();
            for partition in watch.suspects(second, &[(moving, moving + 1), (5, 9), (4, 4)]) {
                watch.learned(second, partition, true);
            }
        }
        assert!(watch.describe(71, &[0]).unwrap().contains("partition 1,"));
    }

    #[test]
    fn a_partition_that_was_read_completely_or_is_in_work_is_not_suspected() {
        let mut watch = Watch::new();
        for seconds in [0, 60] {
            assert!(watch.suspects(seconds, &[(6, 6)]).is_empty());
        }
        for (seconds, extents) in [(70, extents(&[(6, 8)])), (75, BTreeMap::new()), (84, extents(&[(6, 8)]))]
        {
            let now = watch.began + Duration::from_secs(seconds);
            assert!(watch.stalled.suspects(&extents, now).is_empty() || seconds == 70, "{seconds}");
        }
    }

    #[test]
    fn a_message_names_a_few_of_many_partitions() {
        let mut watch = Watch::new();
        let many = [(5, 9); 1_000];
        watch.suspects(0, &many);
        for partition in watch.suspects(10, &many) {
            watch.learned(10, partition, true);
        }
        let reason = watch.describe(100, &[]).unwrap();
        assert!(reason.contains("partitions 0, 1, 2, 3, 4 and 995 more"), "{reason}");
    }
}
