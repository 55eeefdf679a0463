//! The classic group coordinator: who is a member of which group, in memory only.
//!
//! Follows `GroupCoordinator` and `GroupMetadata` of Apache Kafka 3.9. Nothing here reads a clock or
//! waits: the caller says what time it is, and calls [`Groups::expire`] at [`Groups::next_deadline`].

mod member;
mod rebalance;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

pub use member::{Join, JoinRefused, JoinReply, Joined, Member, SyncReply};

/// `group.initial.rebalance.delay.ms`: consumers that start together join the same generation.
const INITIAL_REBALANCE_DELAY: Duration = Duration::from_millis(100);
/// How long a group without members is remembered (`offsets.retention.check.interval.ms`). Its
/// offsets are not kept here and stay.
const EMPTY_GROUP_KEPT: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub struct Groups {
    groups: HashMap<String, Group>,
}

#[derive(Debug)]
pub struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Member id by instance id (KIP-345).
    static_members: HashMap<String, String>,
    /// Ids that were given out and did not join yet, and until when they may.
    pending: HashMap<String, Instant>,
    /// Until when each member has to ask for its assignment.
    sync_deadline: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Empty { since: Instant },
    PreparingRebalance(Preparing),
    CompletingRebalance,
    Stable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Preparing {
    deadline: Instant,
    /// The first rebalance of a group waits for more members, until here at most.
    initial_limit: Option<Instant>,
    member_added: bool,
}

/// Who sends a request that only members may send.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    pub generation: i32,
}

impl Groups {
    pub fn get(&self, id: &str) -> Option<&Group> {
        self.groups.get(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(id, group)| (id.as_str(), group))
    }

    pub fn join(&mut self, id: &str, join: Join, now: Instant) -> oneshot::Receiver<JoinReply> {
        let (reply, answer) = oneshot::channel();
        let known = self.groups.contains_key(id);
        if known || join.member_id.is_empty() {
            let group = self.groups.entry(id.to_owned());
            group.or_insert_with(|| Group::new(now)).join(join, reply, now);
        } else {
            let _ = reply
                .send(Err(JoinRefused { error: ResponseError::UnknownMemberId, member_id: join.member_id }));
        }
        answer
    }

    pub fn sync(
        &mut self,
        id: &str,
        caller: Caller,
        assignments: Vec<(String, Bytes)>,
        now: Instant,
    ) -> Result<oneshot::Receiver<SyncReply>, ResponseError> {
        self.known(id)?.sync(caller, assignments, now)
    }

    pub fn heartbeat(&mut self, id: &str, caller: Caller, now: Instant) -> Result<(), ResponseError> {
        self.known(id)?.heartbeat(caller, now)
    }

    pub fn leave(
        &mut self,
        id: &str,
        member_id: &str,
        instance_id: Option<&str>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.known(id)?.leave(member_id, instance_id, now)
    }

    /// May this caller commit offsets (`validateOffsetCommit`, `doCommitOffsets`)?
    pub fn check_commit(&mut self, id: &str, caller: Caller, now: Instant) -> Result<(), ResponseError> {
        let Some(group) = self.groups.get_mut(id) else {
            return if caller.generation < 0 { Ok(()) } else { Err(ResponseError::IllegalGeneration) };
        };
        if caller.generation < 0 && group.is_empty() {
            return Ok(());
        }
        if caller.is_anonymous() && !group.is_empty() {
            return Err(ResponseError::UnknownMemberId);
        }
        group.check_generation(caller)?;
        if group.phase == Phase::CompletingRebalance {
            return Err(ResponseError::RebalanceInProgress);
        }
        group.alive(caller.member_id, now);
        Ok(())
    }

    /// May this caller commit offsets in a transaction? Keeps out members of the past (KIP-447);
    /// older clients do not say who they are.
    pub fn check_txn_commit(&self, id: &str, caller: Caller) -> Result<(), ResponseError> {
        match self.groups.get(id) {
            _ if caller.is_anonymous() => Ok(()),
            Some(group) if caller.generation < 0 && group.is_empty() => Ok(()),
            Some(group) => group.check_generation(caller),
            None if caller.generation < 0 => Ok(()),
            None => Err(ResponseError::UnknownMemberId),
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.groups.values().filter_map(Group::next_deadline).min()
    }

    pub fn expire(&mut self, now: Instant) {
        for group in self.groups.values_mut() {
            group.expire(now);
        }
        self.groups.retain(|_, group| !group.is_forgotten(now));
    }

    fn known(&mut self, id: &str) -> Result<&mut Group, ResponseError> {
        self.groups.get_mut(id).ok_or(ResponseError::UnknownMemberId)
    }
}

impl Caller<'_> {
    fn is_anonymous(&self) -> bool {
        self.generation < 0 && self.member_id.is_empty() && self.instance_id.is_none()
    }
}

