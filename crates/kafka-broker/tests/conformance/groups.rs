//! Checks consumer groups with librdkafka's consumers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;

use crate::harness::*;

/// Runs a consumer that polls in its own thread until it is stopped.
struct Member {
    view: Arc<Mutex<View>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct View {
    assigned: BTreeSet<i32>,
    values: Vec<String>,
}

impl Member {
    fn join(group: &str, topic: &str, settings: &[(&str, &str)]) -> Self {
        let consumer: BaseConsumer = config(&[
            ("group.id", group),
            ("auto.offset.reset", "earliest"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "500"),
        ])
        .set_all(settings)
        .create()
        .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let view = Arc::new(Mutex::new(View::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (view.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let polled = consumer.poll(Duration::from_millis(50));
                let value = polled.and_then(Result::ok).map(|message| {
                    String::from_utf8(message.payload().unwrap_or_default().to_vec()).unwrap()
                });
                let assignment = consumer.assignment().unwrap();
                let mut view = seen.lock().unwrap();
                view.values.extend(value);
                view.assigned = assignment.elements().iter().map(|part| part.partition()).collect();
            }
            let _ = consumer.commit_consumer_state(CommitMode::Sync);
        });
        Self { view, stop, thread: Some(thread) }
    }

    fn assigned(&self) -> BTreeSet<i32> {
        self.view.lock().unwrap().assigned.clone()
    }

    fn values(&self) -> Vec<String> {
        self.view.lock().unwrap().values.clone()
    }

