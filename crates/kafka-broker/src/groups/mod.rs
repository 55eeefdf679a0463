//! Coordinates consumer groups with the classic protocol.
//!
//! Follows `GroupCoordinator` and `GroupMetadata` of Apache Kafka 3.9. This module neither reads a clock nor waits: the
//! caller passes the time, and calls [`Groups::expire`] at [`Groups::next_deadline`]. After each change the caller stores
//! what [`Group::take_unsaved`] returns, and then sends the answers to the members.

mod group;
mod member;
mod rebalance;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use group::{Caller, Group};
use member::SyncReply;
pub use member::{Join, JoinRefused, JoinReply, Joined};

use crate::entry::StoredGroup;

/// Holds all groups by their ids.
#[derive(Debug, Default)]
pub struct Groups {
    groups: HashMap<String, Group>,
    changed: BTreeSet<String>,
}

impl Groups {
    /// Returns the groups as they were stored.
    pub fn restore(stored: &BTreeMap<String, StoredGroup>, now: Instant) -> Self {
        let groups = stored.iter().map(|(id, group)| (id.clone(), Group::restore(group, now)));
        Self { groups: groups.collect(), changed: BTreeSet::new() }
    }

    /// Returns the groups that may have changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut Group> {
        self.groups.get_mut(id)
    }

    pub fn get(&self, id: &str) -> Option<&Group> {
        self.groups.get(id)
    }

    /// Removes a group that has no members.
    pub fn remove(&mut self, id: &str) {
        self.groups.remove(id);
        self.changed.insert(id.to_owned());
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(id, group)| (id.as_str(), group))
    }

    pub fn join(&mut self, id: &str, join: Join, now: Instant) -> oneshot::Receiver<JoinReply> {
        let (reply, answer) = oneshot::channel();
        let known = self.groups.contains_key(id);
        if known || join.member_id.is_empty() {
            let group = self.groups.entry(id.to_owned());
            self.changed.insert(id.to_owned());
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
        protocol: Option<(&str, &str)>,
        assignments: Vec<(String, Bytes)>,
        now: Instant,
    ) -> Result<oneshot::Receiver<SyncReply>, ResponseError> {
        self.changed.insert(id.to_owned());
        self.known(id)?.sync(caller, protocol, assignments, now)
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
        self.changed.insert(id.to_owned());
        self.known(id)?.leave(member_id, instance_id, now)
    }

    /// Checks that this caller may commit offsets (`validateOffsetCommit`, `doCommitOffsets`). A group that `has_offsets`
    /// exists without members.
    pub fn check_commit(
        &mut self,
        id: &str,
        caller: Caller,
        has_offsets: bool,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let Some(group) = self.groups.get_mut(id) else {
            return match caller.generation {
                ..0 => Ok(()),
                _ if has_offsets => Err(ResponseError::UnknownMemberId),
                _ => Err(ResponseError::IllegalGeneration),
            };
        };
        if caller.generation < 0 && group.is_empty() {
            return Ok(());
        }
        if caller.is_anonymous() && !group.is_empty() {
            return Err(ResponseError::UnknownMemberId);
        }
        group.check_generation(caller)?;
        if group.awaits_assignment() {
            return Err(ResponseError::RebalanceInProgress);
        }
        group.extend_session(caller.member_id, now);
        Ok(())
    }

    /// Checks that this caller may commit offsets in a transaction. Fences members of past generations (KIP-447). Older
    /// clients do not identify themselves.
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
        for (id, group) in &mut self.groups {
            if group.next_deadline().is_some_and(|deadline| deadline <= now) {
                group.expire(now);
                self.changed.insert(id.clone());
            }
        }
        self.groups.retain(|_, group| !group.is_expired(now));
    }

    fn known(&mut self, id: &str) -> Result<&mut Group, ResponseError> {
        self.groups.get_mut(id).ok_or(ResponseError::UnknownMemberId)
    }
}

#[cfg(test)]
mod tests {
    use super::group::INITIAL_REBALANCE_DELAY;
    use super::*;
    use tokio::time::Duration;

    const LIMIT: Duration = Duration::from_secs(60);

    fn join(groups: &mut Groups, member_id: &str, now: Instant) -> oneshot::Receiver<JoinReply> {
        groups.join("group", request(member_id), now)
    }

