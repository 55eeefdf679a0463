//! Checks the group protocol request by request.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::harness::{eventually, topic, unique};
use crate::raw::{Raw, text};

pub struct Group {
    pub id: String,
}

impl Group {
    pub fn new() -> Self {
        Self { id: unique("group") }
    }

    fn connect(&self) -> Raw {
        Raw::to_group_coordinator(&self.id)
    }

    pub fn request(&self, member_id: &StrBytes) -> JoinGroupRequest {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("anything"))
            .with_metadata(Bytes::from_static(b"metadata"));
        JoinGroupRequest::default()
            .with_group_id(text(&self.id).into())
            .with_session_timeout_ms(6000)
            .with_rebalance_timeout_ms(10_000)
            .with_member_id(member_id.clone())
            .with_protocol_type(text("test"))
            .with_protocols(vec![protocol])
    }

    pub fn rejoin(&self, raw: &mut Raw, member_id: &StrBytes) -> JoinGroupResponse {
        raw.call(5, &self.request(member_id))
    }

    /// Requests a member id and joins with it.
    pub fn join(&self, raw: &mut Raw) -> JoinGroupResponse {
        let named = eventually("the coordinator is available", || {
            let named = self.rejoin(raw, &StrBytes::new());
            (named.error_code == ResponseError::MemberIdRequired.code()).then_some(named)
        });
        let joined = self.rejoin(raw, &named.member_id);
        assert_eq!((joined.error_code, &joined.member_id), (0, &named.member_id));
        joined
    }

    pub fn sync(&self, raw: &mut Raw, joined: &JoinGroupResponse) -> (i16, Bytes) {
        self.sync_as(raw, joined, None)
    }

    fn sync_as(&self, raw: &mut Raw, joined: &JoinGroupResponse, instance: Option<&str>) -> (i16, Bytes) {
        let assignments = joined.members.iter().map(|member| {
            SyncGroupRequestAssignment::default()
                .with_member_id(member.member_id.clone())
                .with_assignment(member.member_id.clone().into_bytes())
        });
        let request = SyncGroupRequest::default()
            .with_group_id(text(&self.id).into())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_group_instance_id(instance.map(text))
            .with_assignments(assignments.collect());
        let response = raw.call(3, &request);
        (response.error_code, response.assignment)
    }

    pub fn heartbeat(&self, raw: &mut Raw, member_id: &StrBytes, generation: i32) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(text(&self.id).into())
            .with_generation_id(generation)
            .with_member_id(member_id.clone());
        raw.call(3, &request).error_code
    }

    pub fn leave(&self, raw: &mut Raw, member_id: &StrBytes) -> i16 {
        let member = MemberIdentity::default().with_member_id(member_id.clone());
        let request =
            LeaveGroupRequest::default().with_group_id(text(&self.id).into()).with_members(vec![member]);
        raw.call(3, &request).members[0].error_code
    }

    pub fn commit(&self, raw: &mut Raw, topic: &str, member: &StrBytes, generation: i32, note: &str) -> i16 {
        let partition = OffsetCommitRequestPartition::default()
            .with_committed_offset(7)
            .with_committed_metadata(Some(text(note)));
        let offsets = OffsetCommitRequestTopic::default()
            .with_name(text(topic).into())
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(text(&self.id).into())
            .with_generation_id_or_member_epoch(generation)
            .with_member_id(member.clone())
            .with_topics(vec![offsets]);
        raw.call(7, &request).topics[0].partitions[0].error_code
    }
}

#[test]
fn a_single_member_leads_and_receives_its_own_assignment() {
    let group = Group::new();
    let mut raw = group.connect();
    let joined = group.join(&mut raw);
    assert_eq!((joined.generation_id, &joined.leader), (1, &joined.member_id));
    assert_eq!(joined.members[0].metadata, "metadata");
    let (code, assignment) = group.sync(&mut raw, &joined);
    assert_eq!((code, assignment), (0, joined.member_id.clone().into_bytes()));
    assert_eq!(group.heartbeat(&mut raw, &joined.member_id, 1), 0);
}

#[test]
fn unknown_members_and_past_generations_are_refused() {
    let group = Group::new();
    let topic = topic(1);
    let mut raw = group.connect();
    let joined = group.join(&mut raw);
    group.sync(&mut raw, &joined);
    let stranger = text("stranger");
    let unknown = ResponseError::UnknownMemberId.code();
    let stale = ResponseError::IllegalGeneration.code();
    let (own, generation) = (&joined.member_id, joined.generation_id);
    assert_eq!(group.rejoin(&mut raw, &stranger).error_code, unknown);
    assert_eq!(group.heartbeat(&mut raw, &stranger, generation), unknown);
    assert_eq!(group.heartbeat(&mut raw, own, generation + 1), stale);
    assert_eq!(group.commit(&mut raw, &topic, &stranger, generation, ""), unknown);
    assert_eq!(group.commit(&mut raw, &topic, own, generation - 1, ""), stale);
    assert_eq!(group.commit(&mut raw, &topic, &StrBytes::new(), -1, ""), unknown);
    assert_eq!(group.commit(&mut raw, &topic, own, generation, ""), 0);
}

