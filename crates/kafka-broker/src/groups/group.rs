//! Holds one group, its members and its generation, and checks the requests of members.

use std::collections::{BTreeMap, HashMap};

use bytes::{Buf, Bytes};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ConsumerProtocolSubscription;
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Duration, Instant};

use super::member::Member;
use crate::entry::StoredGroup;
use crate::guard;

/// `group.initial.rebalance.delay.ms`, so that consumers that start together join the same generation.
pub(super) const INITIAL_REBALANCE_DELAY: Duration = Duration::from_millis(100);
/// Time after which a group without members is removed (`offsets.retention.check.interval.ms`). Its offsets are durable
/// state, and remain.
const EMPTY_GROUP_RETENTION: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub struct Group {
    pub(super) phase: Phase,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Member ids of static members by instance id (KIP-345).
    pub(super) static_members: HashMap<String, String>,
    /// Member ids that were assigned but have not joined yet, with the deadline to join.
    pub(super) pending: HashMap<String, Instant>,
    /// Deadline for all members to send SyncGroup.
    pub(super) sync_deadline: Option<Instant>,
    /// Whether a restart must find the group as it is now, as Apache Kafka stores it: at the end of a rebalance.
    pub(super) unsaved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Empty { since: Instant },
    PreparingRebalance(Preparing),
    CompletingRebalance,
    Stable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Preparing {
    pub(super) deadline: Instant,
    /// Latest end of the first rebalance of a group, which waits for more members.
    pub(super) initial_limit: Option<Instant>,
    pub(super) member_added: bool,
}

/// Identifies the sender of a request that only members may send.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    pub generation: i32,
}

impl Caller<'_> {
    pub(super) fn is_anonymous(&self) -> bool {
        self.generation < 0 && self.member_id.is_empty() && self.instance_id.is_none()
    }
}

impl Group {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Empty { since: now },
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            pending: HashMap::new(),
            sync_deadline: None,
            unsaved: false,
        }
    }

    /// Returns the group as it was stored (`GroupMetadata.loadGroup`). Its members have new sessions.
    pub(super) fn restore(stored: &StoredGroup, now: Instant) -> Self {
        let members = stored.members.iter().map(|member| (member.id.clone(), Member::restore(member, now)));
        let static_members = stored.members.iter();
        let static_members =
            static_members.filter_map(|member| Some((member.instance_id.clone()?, member.id.clone())));
        Self {
            phase: if stored.members.is_empty() { Phase::Empty { since: now } } else { Phase::Stable },
            generation: stored.generation,
            protocol_type: stored.protocol_type.clone(),
            protocol: stored.protocol.clone(),
            leader: stored.leader.clone(),
            members: members.collect(),
            static_members: static_members.collect(),
            ..Self::new(now)
        }
    }

    /// Returns what must be stored, if that has changed since the last call.
    pub fn take_unsaved(&mut self) -> Option<StoredGroup> {
        std::mem::take(&mut self.unsaved).then(|| StoredGroup {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self.members.values().map(Member::to_stored).collect(),
        })
    }

    /// Sends the answers to members that no longer wait.
    pub fn send_answers(&mut self) {
        self.members.values_mut().for_each(Member::send_answers);
    }

    /// Returns the state as DescribeGroups and ListGroups name it.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Empty { .. } => "Empty",
            Phase::PreparingRebalance(_) => "PreparingRebalance",
            Phase::CompletingRebalance => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }

    pub fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or_default()
    }

    /// Returns the assignment protocol once all members have their assignment.
    pub fn stable_protocol(&self) -> Option<&str> {
        let stable = self.phase == Phase::Stable;
        self.protocol.as_deref().filter(|_| stable)
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Returns whether the members of the generation wait for the leader's assignment.
    pub(super) fn awaits_assignment(&self) -> bool {
        self.phase == Phase::CompletingRebalance
    }

    pub fn is_empty(&self) -> bool {
        matches!(self.phase, Phase::Empty { .. })
    }

    /// Returns whether a member subscribes to this topic, or may do so (`GroupMetadata.isSubscribedToTopic`).
    pub fn subscribes_to(&self, topic: &str) -> bool {
        self.protocol.as_deref().is_none_or(|protocol| {
            self.members.values().any(|member| {
                let topics = subscribed_topics(member.metadata(protocol));
                topics.is_none_or(|topics| topics.iter().any(|subscribed| subscribed.as_str() == topic))
            })
        })
    }

    pub(super) fn heartbeat(&mut self, caller: Caller, now: Instant) -> Result<(), ResponseError> {
        self.check_generation(caller)?;
        self.extend_session(caller.member_id, now);
        match self.phase {
            Phase::PreparingRebalance(_) => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Checks that the member belongs to the group and is not fenced (`validateCurrentMember`).
    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ResponseError> {
        match instance_id {
            Some(instance) => match self.static_members.get(instance) {
                Some(current) if current == member_id => Ok(()),
                Some(_) => Err(ResponseError::FencedInstanceId),
                None => Err(ResponseError::UnknownMemberId),
            },
            None if self.members.contains_key(member_id) => Ok(()),
            None => Err(ResponseError::UnknownMemberId),
        }
    }

    pub(super) fn check_generation(&self, caller: Caller) -> Result<(), ResponseError> {
        self.check_member(caller.member_id, caller.instance_id)?;
        if caller.generation == self.generation { Ok(()) } else { Err(ResponseError::IllegalGeneration) }
    }

    pub(super) fn extend_session(&mut self, member_id: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.extend_session(now);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            // A member that is about to join keeps the group. It has a deadline of its own.
            Phase::Empty { since } => self.pending.is_empty().then_some(since + EMPTY_GROUP_RETENTION),
            Phase::PreparingRebalance(preparing) => Some(preparing.deadline),
            Phase::CompletingRebalance | Phase::Stable => None,
        };
        let sessions = self.members.values().filter_map(Member::session_end);
        let pending = self.pending.values().copied();
        phase.into_iter().chain(self.sync_deadline).chain(sessions).chain(pending).min()
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        let expired = |since: Instant| since + EMPTY_GROUP_RETENTION <= now;
        matches!(self.phase, Phase::Empty { since } if expired(since)) && self.pending.is_empty()
    }
}

/// Reads the metadata of a consumer. Each version of it begins like version 0.
fn subscribed_topics(mut metadata: Bytes) -> Option<Vec<StrBytes>> {
    metadata.try_get_i16().ok()?;
    let subscription: ConsumerProtocolSubscription = guard::decode(&metadata, 0).ok()?;
    Some(subscription.topics)
}