    fn request(member_id: &str) -> Join {
        Join {
            member_id: member_id.to_owned(),
            instance_id: None,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: LIMIT,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::new())],
            requires_known_member_id: false,
            may_skip_assignment: false,
        }
    }

    fn expire(groups: &mut Groups, now: Instant) {
        groups.expire(now);
        for id in groups.take_changed() {
            groups.get_mut(&id).unwrap().send_answers();
        }
    }

    fn joined(mut answer: oneshot::Receiver<JoinReply>) -> Joined {
        answer.try_recv().unwrap().unwrap()
    }

    #[test]
    fn members_that_start_together_share_the_first_generation() {
        let (mut groups, start) = (Groups::default(), Instant::now());
        let first = join(&mut groups, "", start);
        let second = join(&mut groups, "", start + INITIAL_REBALANCE_DELAY / 2);
        // The arrival of the second member extends the wait once.
        expire(&mut groups, start + INITIAL_REBALANCE_DELAY);
        let third = join(&mut groups, "", start + INITIAL_REBALANCE_DELAY);
        let mut now = start;
        while groups.get("group").unwrap().state() == "PreparingRebalance" {
            now = groups.next_deadline().unwrap();
            expire(&mut groups, now);
        }
        assert!(now < start + INITIAL_REBALANCE_DELAY * 4);
        let all = [joined(first), joined(second), joined(third)];
        assert!(all.iter().all(|joined| joined.generation == 1));
        let led: Vec<usize> = all.iter().map(|joined| joined.members.len()).collect();
        assert_eq!(led, [3, 0, 0]);
    }

    #[test]
    fn a_member_that_does_not_rejoin_within_the_rebalance_timeout_is_removed() {
        let (mut groups, start) = (Groups::default(), Instant::now());
        let first = join(&mut groups, "", start);
        let now = start + INITIAL_REBALANCE_DELAY;
        expire(&mut groups, now);
        let first = joined(first);
        let mut caller = Caller { member_id: &first.member_id, instance_id: None, generation: 1 };
        groups.sync("group", caller, None, Vec::new(), now).unwrap();
        let second = join(&mut groups, "", now);
        let mut at = now;
        while at < now + LIMIT {
            let rebalancing = Err(ResponseError::RebalanceInProgress);
            assert_eq!(groups.heartbeat("group", caller, at), rebalancing);
            at += Duration::from_secs(5);
            expire(&mut groups, at);
        }
        let second = joined(second);
        assert_eq!((second.generation, second.members.len()), (2, 1));
        caller.generation = 2;
        let refused = Err(ResponseError::UnknownMemberId);
        assert_eq!(groups.heartbeat("group", caller, at), refused);
    }

    #[test]
    fn an_absent_static_member_without_a_rebalance_timeout_does_not_make_the_group_due_at_once() {
        let (mut groups, start) = (Groups::default(), Instant::now());
        let absent = Join {
            instance_id: Some("instance".to_owned()),
            rebalance_timeout: Duration::ZERO,
            ..request("")
        };
        let absent = groups.join("group", absent, start);
        expire(&mut groups, start);
        let absent = joined(absent);
        let caller = Caller { member_id: &absent.member_id, instance_id: Some("instance"), generation: 1 };
        groups.sync("group", caller, None, Vec::new(), start).unwrap();
        let other =
            groups.join("group", Join { instance_id: Some("other".to_owned()), ..request("") }, start);
        groups.leave("group", "", Some("other"), start).unwrap();
        drop(other);
        let now = start + LIMIT;
        groups.heartbeat("group", caller, now).unwrap_err();
        expire(&mut groups, now);
        assert!(groups.next_deadline().unwrap() > now);
    }

    #[test]
    fn member_ids_that_wait_for_their_clients_are_limited() {
        let (mut groups, start) = (Groups::default(), Instant::now());
        let join = |groups: &mut Groups, now| {
            let mut answer =
                groups.join("group", Join { requires_known_member_id: true, ..request("") }, now);
            answer.try_recv().unwrap().unwrap_err().error
        };
        for _ in 0..1000 {
            assert_eq!(join(&mut groups, start), ResponseError::MemberIdRequired);
        }
        assert_eq!(join(&mut groups, start), ResponseError::GroupMaxSizeReached);
        let later = start + LIMIT;
        expire(&mut groups, later);
        assert_eq!(join(&mut groups, later), ResponseError::MemberIdRequired);
    }
}
