//! Moves a group from one generation to the next: join, choice of the protocol, assignment, departures and timeouts.

use std::collections::HashMap;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::group::{Caller, Group, INITIAL_REBALANCE_DELAY, Phase, Preparing};
use super::member::{Join, JoinRefused, JoinReply, Joined, Member, SyncReply};
use crate::ids;

/// Shortest time between two attempts to begin a generation when all members are absent.
const ABSENT_MEMBERS_DELAY: Duration = Duration::from_secs(1);

/// Most member ids that are assigned to clients that have not joined with them. Apache Kafka has no limit by default.
const MAX_PENDING: usize = 1000;

impl Group {
    pub(super) fn join(&mut self, join: Join, reply: oneshot::Sender<JoinReply>, now: Instant) {
        let refuse = |reply: oneshot::Sender<JoinReply>, error, member_id| {
            let _ = reply.send(Err(JoinRefused { error, member_id }));
        };
        if !self.accepts(&join) {
            return refuse(reply, ResponseError::InconsistentGroupProtocol, join.member_id);
        }
        if join.member_id.is_empty() {
            let prefix = join.instance_id.as_ref().unwrap_or(&join.client_id);
            let id = ids::member_id(prefix);
            let instance = join.instance_id.as_ref();
            if let Some(current) = instance.and_then(|id| self.static_members.get(id)) {
                let current = current.clone();
                self.replace_static_member(&current, id, join, reply, now);
            } else if join.requires_known_member_id && instance.is_none() && self.pending.len() >= MAX_PENDING
            {
                refuse(reply, ResponseError::GroupMaxSizeReached, String::new());
            } else if join.requires_known_member_id && instance.is_none() {
                self.pending.insert(id.clone(), now + join.session_timeout);
                refuse(reply, ResponseError::MemberIdRequired, id);
            } else {
                self.add(id, join, reply, now);
            }
        } else if join.instance_id.is_none() && self.pending.remove(&join.member_id).is_some() {
            self.add(join.member_id.clone(), join, reply, now);
        } else if let Err(error) = self.check_member(&join.member_id, join.instance_id.as_deref()) {
            refuse(reply, error, join.member_id);
        } else {
            self.rejoin(join, reply, now);
        }
    }

    /// Waits for the assignment of the caller. Checks the type and the name of the protocol, if the caller names them.
    pub(super) fn sync(
        &mut self,
        caller: Caller,
        protocol: Option<(&str, &str)>,
        assignments: Vec<(String, Bytes)>,
        now: Instant,
    ) -> Result<oneshot::Receiver<SyncReply>, ResponseError> {
        self.check_generation(caller)?;
        let own = self.protocol_type.as_deref().zip(self.protocol.as_deref());
        if protocol.is_some() && protocol != own {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        match self.phase {
            Phase::Empty { .. } => return Err(ResponseError::UnknownMemberId),
            Phase::PreparingRebalance(_) => return Err(ResponseError::RebalanceInProgress),
            Phase::CompletingRebalance | Phase::Stable => {}
        }
        let (reply, answer) = oneshot::channel();
        if let Some(member) = self.members.get_mut(caller.member_id) {
            member.synced = true;
            member.await_sync(reply);
        }
        if self.phase == Phase::CompletingRebalance && self.leader.as_deref() == Some(caller.member_id) {
            let mut assignments: HashMap<_, _> = assignments.into_iter().collect();
            for member in self.members.values_mut() {
                member.assignment = assignments.remove(&member.id).unwrap_or_default();
            }
            self.phase = Phase::Stable;
            self.unsaved = true;
        }
        if self.phase == Phase::Stable {
            for member in self.members.values_mut() {
                member.answer_sync(Ok(member.assignment.clone()), now);
            }
        }
        if self.members.values().all(|member| member.synced) {
            self.sync_deadline = None;
        }
        Ok(answer)
    }

    pub(super) fn leave(
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
            // An operator removes a static member by its instance id, without a member id.
            Some(id) if member_id.is_empty() => id.clone(),
            _ => {
                self.check_member(member_id, instance_id)?;
                member_id.to_owned()
            }
        };
        self.remove(&id, now);
        Ok(())
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let pending = self.pending.len();
        self.pending.retain(|_, until| *until > now);
        if self.pending.len() < pending {
            self.complete_join_when_ready(now);
        }
        let never_synced = self.sync_deadline.is_some_and(|deadline| deadline <= now);
        let dead: Vec<String> = self
            .members
            .values()
            .filter(|member| {
                member.session_end().is_some_and(|end| end <= now) || (never_synced && !member.synced)
            })
            .map(|member| member.id.clone())
            .collect();
        if never_synced {
            self.sync_deadline = None;
        }
        for id in dead {
            tracing::debug!(member = id, "session of a group member expired, removing the member");
            self.remove(&id, now);
        }
        if let Phase::PreparingRebalance(preparing) = &mut self.phase
            && preparing.deadline <= now
        {
            match preparing.initial_limit {
                Some(limit) if preparing.member_added && preparing.deadline < limit => {
                    preparing.member_added = false;
                    preparing.deadline = limit.min(now + INITIAL_REBALANCE_DELAY);
                }
                _ => self.complete_join(now),
            }
        }
    }

