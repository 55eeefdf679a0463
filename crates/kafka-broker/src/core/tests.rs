//! Checks that what the broker knows does not depend on segments, checkpoints, crashes and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;

use bytes::{BufMut, BytesMut};
use kafka_protocol::protocol::StrBytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::batch::BatchHeader;
use crate::entry::{Append, OffsetCommit, ProducerIdAndEpoch, StoredGroup};
use crate::partition::Isolation;

const TRANSACTIONAL: i16 = 1 << 4;
/// Some batches fit into a segment.
const SMALL_SEGMENT: u64 = 600;
const ONE_SEGMENT: u64 = 1 << 30;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Returns a batch without records, which the journal does not read.
fn batch(base_offset: i64, producer_id: i64, attributes: i16, timestamp: i64) -> Bytes {
    let mut batch = BytesMut::new();
    batch.put_i64(base_offset);
    batch.put_bytes(0, 13);
    batch.put_i16(attributes);
    batch.put_i32(1);
    batch.put_i64(timestamp);
    batch.put_i64(timestamp);
    batch.put_i64(producer_id);
    batch.put_i16(0);
    batch.put_i32(-1);
    batch.put_i32(2);
    batch.put_bytes(7, 40);
    batch.freeze()
}

/// Describes all that clients can see.
fn summary(core: &Core) -> String {
    let mut out = format!("{:?} {}\n", core.state.cluster_id, core.state.next_producer_id);
    for (name, topic) in &core.state.topics {
        for (index, partition) in topic.partitions.iter().enumerate() {
            let (start, end) = (partition.start_offset(), partition.end_offset());
            let stable = partition.last_stable_offset();
            writeln!(
                out,
                "{name}-{index}: {start} {stable} {end} {:?}",
                partition.aborted_between(start, end)
            )
            .unwrap();
            for found in partition.batches_from(start, Isolation::ReadUncommitted) {
                let (last_offset, stored) = found.unwrap();
                let mut bytes = vec![0; stored.length as usize];
                core.reader().read_into(&mut bytes, stored.position).unwrap();
                let header = BatchHeader::read(&bytes).unwrap();
                writeln!(out, "  {last_offset} {header:?}").unwrap();
                assert_eq!(last_offset, header.base_offset + i64::from(header.last_offset_delta));
                let found = partition.batches_from(last_offset, Isolation::ReadUncommitted).next();
                assert_eq!(found.unwrap().unwrap().1, stored);
            }
            let batch = BatchHeader::read(&batch(end, 1, TRANSACTIONAL, 0)).unwrap();
            writeln!(out, "  {:?}", partition.admit(&batch)).unwrap();
            let producers: BTreeSet<i64> = partition.producers().map(|(id, _)| id).collect();
            writeln!(out, "  {producers:?}").unwrap();
        }
    }
    for (id, offsets) in &core.state.offsets {
        let unstable = offsets.is_unstable("topic", 0);
        let committed: Vec<_> =
            offsets.iter().map(|(topic, part, found)| (topic, part, found.offset)).collect();
        writeln!(out, "{id}: {committed:?} {unstable}").unwrap();
    }
    let mut transactions: Vec<_> = core.state.transactions.iter().collect();
    transactions.sort_by_key(|(id, _)| *id);
    writeln!(out, "{transactions:?} {:?}", core.state.groups).unwrap();
    out
}

#[derive(Debug, Clone)]
pub enum Change {
    Create(u8),
    Delete(u8),
    Append { topic: u8, timestamp: i64 },
    Transaction { producer: i64, topic: u8 },
    End { producer: i64, committed: bool },
    Offsets { producer: Option<i64>, offset: i64 },
    Group(i32),
    DeleteRecords { topic: u8, before: i64 },
    ExpireProducers(i64),
    Restart,
}

fn change() -> impl Strategy<Value = Change> {
    let topic = 0..2_u8;
    let producer = 1..3_i64;
    prop_oneof![
        1 => topic.clone().prop_map(Change::Create),
        1 => topic.clone().prop_map(Change::Delete),
        8 => (topic.clone(), 0..1000_i64).prop_map(|(topic, timestamp)| Change::Append { topic, timestamp }),
        4 => (producer.clone(), topic.clone()).prop_map(|(producer, topic)| Change::Transaction { producer, topic }),
        3 => (producer.clone(), any::<bool>()).prop_map(|(producer, committed)| Change::End { producer, committed }),
        4 => (prop::option::of(producer), 0..100_i64).prop_map(|(producer, offset)| Change::Offsets { producer, offset }),
        1 => (0..9).prop_map(Change::Group),
        1 => (topic, 0..40_i64).prop_map(|(topic, before)| Change::DeleteRecords { topic, before }),
        1 => (0..1000_i64).prop_map(Change::ExpireProducers),
        1 => Just(Change::Restart),
    ]
}

/// Runs a broker's state in a directory.
pub struct Run {
    dir: TempDir,
    segment_bytes: u64,
    core: Option<Core>,
}

