//! Looks at a consumer group from outside: its members, its offsets and its lag.

use std::collections::BTreeMap;

use rdkafka::consumer::Consumer as _;

use super::CALL_TIMEOUT;
use super::args::KafkaArgs;
use super::observer::{Isolation, Observer};

/// A client that looks at a group. It does not join the group.
pub struct GroupObserver {
    observer: Observer,
    group: String,
    topic: String,
}

/// A group and the topic that it reads, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupView {
    /// The state of the group in Kafka's words, such as `Stable`.
    pub state: String,
    /// The members in the order of their ids.
    pub members: Vec<GroupMember>,
    /// The next offset that the group reads in each partition that it ever read.
    pub committed: BTreeMap<i32, i64>,
    /// The first offset and the next one to be written of each partition.
    pub bounds: BTreeMap<i32, (i64, i64)>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    pub id: String,
    pub host: String,
    /// The partitions of the topic that it reads, in ascending order.
    pub partitions: Vec<i32>,
}

impl GroupObserver {
    /// Creates an observer of `group`, which reads `topic`.
    ///
    /// # Errors
    /// Fails when librdkafka refuses the settings.
    pub fn new(kafka: &KafkaArgs, group: &str, topic: &str) -> anyhow::Result<Self> {
        let observer = Observer::new(kafka, Some(group), Isolation::ReadUncommitted)?;
        Ok(Self { observer, group: group.to_owned(), topic: topic.to_owned() })
    }

    /// Looks at the group. This call blocks.
    ///
    /// # Errors
    /// Fails when the brokers do not answer or the topic does not exist.
    pub fn look(&self) -> anyhow::Result<GroupView> {
        // The group may go on meanwhile: what it has committed is never beyond the ends that are read later.
        let committed = self.observer.committed(&self.topic, CALL_TIMEOUT)?;
        let bounds = self.observer.bounds(&self.topic)?;
        let groups =
            self.observer.ask(|consumer| Ok(consumer.fetch_group_list(Some(&self.group), CALL_TIMEOUT)?))?;
        let group = groups.groups().iter().find(|group| group.name() == self.group);
        let mut members: Vec<_> = group
            .map(|group| group.members())
            .unwrap_or_default()
            .iter()
            .map(|member| GroupMember {
                id: member.id().to_owned(),
                host: member.client_host().trim_start_matches('/').to_owned(),
                partitions: assigned(member.assignment().unwrap_or_default(), &self.topic)
                    .unwrap_or_default(),
            })
            .collect();
        members.sort_by(|one, other| one.id.cmp(&other.id));
        let state = group.map(|group| group.state().to_owned()).unwrap_or_default();
        Ok(GroupView { state, members, committed, bounds })
    }
}

/// Returns how far a group with these `committed` offsets is behind partitions with these `bounds`.
pub(super) fn lag(committed: &BTreeMap<i32, i64>, bounds: &BTreeMap<i32, (i64, i64)>) -> i64 {
    let behind = bounds.iter().map(|(partition, (first, end))| {
        // A group without a committed offset begins with the first record.
        let next = committed.get(partition).map_or(first, |next| next.max(first));
        (end - next).max(0)
    });
    behind.sum()
}

/// Returns the partitions of `topic` in the assignment of a member: the version, then each topic with its partitions
/// (Kafka's `ConsumerProtocolAssignment`). Returns `None` when the bytes have another form.
fn assigned(bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
    let (_version, rest) = bytes.split_first_chunk::<2>()?;
    let (topics, mut rest) = integer(rest)?;
    let mut found = Vec::new();
    for _ in 0..topics {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (name, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let (count, mut after) = integer(after)?;
        for _ in 0..count {
            let (partition, next) = integer(after)?;
            if name == topic.as_bytes() {
                found.push(partition);
            }
            after = next;
        }
        rest = after;
    }
    found.sort_unstable();
    Some(found)
}

fn integer(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (first, rest) = bytes.split_first_chunk::<4>()?;
    Some((i32::from_be_bytes(*first), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASSIGNMENT: &[u8] =
        b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x01\0\0\0\x05\0\x02bc\0\0\0\x02\0\0\0\x02\0\0\0\0\xff\xff\xff\xff";

    #[test]
    fn the_partitions_of_a_topic_are_read_from_an_assignment() {
        assert_eq!(assigned(ASSIGNMENT, "bc"), Some(vec![0, 2]));
        assert_eq!(assigned(ASSIGNMENT, "a"), Some(vec![5]));
        assert_eq!(assigned(ASSIGNMENT, "b"), Some(vec![]));
        assert_eq!(assigned(b"", "a"), None);
    }

    #[test]
    fn the_lag_of_a_partition_without_a_committed_offset_is_its_length() {
        let bounds = [(0, (5, 10)), (1, (0, 7)), (2, (3, 4))].into();
        assert_eq!(lag(&[(1, 6), (2, 1)].into(), &bounds), 5 + 1 + 1);
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>, cut in 0usize..40) {
            let _ = assigned(&bytes, "a");
            let _ = assigned(ASSIGNMENT.get(..cut).unwrap_or_default(), "bc");
        }
    }
}