    fn await_partitions(&self, count: usize) {
        eventually("the member has its partitions", || (self.assigned().len() == count).then_some(()));
    }
}

/// Stops the consumer, which leaves the group unless it is a static member.
impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn await_distribution(members: &[&Member], partitions: i32) {
    eventually("the partitions are distributed", || {
        let assigned = members.iter().map(|member| member.assigned());
        let assigned: Vec<BTreeSet<i32>> = assigned.collect();
        let total: usize = assigned.iter().map(BTreeSet::len).sum();
        let all: BTreeSet<i32> = assigned.iter().flatten().copied().collect();
        let complete = all == (0..partitions).collect() && total == all.len();
        let share = partitions as usize / members.len();
        (complete && assigned.iter().all(|part| part.len() == share)).then_some(())
    });
}

fn partitions_follow_the_members(strategy: &str) {
    let topic = topic(6);
    let group = unique("group");
    let settings = [("partition.assignment.strategy", strategy)];
    let first = Member::join(&group, &topic, &settings);
    first.await_partitions(6);
    let second = Member::join(&group, &topic, &settings);
    let third = Member::join(&group, &topic, &settings);
    await_distribution(&[&first, &second, &third], 6);
    drop(second);
    await_distribution(&[&first, &third], 6);
    drop(first);
    await_distribution(&[&third], 6);
}

#[test]
fn range_assignment_distributes_and_moves_partitions() {
    partitions_follow_the_members("range");
}

#[test]
fn roundrobin_assignment_distributes_and_moves_partitions() {
    partitions_follow_the_members("roundrobin");
}

#[test]
fn cooperative_sticky_assignment_distributes_and_moves_partitions() {
    partitions_follow_the_members("cooperative-sticky");
}

#[test]
fn a_member_with_another_protocol_is_refused() {
    let topic = topic(2);
    let group = unique("group");
    let first = Member::join(&group, &topic, &[("partition.assignment.strategy", "range")]);
    first.await_partitions(2);
    let other: BaseConsumer =
        config(&[("group.id", group.as_str()), ("partition.assignment.strategy", "cooperative-sticky")])
            .create()
            .unwrap();
    other.subscribe(&[&topic]).unwrap();
    let code = eventually("the refusal is reported", || error_code(other.poll(Duration::from_millis(100))?));
    assert_eq!(code, RDKafkaErrorCode::InconsistentGroupProtocol);
}

#[test]
fn the_partitions_of_a_dead_member_move_when_its_session_expires() {
    let topic = topic(4);
    let group = unique("group");
    let survivor = Member::join(&group, &topic, &[]);
    // A static member does not leave the group: to the coordinator it looks dead.
    let dead = Member::join(&group, &topic, &[("group.instance.id", &unique("instance"))]);
    await_distribution(&[&survivor, &dead], 4);
    drop(dead);
    assert_eq!(survivor.assigned().len(), 2);
    survivor.await_partitions(4);
}

#[test]
fn a_static_member_returns_to_its_partitions_without_a_rebalance() {
    let topic = topic(4);
    let group = unique("group");
    let instance = unique("instance");
    let settings = [("group.instance.id", instance.as_str()), ("session.timeout.ms", "30000")];
    let other = Member::join(&group, &topic, &[]);
    let member = Member::join(&group, &topic, &settings);
    await_distribution(&[&other, &member], 4);
    let before = (member.assigned(), other.assigned());
    drop(member);
    let member = Member::join(&group, &topic, &settings);
    member.await_partitions(2);
    assert_eq!((member.assigned(), other.assigned()), before);
}

#[test]
fn a_second_consumer_with_the_same_instance_id_fences_the_first() {
    let topic = topic(1);
    let group = unique("group");
    let instance = unique("instance");
    let settings = [("group.id", group.as_str()), ("group.instance.id", instance.as_str())];
    let first: BaseConsumer = config(&settings).create().unwrap();
    first.subscribe(&[&topic]).unwrap();
    eventually("the first has joined", || {
        let _ = first.poll(Duration::from_millis(50));
        (first.assignment().unwrap().count() == 1).then_some(())
    });
    let second: BaseConsumer = config(&settings).create().unwrap();
    second.subscribe(&[&topic]).unwrap();
    eventually("the first is fenced", || {
        let _ = second.poll(Duration::from_millis(50));
        let _ = first.poll(Duration::from_millis(50));
        let fatal = first.client().fatal_error()?;
        (fatal.0 == RDKafkaErrorCode::FencedInstanceId).then_some(())
    });
}

#[test]
fn a_group_resumes_at_its_committed_offsets() {
    let topic = topic(1);
    let group = unique("group");
    let producer = producer(&[]);
    for value in ["a", "b"] {
        send(&producer, &topic, 0, value).unwrap();
    }
    let settings = [("enable.auto.commit", "false")];
    let first = Member::join(&group, &topic, &settings);
    eventually("both are read", || (first.values() == ["a", "b"]).then_some(()));
    drop(first);
    assert_eq!(committed(&group, &topic, 0), Some(2));
    send(&producer, &topic, 0, "c").unwrap();
    let second = Member::join(&group, &topic, &settings);
    eventually("the third is read", || (!second.values().is_empty()).then_some(()));
    assert_eq!(second.values(), ["c"]);
}

#[test]
fn a_group_without_offsets_begins_at_the_configured_reset() {
    let topic = topic(1);
    let producer = producer(&[]);
    send(&producer, &topic, 0, "before").unwrap();
    let latest = Member::join(&unique("group"), &topic, &[("auto.offset.reset", "latest")]);
    latest.await_partitions(1);
    // The consumer may resolve its position after the assignment: send until a record arrives.
    eventually("a later record is read", || {
        send(&producer, &topic, 0, "after").unwrap();
        (!latest.values().is_empty()).then_some(())
    });
    assert!(latest.values().iter().all(|value| value == "after"));
    let earliest = Member::join(&unique("group"), &topic, &[]);
    eventually("the first record is read", || earliest.values().first().cloned());
    assert_eq!(earliest.values()[0], "before");
}

#[test]
fn a_consumer_outside_the_group_cannot_commit_while_it_has_members() {
    let topic = topic(1);
    let group = unique("group");
    let outsider: BaseConsumer = config(&[("group.id", &group)]).create().unwrap();
    let commit = |offset| {
        let offsets = offsets(&topic, 0, Offset::Offset(offset));
        error_code(outsider.commit(&offsets, CommitMode::Sync))
    };
    eventually("the coordinator is available", || commit(7).is_none().then_some(()));
    let member = Member::join(&group, &topic, &[("enable.auto.commit", "false")]);
    member.await_partitions(1);
    assert_eq!(commit(8), Some(RDKafkaErrorCode::UnknownMemberId));
    assert_eq!(committed(&group, &topic, 0), Some(7));
}

#[test]
fn groups_are_listed_and_described() {
    let topic = topic(2);
    let group = unique("group");
    let member = Member::join(&group, &topic, &[("client.id", "a-client")]);
    member.await_partitions(2);
    let consumer: BaseConsumer = config(&[]).create().unwrap();
    let described = eventually("the group is stable", || {
        let list = consumer.fetch_group_list(Some(&group), PATIENCE).ok()?;
        let found = list.groups().first()?;
        (found.state() == "Stable").then_some(list)
    });
    let found = &described.groups()[0];
    assert_eq!((found.name(), found.protocol_type()), (group.as_str(), "consumer"));
    assert_eq!(found.protocol(), "range");
    assert_eq!(found.members().len(), 1);
    let only = &found.members()[0];
    assert_eq!(only.client_id(), "a-client");
    assert!(only.id().starts_with("a-client-"));
    assert!(only.client_host().starts_with('/'));
    assert!(only.metadata().is_some_and(|bytes| !bytes.is_empty()));
    assert!(only.assignment().is_some_and(|bytes| !bytes.is_empty()));

    let all = consumer.fetch_group_list(None, PATIENCE).unwrap();
    assert!(all.groups().iter().any(|listed| listed.name() == group));
    drop(member);
    eventually("the group is empty", || {
        let list = consumer.fetch_group_list(Some(&group), PATIENCE).ok()?;
        let found = list.groups().first()?;
        (found.state() == "Empty" && found.members().is_empty()).then_some(())
    });
}