impl Run {
    fn new(segment_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let core = Some(Core::open(dir.path(), segment_bytes).unwrap());
        let mut run = Self { dir, segment_bytes, core };
        run.core().state.cluster_id = Some("cluster".to_owned());
        run
    }

    pub fn core(&mut self) -> &mut Core {
        self.core.as_mut().unwrap()
    }

    fn restart(&mut self) {
        self.core = None;
        self.core = Some(Core::open(self.dir.path(), self.segment_bytes).unwrap());
        self.core().state.cluster_id = Some("cluster".to_owned());
    }

    fn append(&mut self, name: &str, producer: i64, attributes: i16, timestamp: i64) {
        let core = self.core();
        let Some(partition) = core.state.partition(name, 0) else { return };
        let batch = batch(partition.end_offset(), producer, attributes, timestamp);
        let append = Append { topic: text(name), partition: 0, batch, offset_in_payload: 0 };
        core.commit(&Entry::BatchAppended(append)).unwrap();
    }

    pub fn apply(&mut self, change: &Change) {
        let name = |topic: u8| format!("topic{topic}");
        let core = self.core();
        match change {
            Change::Create(topic) => {
                let configs = vec![(text("retention.ms"), text("100"))];
                if core.state.partition(&name(*topic), 0).is_none() {
                    let topic = text(&name(*topic));
                    let entry = Entry::TopicCreated { topic, partitions: 1, configs, topic_id: None };
                    core.commit(&entry).unwrap();
                }
            }
            Change::Delete(topic) => {
                if core.state.partition(&name(*topic), 0).is_some() {
                    core.commit(&Entry::TopicDeleted { topic: text(&name(*topic)) }).unwrap();
                }
            }
            Change::Append { topic, timestamp } => self.append(&name(*topic), -1, 0, *timestamp),
            Change::Transaction { producer, topic } => {
                let id = text(&format!("txn{producer}"));
                if core.state.partition(&name(*topic), 0).is_none() {
                    return;
                }
                if !core.state.transactions.contains_key(id.as_str()) {
                    core.commit(&Entry::TransactionInitialized {
                        transactional_id: id.clone(),
                        producer: ProducerIdAndEpoch { id: *producer, epoch: 0 },
                        last_producer: ProducerIdAndEpoch::NONE,
                        timeout_ms: 1000,
                    })
                    .unwrap();
                }
                let partitions = vec![(text(&name(*topic)), 0)];
                core.commit(&Entry::PartitionsAddedToTxn {
                    transactional_id: id.clone(),
                    at_ms: 5,
                    partitions,
                })
                .unwrap();
                core.commit(&Entry::GroupAddedToTxn { transactional_id: id, at_ms: 5, group: text("group") })
                    .unwrap();
                self.append(&name(*topic), *producer, TRANSACTIONAL, 500);
            }
            Change::End { producer, committed } => {
                let ended = core.state.txn_ended(&format!("txn{producer}"), *committed, 0, 500);
                if let Some(entry) = ended {
                    core.commit(&entry).unwrap();
                }
            }
            Change::Offsets { producer, offset } => {
                let offsets = vec![OffsetCommit {
                    topic: text("topic"),
                    partition: 0,
                    offset: *offset,
                    leader_epoch: -1,
                    metadata: text("note"),
                }];
                let group = text("group");
                let open = |id: &i64| {
                    let txn = core.state.transactions.get(&format!("txn{id}"));
                    txn.is_some_and(|txn| txn.ongoing().is_some())
                };
                let entry = match producer.filter(open) {
                    Some(producer_id) => Entry::TxnOffsetsCommitted { producer_id, group, offsets },
                    None => Entry::OffsetsCommitted { group, offsets },
                };
                core.commit(&entry).unwrap();
            }
            Change::Group(generation) => {
                let stored = StoredGroup {
                    generation: *generation,
                    protocol_type: Some("consumer".to_owned()),
                    protocol: None,
                    leader: None,
                    members: Vec::new(),
                };
                core.commit(&Entry::GroupStored { group: text("group"), stored }).unwrap();
            }
            Change::ExpireProducers(after_a_day_ms) => {
                core.expire_producers(24 * 60 * 60 * 1000 + after_a_day_ms).unwrap();
            }
            Change::DeleteRecords { topic, before } => {
                if core.state.partition(&name(*topic), 0).is_some() {
                    let topic = text(&name(*topic));
                    core.commit(&Entry::RecordsDeleted { topic, partition: 0, before: *before }).unwrap();
                }
            }
            Change::Restart => self.restart(),
        }
    }
}

/// Returns a state with all kinds of content in several segments.
pub fn filled() -> Run {
    let mut run = Run::new(SMALL_SEGMENT);
    for change in [Change::Create(0), Change::Create(1), Change::Group(3)] {
        run.apply(&change);
    }
    for index in 0..8 {
        let producer = index % 2 + 1;
        run.apply(&Change::Transaction { producer, topic: 0 });
        run.apply(&Change::Append { topic: 1, timestamp: index * 50 });
        run.apply(&Change::Offsets { producer: Some(producer), offset: index });
        run.apply(&Change::End { producer, committed: index % 3 > 0 });
    }
    run.apply(&Change::Transaction { producer: 1, topic: 0 });
    run.apply(&Change::Offsets { producer: Some(1), offset: 99 });
    run
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect()
}

