//! Checks that a group goes on when the embedded broker restarts.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{DescribeGroupsRequest, HeartbeatRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

use crate::durability::Restartable;
use crate::harness::{Record, committed_at, config_for, eventually, send, topic_at};
use crate::membership::Group;
use crate::raw::{Raw, text};

const REBALANCE: i16 = ResponseError::RebalanceInProgress.code();

fn connect(broker: &Restartable) -> Raw {
    Raw::connect_to(&broker.address())
}

fn describe(broker: &Restartable, group: &Group) -> (String, Vec<(String, usize)>) {
    let request = DescribeGroupsRequest::default().with_groups(vec![text(&group.id).into()]);
    let described = connect(broker).call(4, &request).groups.remove(0);
    let members = described.members.iter();
    let members = members.map(|member| (member.member_id.to_string(), member.member_assignment.len()));
    (described.group_state.to_string(), members.collect())
}

/// Forms a group of two members. Each has its own id as its assignment.
fn two_members(broker: &Restartable, group: &Group) -> [JoinGroupResponse; 2] {
    let (mut first, mut second) = (connect(broker), connect(broker));
    let leader = group.join(&mut first);
    group.sync(&mut first, &leader);
    let joining = std::thread::spawn({
        let group = Group { id: group.id.clone() };
        move || {
            let joined = group.join(&mut second);
            let synced = group.sync(&mut second, &joined);
            assert_eq!(synced, (0, joined.member_id.clone().into_bytes()));
            joined
        }
    });
    eventually("the rebalance is announced", || {
        let heartbeat = group.heartbeat(&mut first, &leader.member_id, leader.generation_id);
        (heartbeat == REBALANCE).then_some(())
    });
    let leader = group.rejoin(&mut first, &leader.member_id);
    assert_eq!(group.sync(&mut first, &leader).0, 0);
    [leader, joining.join().unwrap()]
}

#[test]
fn members_continue_without_a_rebalance() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 1);
    let group = Group::new();
    let members = two_members(&broker, &group);
    let before = describe(&broker, &group);
    assert_eq!((before.0.as_str(), before.1.len()), ("Stable", 2));
    for _ in 0..2 {
        broker.crash();
        assert_eq!(describe(&broker, &group), before);
        let mut raw = connect(&broker);
        for member in &members {
            assert_eq!(group.heartbeat(&mut raw, &member.member_id, member.generation_id), 0);
            assert_eq!(group.commit(&mut raw, &topic, &member.member_id, member.generation_id, ""), 0);
            let repeated = group.sync(&mut raw, &member.clone().with_members(vec![]));
            assert_eq!(repeated, (0, member.member_id.clone().into_bytes()));
        }
    }
    let [leader, follower] = members;
    let mut raw = connect(&broker);
    let stale = ResponseError::IllegalGeneration.code();
    assert_eq!(group.heartbeat(&mut raw, &leader.member_id, leader.generation_id - 1), stale);
    // The leader rebalances the group, whose other member is silent from now on.
    let alone = group.rejoin(&mut raw, &leader.member_id);
    assert_eq!((alone.error_code, alone.generation_id), (0, leader.generation_id + 1));
    group.sync(&mut raw, &alone);
    broker.crash();
    let mut raw = connect(&broker);
    assert_eq!(group.heartbeat(&mut raw, &alone.member_id, alone.generation_id), 0);
    let unknown = ResponseError::UnknownMemberId.code();
    assert_eq!(group.heartbeat(&mut raw, &follower.member_id, alone.generation_id), unknown);
}

#[test]
fn a_consumer_reads_and_commits_on_in_its_generation() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 1);
    let group = Group::new();
    let settings = [("group.id", group.id.as_str()), ("auto.offset.reset", "earliest")];
    let consumer: BaseConsumer = config_for(&broker.address(), &settings).create().unwrap();
    consumer.subscribe(&[&topic]).unwrap();
    let producer = broker.producer(&[]);
    let receive = |value: &str| {
        let received = eventually("the record arrives", || match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => Some(Record::from(&message)),
            // The connection broke.
            Some(Err(_)) | None => None,
        });
        assert_eq!(received.value.as_deref(), Some(value.as_bytes()));
    };
    send(&producer, &topic, 0, "before").unwrap();
    receive("before");
    let before = describe(&broker, &group);
    broker.crash();
    send(&producer, &topic, 0, "after").unwrap();
    receive("after");
    consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    assert_eq!(describe(&broker, &group), before);
    assert_eq!(committed_at(&broker.address(), &group.id, &topic, 0), Some(2));
}

#[test]
fn a_member_that_does_not_return_is_removed_after_its_session() {
    let mut broker = Restartable::new();
    let group = Group::new();
    let [leader, _silent] = two_members(&broker, &group);
    broker.crash();
    let mut raw = connect(&broker);
    let heartbeat = |raw: &mut Raw| group.heartbeat(raw, &leader.member_id, leader.generation_id);
    assert_eq!(heartbeat(&mut raw), 0);
    eventually("the silent member is removed", || (heartbeat(&mut raw) == REBALANCE).then_some(()));
    let alone = group.rejoin(&mut raw, &leader.member_id);
    assert_eq!(alone.members.len(), 1);
}

#[test]
fn a_static_member_keeps_its_identity() {
    let mut broker = Restartable::new();
    let group = Group::new();
    let instance = Some(text("instance"));
    let request = |member: &StrBytes| group.request(member).with_group_instance_id(instance.clone());
    let joined = connect(&broker).call(5, &request(&StrBytes::new()));
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!(group.sync(&mut connect(&broker), &joined).0, 0);
    let heartbeat = |raw: &mut Raw, member: &StrBytes| {
        let request = HeartbeatRequest::default()
            .with_group_id(text(&group.id).into())
            .with_generation_id(1)
            .with_member_id(member.clone())
            .with_group_instance_id(instance.clone());
        raw.call(3, &request).error_code
    };
    broker.crash();
    let mut raw = connect(&broker);
    assert_eq!(heartbeat(&mut raw, &joined.member_id), 0);
    // The client restarts too, and replaces its former self without a rebalance.
    let returned = raw.call(5, &request(&StrBytes::new()));
    assert_eq!((returned.error_code, returned.generation_id), (0, 1));
    assert_ne!(returned.member_id, joined.member_id);
    broker.crash();
    let mut raw = connect(&broker);
    assert_eq!(heartbeat(&mut raw, &returned.member_id), 0);
    assert_eq!(heartbeat(&mut raw, &joined.member_id), ResponseError::FencedInstanceId.code());
}

#[test]
fn an_empty_group_continues_its_generations() {
    let mut broker = Restartable::new();
    let group = Group::new();
    let mut raw = connect(&broker);
    let joined = group.join(&mut raw);
    group.sync(&mut raw, &joined);
    assert_eq!(group.leave(&mut raw, &joined.member_id), 0);
    eventually("the group is empty", || (describe(&broker, &group).0 == "Empty").then_some(()));
    broker.crash();
    assert_eq!(describe(&broker, &group), ("Empty".to_owned(), vec![]));
    let again = group.join(&mut connect(&broker));
    assert_eq!(again.generation_id, joined.generation_id + 2);
}