    fn remove(&mut self, id: &str, now: Instant) {
        let Some(mut member) = self.members.remove(id) else {
            return;
        };
        member.refuse(ResponseError::UnknownMemberId);
        if let Some(instance) = &member.instance_id {
            self.static_members.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        match self.phase {
            Phase::Stable | Phase::CompletingRebalance => self.prepare_rebalance(now),
            Phase::PreparingRebalance(_) => self.complete_join_when_ready(now),
            Phase::Empty { .. } => {}
        }
    }

    /// Ends the join phase once all members have joined. The first join phase of a group ends at its deadline instead.
    fn complete_join_when_ready(&mut self, now: Instant) {
        if let Phase::PreparingRebalance(Preparing { initial_limit: None, .. }) = self.phase
            && self.pending.is_empty()
            && self.members.values().all(Member::awaits_join)
        {
            self.complete_join(now);
        }
    }

    fn accepts(&self, join: &Join) -> bool {
        if self.members.is_empty() {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        self.protocol_type() == join.protocol_type
            && join.protocols.iter().any(|(name, _)| self.all_support(name))
    }

    fn all_support(&self, protocol: &str) -> bool {
        self.members.values().all(|member| member.supports(protocol))
    }

    fn add(&mut self, id: String, join: Join, reply: oneshot::Sender<JoinReply>, now: Instant) {
        self.protocol_type.get_or_insert_with(|| join.protocol_type.clone());
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        if let Some(instance) = &join.instance_id {
            self.static_members.insert(instance.clone(), id.clone());
        }
        let mut member = Member::new(id.clone(), join, now);
        member.await_join(reply);
        self.members.insert(id, member);
        if let Phase::PreparingRebalance(preparing) = &mut self.phase {
            preparing.member_added = true;
        }
        self.rebalance(now);
    }

    fn rejoin(&mut self, join: Join, reply: oneshot::Sender<JoinReply>, now: Instant) {
        let is_leader = self.leader.as_ref() == Some(&join.member_id);
        let Some(member) = self.members.get_mut(&join.member_id) else {
            return;
        };
        // A client that lost the response repeats its JoinGroup, and receives the same response. From the leader of a
        // stable group it requests a rebalance: partitions or subscriptions may have changed.
        let unchanged = member.protocols == join.protocols;
        let repeats = match self.phase {
            Phase::Stable => unchanged && !is_leader,
            Phase::CompletingRebalance => unchanged,
            Phase::PreparingRebalance(_) | Phase::Empty { .. } => false,
        };
        let id = join.member_id.clone();
        member.update(join);
        member.await_join(reply);
        if repeats {
            self.answer_join(&id, now);
        } else {
            self.rebalance(now);
        }
    }

    /// Replaces a static member that rejoins with its instance id (`updateStaticMemberAndRebalance`).
    fn replace_static_member(
        &mut self,
        old: &str,
        id: String,
        join: Join,
        reply: oneshot::Sender<JoinReply>,
        now: Instant,
    ) {
        let Some(mut member) = self.members.remove(old) else {
            return;
        };
        let may_skip_assignment = join.may_skip_assignment;
        member.refuse(ResponseError::FencedInstanceId);
        member.id.clone_from(&id);
        member.update(join);
        member.extend_session(now);
        member.await_join(reply);
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), id.clone());
        }
        self.members.insert(id.clone(), member);
        let old_leader = self.leader.clone().unwrap_or_default();
        if old_leader == old {
            self.leader = Some(id.clone());
        }
        if self.phase != Phase::Stable || self.choose_protocol() != self.protocol {
            return self.rebalance(now);
        }
        self.unsaved = true;
        // The member keeps the old assignment. If it leads the group, it must not compute a new one, which a stable group
        // would not distribute. A client of an older version is named the leader by its old id.
        let mut joined = self.joined(&id);
        if may_skip_assignment {
            joined.skips_assignment = joined.leader == id;
        } else {
            joined.leader = old_leader;
            joined.members = Vec::new();
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.answer_join(joined, now);
        }
    }

    /// Begins a rebalance, or continues the current one.
    fn rebalance(&mut self, now: Instant) {
        match self.phase {
            Phase::PreparingRebalance(_) => self.complete_join_when_ready(now),
            _ => self.prepare_rebalance(now),
        }
    }

    fn prepare_rebalance(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            member.answer_sync(Err(ResponseError::RebalanceInProgress), now);
        }
        self.sync_deadline = None;
        let limit = now + self.rebalance_timeout();
        let first = matches!(self.phase, Phase::Empty { .. });
        self.phase = Phase::PreparingRebalance(Preparing {
            deadline: if first { limit.min(now + INITIAL_REBALANCE_DELAY) } else { limit },
            initial_limit: first.then_some(limit),
            member_added: false,
        });
        self.complete_join_when_ready(now);
    }

    /// Begins the next generation, of the members that have joined (`onCompleteJoin`).
    fn complete_join(&mut self, now: Instant) {
        // A static member may be absent until its session expires.
        self.members.retain(|_, member| member.awaits_join() || member.instance_id.is_some());
        let leader_joined = |group: &Self| {
            let leader = group.leader.as_ref().and_then(|id| group.members.get(id));
            leader.is_some_and(Member::awaits_join)
        };
        if !leader_joined(self) {
            let mut joined = self.members.values().filter(|member| member.awaits_join());
            self.leader = joined.next().map(|member| member.id.clone());
        }
        if self.leader.is_none() && !self.members.is_empty() {
            // Without a wait, this would repeat without a pause until the session of the absent member ends.
            let deadline = now + self.rebalance_timeout().max(ABSENT_MEMBERS_DELAY);
            self.phase =
                Phase::PreparingRebalance(Preparing { deadline, initial_limit: None, member_added: false });
            return;
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        self.protocol = self.choose_protocol();
        if self.members.is_empty() {
            self.phase = Phase::Empty { since: now };
            self.unsaved = true;
            return;
        }
        self.phase = Phase::CompletingRebalance;
        self.sync_deadline = Some(now + self.rebalance_timeout());
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            if let Some(member) = self.members.get_mut(&id) {
                member.synced = false;
            }
            self.answer_join(&id, now);
        }
    }

    fn answer_join(&mut self, id: &str, now: Instant) {
        let joined = self.joined(id);
        if let Some(member) = self.members.get_mut(id) {
            member.answer_join(joined, now);
        }
    }

    /// Describes the current generation to a member.
    fn joined(&self, id: &str) -> Joined {
        let leader = self.leader.clone().unwrap_or_default();
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let everyone = self.members.values().map(|member| {
            let metadata = member.metadata(protocol);
            (member.id.clone(), member.instance_id.clone(), metadata)
        });
        Joined {
            member_id: id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            members: if leader == id { everyone.collect() } else { Vec::new() },
            leader,
            skips_assignment: false,
        }
    }

    /// Returns the protocol with the most votes. Each member votes for the first of its protocols that all members support.
    fn choose_protocol(&self) -> Option<String> {
        let mut votes: Vec<(&str, usize)> = Vec::new();
        for member in self.members.values() {
            let mut names = member.protocols.iter().map(|(name, _)| name.as_str());
            let Some(choice) = names.find(|name| self.all_support(name)) else {
                continue;
            };
            match votes.iter_mut().find(|(name, _)| *name == choice) {
                Some((_, count)) => *count += 1,
                None => votes.push((choice, 1)),
            }
        }
        let winner = votes.into_iter().max_by_key(|(_, count)| *count);
        winner.map(|(name, _)| name.to_owned())
    }

    fn rebalance_timeout(&self) -> Duration {
        let timeouts = self.members.values().map(|member| member.rebalance_timeout);
        timeouts.max().unwrap_or_default()
    }
}