/// Opens a directory with these files, and checks that nothing is lost, and that the broker can continue.
fn check(files: &BTreeMap<String, Vec<u8>>, expected: &str, what: &str) {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    let mut run = Run { dir, segment_bytes: SMALL_SEGMENT, core: None };
    run.restart();
    assert_eq!(summary(run.core()), expected, "{what}");
    run.apply(&Change::Append { topic: 1, timestamp: 7000 });
    let continued = summary(run.core());
    run.core().roll();
    run.restart();
    assert_eq!(summary(run.core()), continued, "{what}");
}

#[test]
fn a_crash_at_any_point_of_a_checkpoint_loses_nothing() {
    let mut run = filled();
    // Segments become unused with the checkpoint.
    for topic in [0, 1] {
        run.apply(&Change::DeleteRecords { topic, before: 9 });
    }
    let expected = summary(run.core());
    let before = files(run.dir.path());
    run.core().roll();
    let after = files(run.dir.path());
    assert_eq!(summary(run.core()), expected);
    let created: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    let [index, segment] = created[..] else { panic!("{created:?}") };
    let checkpoint = "checkpoint".to_owned();
    let mut files = before.clone();
    for (name, as_name) in [(segment, segment), (index, index), (&checkpoint, &"checkpoint.new".to_owned())] {
        for cut in (0..after[name].len()).step_by(7).chain([after[name].len()]) {
            files.insert(as_name.clone(), after[name][..cut].to_vec());
            check(&files, &expected, &format!("{as_name} cut at {cut}"));
        }
    }
    files.insert(checkpoint.clone(), after[&checkpoint].clone());
    let removed: Vec<_> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    assert!(removed.iter().any(|name| name.ends_with(".log")), "{removed:?}");
    for name in removed {
        check(&files, &expected, &format!("before the removal of {name}"));
        files.remove(name);
    }
    check(&files, &expected, "after all removals");
}

#[test]
fn a_crash_at_any_point_of_a_retention_loses_nothing_that_is_retained() {
    let mut run = filled();
    run.core().roll();
    let before_summary = summary(run.core());
    let before = files(run.dir.path());
    run.core().delete_expired(10_000).unwrap();
    let expected = summary(run.core());
    assert_ne!(expected, before_summary);
    let after = files(run.dir.path());
    let active = after.keys().rfind(|name| name.ends_with(".log")).unwrap();
    let mut files = before.clone();
    // Of two entries, one for each topic, the first may be complete.
    let cut = before[active].len() + 1;
    files.insert(active.clone(), after[active][..cut].to_vec());
    check(&files, &before_summary, "the first entry is cut");
    files.insert(active.clone(), after[active].clone());
    let removed: Vec<_> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    assert!(!removed.is_empty());
    for name in removed {
        check(&files, &expected, &format!("before the removal of {name}"));
        files.remove(name);
    }
    check(&files, &expected, "after all removals");
}

#[test]
fn a_damaged_or_missing_checkpoint_is_an_error() {
    let mut run = filled();
    run.core = None;
    let path = run.dir.path().join("checkpoint");
    let content = fs::read(&path).unwrap();
    for cut in 0..content.len() {
        fs::write(&path, &content[..cut]).unwrap();
        assert!(Core::open(run.dir.path(), SMALL_SEGMENT).is_err(), "cut at byte {cut}");
    }
    for byte in 0..content.len() {
        let mut damaged = content.clone();
        damaged[byte] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert!(Core::open(run.dir.path(), SMALL_SEGMENT).is_err(), "damaged at byte {byte}");
    }
}

#[test]
fn expired_records_and_their_segments_are_deleted() {
    let mut run = filled();
    let bytes = |run: &Run| files(run.dir.path()).values().map(Vec::len).sum::<usize>();
    let before = bytes(&run);
    run.apply(&Change::End { producer: 1, committed: true });
    run.core().roll();
    run.core().delete_expired(10_000).unwrap();
    for topic in ["topic0", "topic1"] {
        let partition = run.core().state.partition(topic, 0).unwrap();
        assert_eq!(partition.start_offset(), partition.end_offset());
    }
    run.core().roll();
    assert!(bytes(&run) < before / 2, "{} of {before} bytes are left", bytes(&run));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_size_of_segments_and_restarts_change_nothing(changes in prop::collection::vec(change(), 1..120)) {
        let (mut small, mut large) = (Run::new(SMALL_SEGMENT), Run::new(ONE_SEGMENT));
        for change in &changes {
            small.apply(change);
            if !matches!(change, Change::Restart) {
                large.apply(change);
            }
            prop_assert_eq!(summary(small.core()), summary(large.core()));
        }
        small.restart();
        prop_assert_eq!(summary(small.core()), summary(large.core()));
    }
}
