//! Holds one member of a group, and the request that it waits for.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use crate::entry::StoredMember;

/// Holds a JoinGroup request, independent of its version.
#[derive(Debug, Clone)]
pub struct Join {
    /// Empty for a new member.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub protocol_type: String,
    /// Names and metadata, the preferred protocol first.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether a new dynamic member first receives its id, and then joins with it (KIP-394).
    pub requires_known_member_id: bool,
    /// Whether a static member that returns as the leader understands a response that skips the assignment (KIP-814).
    pub may_skip_assignment: bool,
}

pub type JoinReply = Result<Joined, JoinRefused>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub member_id: String,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    pub skips_assignment: bool,
    /// Id, instance id and metadata of every member. Empty except for the leader.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefused {
    pub error: ResponseError,
    pub member_id: String,
}

/// Holds the member's assignment.
pub type SyncReply = Result<Bytes, ResponseError>;

#[derive(Debug)]
enum Answer {
    Join(oneshot::Sender<JoinReply>, JoinReply),
    Sync(oneshot::Sender<SyncReply>, SyncReply),
}

#[derive(Debug)]
pub struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    pub rebalance_timeout: Duration,
    session_timeout: Duration,
    session_end: Instant,
    awaiting_join: Option<oneshot::Sender<JoinReply>>,
    awaiting_sync: Option<oneshot::Sender<SyncReply>>,
    /// Answers that are sent once the change of the group is durable.
    answers: Vec<Answer>,
    /// Whether it has sent SyncGroup in this generation.
    pub synced: bool,
}

impl Member {
    pub fn new(id: String, join: Join, now: Instant) -> Self {
        Self {
            id,
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            protocols: join.protocols,
            assignment: Bytes::new(),
            rebalance_timeout: join.rebalance_timeout,
            session_timeout: join.session_timeout,
            session_end: now + join.session_timeout,
            awaiting_join: None,
            awaiting_sync: None,
            answers: Vec::new(),
            synced: false,
        }
    }

    /// Returns the member as it was stored, with a new session.
    pub fn restore(stored: &StoredMember, now: Instant) -> Self {
        let session_timeout = from_millis(stored.session_timeout_ms);
        Self {
            id: stored.id.clone(),
            instance_id: stored.instance_id.clone(),
            client_id: stored.client_id.clone(),
            client_host: stored.client_host.clone(),
            protocols: stored.protocols.clone(),
            assignment: stored.assignment.clone(),
            rebalance_timeout: from_millis(stored.rebalance_timeout_ms),
            session_timeout,
            session_end: now + session_timeout,
            awaiting_join: None,
            awaiting_sync: None,
            answers: Vec::new(),
            synced: true,
        }
    }

    pub fn to_stored(&self) -> StoredMember {
        StoredMember {
            id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            session_timeout_ms: self.session_timeout.as_millis() as i32,
            rebalance_timeout_ms: self.rebalance_timeout.as_millis() as i32,
            protocols: self.protocols.clone(),
            assignment: self.assignment.clone(),
        }
    }

    pub fn update(&mut self, join: Join) {
        self.protocols = join.protocols;
        self.rebalance_timeout = join.rebalance_timeout;
        self.session_timeout = join.session_timeout;
    }

    pub fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    pub fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// Restarts the session, after a request of the member.
    pub fn extend_session(&mut self, now: Instant) {
        self.session_end = now + self.session_timeout;
    }

    /// Returns when its session expires. A member that waits for a response cannot send heartbeats, and does not expire.
    pub fn session_end(&self) -> Option<Instant> {
        let waits = self.awaiting_join.is_some() || self.awaiting_sync.is_some();
        (!waits).then_some(self.session_end)
    }

    pub fn awaits_join(&self) -> bool {
        self.awaiting_join.is_some()
    }

    /// Replies to this request when the join phase ends. It replaces an earlier request, whose sender is gone.
    pub fn await_join(&mut self, reply: oneshot::Sender<JoinReply>) {
        self.awaiting_join = Some(reply);
    }

    pub fn await_sync(&mut self, reply: oneshot::Sender<SyncReply>) {
        self.awaiting_sync = Some(reply);
    }

    pub fn answer_join(&mut self, joined: Joined, now: Instant) {
        if let Some(reply) = self.awaiting_join.take() {
            self.extend_session(now);
            self.answers.push(Answer::Join(reply, Ok(joined)));
        }
    }

    pub fn answer_sync(&mut self, answer: SyncReply, now: Instant) {
        if let Some(reply) = self.awaiting_sync.take() {
            self.extend_session(now);
            self.answers.push(Answer::Sync(reply, answer));
        }
    }

    // In all replies below a missing receiver is ignored: a client that disconnected will time out.

    pub fn send_answers(&mut self) {
        for answer in self.answers.drain(..) {
            match answer {
                Answer::Join(reply, answer) => drop(reply.send(answer)),
                Answer::Sync(reply, answer) => drop(reply.send(answer)),
            }
        }
    }

    /// Replies with an error to the request that it waits for.
    pub fn refuse(&mut self, error: ResponseError) {
        if let Some(reply) = self.awaiting_join.take() {
            let member_id = self.id.clone();
            let _ = reply.send(Err(JoinRefused { error, member_id }));
        }
        if let Some(reply) = self.awaiting_sync.take() {
            let _ = reply.send(Err(error));
        }
    }
}

fn from_millis(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}