#[test]
fn a_member_without_heartbeats_is_removed_and_the_others_rebalance() {
    let group = Group::new();
    let (mut first, mut second) = (group.connect(), group.connect());
    let leader = group.join(&mut first);
    group.sync(&mut first, &leader);
    // The second member waits in the rebalance until the first has rejoined.
    let joining = std::thread::spawn({
        let group = Group { id: group.id.clone() };
        move || group.join(&mut second)
    });
    let rebalance = ResponseError::RebalanceInProgress.code();
    let heartbeat = |raw: &mut Raw, generation| group.heartbeat(raw, &leader.member_id, generation);
    eventually("the rebalance is announced", || {
        (heartbeat(&mut first, leader.generation_id) == rebalance).then_some(())
    });
    let joined = group.rejoin(&mut first, &leader.member_id);
    let silent = joining.join().unwrap();
    assert_eq!((joined.generation_id, silent.generation_id), (2, 2));
    assert_eq!((joined.members.len(), silent.members.len()), (2, 0));
    assert_eq!(group.sync(&mut first, &joined).0, 0);
    eventually("the silent member expires", || (heartbeat(&mut first, 2) == rebalance).then_some(()));
    let alone = group.rejoin(&mut first, &leader.member_id);
    assert_eq!((alone.generation_id, alone.members.len()), (3, 1));
    let unknown = ResponseError::UnknownMemberId.code();
    assert_eq!(group.heartbeat(&mut first, &silent.member_id, 3), unknown);
}

#[test]
fn a_repeated_join_gets_the_same_response() {
    let group = Group::new();
    let mut raw = group.connect();
    let joined = group.join(&mut raw);
    let again = group.rejoin(&mut raw, &joined.member_id);
    assert_eq!(again, joined);
    group.sync(&mut raw, &joined);
    // From the leader of a stable group it requests a rebalance.
    let rebalanced = group.rejoin(&mut raw, &joined.member_id);
    assert_eq!(rebalanced.generation_id, joined.generation_id + 1);
}

#[test]
fn a_member_that_left_is_unknown() {
    let group = Group::new();
    let mut raw = group.connect();
    let joined = group.join(&mut raw);
    group.sync(&mut raw, &joined);
    let member = |id: &StrBytes| MemberIdentity::default().with_member_id(id.clone());
    let request = LeaveGroupRequest::default()
        .with_group_id(text(&group.id).into())
        .with_members(vec![member(&joined.member_id), member(&text("stranger"))]);
    let unknown = ResponseError::UnknownMemberId.code();
    let left = raw.call(3, &request);
    assert_eq!(left.error_code, 0);
    let codes: Vec<i16> = left.members.iter().map(|member| member.error_code).collect();
    assert_eq!(codes, [0, unknown]);
    assert_eq!(group.heartbeat(&mut raw, &joined.member_id, 1), unknown);
}

#[test]
fn session_timeouts_and_group_ids_are_checked() {
    let group = Group::new();
    let mut raw = group.connect();
    group.join(&mut raw);
    let request = group.request(&StrBytes::new());
    let short = raw.call(5, &request.clone().with_session_timeout_ms(10));
    assert_eq!(short.error_code, ResponseError::InvalidSessionTimeout.code());
    let nameless = raw.call(5, &request.with_group_id(StrBytes::new().into()));
    assert_eq!(nameless.error_code, ResponseError::InvalidGroupId.code());
}

#[test]
fn a_sync_must_name_the_protocol_of_the_group_since_version_5() {
    let group = Group::new();
    let mut raw = group.connect();
    let joined = group.join(&mut raw);
    let inconsistent = ResponseError::InconsistentGroupProtocol.code();
    for (protocol_type, protocol, code) in [
        (None, None, inconsistent),
        (Some("test"), None, inconsistent),
        (Some("another"), Some("anything"), inconsistent),
        (Some("test"), Some("another"), inconsistent),
        (Some("test"), Some("anything"), 0),
    ] {
        let request = SyncGroupRequest::default()
            .with_group_id(text(&group.id).into())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_protocol_type(protocol_type.map(text))
            .with_protocol_name(protocol.map(text));
        let response = raw.call(5, &request);
        assert_eq!(response.error_code, code, "{protocol_type:?} {protocol:?}");
        let named = (response.protocol_type.as_deref(), response.protocol_name.as_deref());
        let expected = if code == 0 { (protocol_type, protocol) } else { (None, None) };
        assert_eq!(named, expected);
    }
}