impl Group {
    fn new(now: Instant) -> Self {
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
        }
    }

    /// As DescribeGroups and ListGroups name it.
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

    /// Only once all members have their assignment.
    pub fn stable_protocol(&self) -> Option<&str> {
        let stable = self.phase == Phase::Stable;
        self.protocol.as_deref().filter(|_| stable)
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    fn is_empty(&self) -> bool {
        matches!(self.phase, Phase::Empty { .. })
    }

    fn heartbeat(&mut self, caller: Caller, now: Instant) -> Result<(), ResponseError> {
        self.check_generation(caller)?;
        self.alive(caller.member_id, now);
        match self.phase {
            Phase::PreparingRebalance(_) => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    fn leave(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        if self.pending.remove(member_id).is_some() {
            self.complete_join_when_ready(now);
            return Ok(());
        }
        let id = match instance_id.and_then(|instance| self.static_members.get(instance)) {
            // An operator removes a static member by its instance id alone.
            Some(id) if member_id.is_empty() => id.clone(),
            _ => {
                self.check_member(member_id, instance_id)?;
                member_id.to_owned()
            }
        };
        self.remove(&id, now);
        Ok(())
    }

    /// `validateCurrentMember`
    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ResponseError> {
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

    fn check_generation(&self, caller: Caller) -> Result<(), ResponseError> {
        self.check_member(caller.member_id, caller.instance_id)?;
        if caller.generation == self.generation { Ok(()) } else { Err(ResponseError::IllegalGeneration) }
    }

    fn alive(&mut self, member_id: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.alive(now);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            // A member that is about to join keeps the group, and its own deadline wakes.
            Phase::Empty { since } => self.pending.is_empty().then_some(since + EMPTY_GROUP_KEPT),
            Phase::PreparingRebalance(preparing) => Some(preparing.deadline),
            Phase::CompletingRebalance | Phase::Stable => None,
        };
        let sessions = self.members.values().filter_map(Member::session_end);
        let pending = self.pending.values().copied();
        phase.into_iter().chain(self.sync_deadline).chain(sessions).chain(pending).min()
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        let expired = |since: Instant| since + EMPTY_GROUP_KEPT <= now;
        matches!(self.phase, Phase::Empty { since } if expired(since)) && self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn join(groups: &mut Groups, member_id: &str, now: Instant) -> oneshot::Receiver<JoinReply> {
        let join = Join {
            member_id: member_id.to_owned(),
            instance_id: None,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: LIMIT,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::new())],
            requires_known_member_id: false,
        };
        groups.join("group", join, now)
    }

    fn joined(mut answer: oneshot::Receiver<JoinReply>) -> Joined {
        answer.try_recv().unwrap().unwrap()
    }

    #[test]
    fn members_that_start_together_share_the_first_generation() {
        let (mut groups, start) = (Groups::default(), Instant::now());
        let first = join(&mut groups, "", start);
        let second = join(&mut groups, "", start + INITIAL_REBALANCE_DELAY / 2);
        // The second one's arrival lengthens the wait, once.
        groups.expire(start + INITIAL_REBALANCE_DELAY);
        let third = join(&mut groups, "", start + INITIAL_REBALANCE_DELAY);
        let mut now = start;
        while groups.get("group").unwrap().state() == "PreparingRebalance" {
            now = groups.next_deadline().unwrap();
            groups.expire(now);
        }
        assert!(now < start + INITIAL_REBALANCE_DELAY * 4);
        let all = [joined(first), joined(second), joined(third)];
        assert!(all.iter().all(|joined| joined.generation == 1));
        let led: Vec<usize> = all.iter().map(|joined| joined.members.len()).collect();
        assert_eq!(led, [3, 0, 0]);
    }

    #[test]
    fn who_does_not_join_again_within_the_rebalance_timeout_is_left_behind() {
        let (mut groups, start) = (Groups::default(), Instant::now());
        let first = join(&mut groups, "", start);
        let now = start + INITIAL_REBALANCE_DELAY;
        groups.expire(now);
        let first = joined(first);
        let mut caller = Caller { member_id: &first.member_id, instance_id: None, generation: 1 };
        groups.sync("group", caller, Vec::new(), now).unwrap();
        let second = join(&mut groups, "", now);
        let mut at = now;
        while at < now + LIMIT {
            let rebalancing = Err(ResponseError::RebalanceInProgress);
            assert_eq!(groups.heartbeat("group", caller, at), rebalancing);
            at += Duration::from_secs(5);
            groups.expire(at);
        }
        let second = joined(second);
        assert_eq!((second.generation, second.members.len()), (2, 1));
        caller.generation = 2;
        let refused = Err(ResponseError::UnknownMemberId);
        assert_eq!(groups.heartbeat("group", caller, at), refused);
    }
}