#[test]
fn a_static_leader_that_returns_keeps_the_assignment_of_the_group() {
    let group = Group::new();
    let mut raw = group.connect();
    let request = group.request(&StrBytes::new()).with_group_instance_id(Some(text("instance")));
    let first = eventually("the coordinator is available", || {
        let joined = raw.call(9, &request);
        (joined.error_code == 0).then_some(joined)
    });
    assert_eq!((&first.leader, first.skip_assignment), (&first.member_id, false));
    assert_eq!(
        (first.protocol_type.as_deref(), first.protocol_name.as_deref()),
        (Some("test"), Some("anything"))
    );
    assert_eq!(group.sync_as(&mut raw, &first, Some("instance")).0, 0);

    let skipped = raw.call(9, &request);
    assert_eq!((skipped.error_code, skipped.generation_id), (0, first.generation_id));
    assert_ne!(skipped.member_id, first.member_id);
    assert_eq!((&skipped.leader, skipped.skip_assignment), (&skipped.member_id, true));
    assert_eq!((skipped.members.len(), &skipped.members[0].member_id), (1, &skipped.member_id));

    let not_skipped = raw.call(8, &request);
    assert_eq!((not_skipped.error_code, not_skipped.generation_id), (0, first.generation_id));
    assert_eq!((&not_skipped.leader, not_skipped.members.len()), (&skipped.member_id, 0));
    let assignment = group.sync_as(&mut raw, &not_skipped, Some("instance"));
    assert_eq!(assignment, (0, first.member_id.into_bytes()));
}

#[test]
fn the_offsets_of_several_groups_are_fetched_at_once() {
    let (group, topic) = (Group::new(), topic(2));
    let mut raw = group.connect();
    eventually("the coordinator is available", || {
        (group.commit(&mut raw, &topic, &StrBytes::new(), -1, "note") == 0).then_some(())
    });
    let wanted = |partitions: &[i32]| {
        OffsetFetchRequestTopics::default()
            .with_name(text(&topic).into())
            .with_partition_indexes(partitions.to_vec())
    };
    let named = |topics: Option<Vec<OffsetFetchRequestTopics>>| {
        OffsetFetchRequestGroup::default().with_group_id(text(&group.id).into()).with_topics(topics)
    };
    for version in 8..=9 {
        // A cluster knows only the groups that the broker coordinates, so the same group is asked for twice.
        let request = OffsetFetchRequest::default()
            .with_groups(vec![named(Some(vec![wanted(&[1, 0])])), named(None)])
            .with_require_stable(true);
        let fetched = raw.call(version, &request);
        let offsets: Vec<Vec<_>> = fetched
            .groups
            .iter()
            .map(|fetched| {
                assert_eq!((&*fetched.group_id.0, fetched.error_code), (group.id.as_str(), 0));
                let partitions = fetched.topics.iter().flat_map(|topic| &topic.partitions);
                let mut offsets: Vec<_> =
                    partitions.map(|found| (found.partition_index, found.committed_offset)).collect();
                offsets.sort();
                offsets
            })
            .collect();
        assert_eq!(offsets, [vec![(0, 7), (1, -1)], vec![(0, 7)]]);
    }
}

#[test]
fn offset_metadata_is_stored_up_to_its_limit() {
    let group = Group::new();
    let topic = topic(1);
    let mut raw = group.connect();
    let anyone = StrBytes::new();
    let commit = |raw: &mut Raw, topic: &str, note: &str| group.commit(raw, topic, &anyone, -1, note);
    eventually("the coordinator is available", || (commit(&mut raw, &topic, "note") == 0).then_some(()));
    let too_large = commit(&mut raw, &topic, &"x".repeat(4097));
    assert_eq!(too_large, ResponseError::OffsetMetadataTooLarge.code());
    let unknown = commit(&mut raw, &unique("unknown"), "");
    assert_eq!(unknown, ResponseError::UnknownTopicOrPartition.code());

    let wanted =
        OffsetFetchRequestTopic::default().with_name(text(&topic).into()).with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default().with_group_id(text(&group.id).into());
    for topics in [Some(vec![wanted]), None] {
        let fetched = raw.call(7, &request.clone().with_topics(topics));
        let partition = &fetched.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.committed_offset), (0, 7));
        assert_eq!(partition.metadata.as_deref(), Some("note"));
    }
}

#[test]
fn a_text_that_older_versions_cannot_express_closes_the_connection() {
    let group = Group::new();
    let long = text(&"x".repeat(40_000));
    let join = group.request(&StrBytes::new());
    let protocol = join.protocols[0].clone().with_name(long.clone());
    for join in [
        join.clone().with_group_id(long.clone().into()),
        join.clone().with_member_id(long.clone()),
        join.clone().with_group_instance_id(Some(long.clone())),
        join.clone().with_protocol_type(long.clone()),
        join.clone().with_protocols(vec![protocol]),
    ] {
        let mut raw = group.connect();
        raw.send(6, &join);
        assert!(raw.is_closed());
    }
    let mut raw = group.connect();
    raw.send(4, &SyncGroupRequest::default().with_group_id(long.clone().into()));
    assert!(raw.is_closed());
    let mut raw = group.connect();
    raw.send(8, &OffsetCommitRequest::default().with_group_id(long.into()));
    assert!(raw.is_closed());
}
