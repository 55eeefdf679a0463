//! One member of a group, and what it waits for.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

/// A JoinGroup request, past the wire.
#[derive(Debug, Clone)]
pub struct Join {
    /// Empty when the member is new.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub protocol_type: String,
    /// Names and metadata, the preferred first.
    pub protocols: Vec<(String, Bytes)>,
    /// A new dynamic member first gets its id and joins with it (KIP-394).
    pub requires_known_member_id: bool,
}

pub type JoinReply = Result<Joined, JoinRefused>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub member_id: String,
    pub generation: i32,
    pub protocol: String,
    pub leader: String,
    /// For the leader only: id, instance id and metadata of every member.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefused {
    pub error: ResponseError,
    pub member_id: String,
}

/// The member's assignment.
pub type SyncReply = Result<Bytes, ResponseError>;

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
    /// It has asked for its assignment in this generation.
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
            synced: false,
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

    /// It is heard of: the session begins anew.
    pub fn alive(&mut self, now: Instant) {
        self.session_end = now + self.session_timeout;
    }

    /// When it counts as dead. Never while it waits for an answer: it cannot heartbeat then.
    pub fn session_end(&self) -> Option<Instant> {
        let waits = self.awaiting_join.is_some() || self.awaiting_sync.is_some();
        (!waits).then_some(self.session_end)
    }

    pub fn awaits_join(&self) -> bool {
        self.awaiting_join.is_some()
    }

    /// A second request takes the place of the first, whose sender is gone.
    pub fn await_join(&mut self, reply: oneshot::Sender<JoinReply>) {
        self.awaiting_join = Some(reply);
    }

    pub fn await_sync(&mut self, reply: oneshot::Sender<SyncReply>) {
        self.awaiting_sync = Some(reply);
    }

    // Whether the receiver still listens is no matter: a client that went away will time out.

    pub fn answer_join(&mut self, joined: Joined, now: Instant) {
        if let Some(reply) = self.awaiting_join.take() {
            self.alive(now);
            let _ = reply.send(Ok(joined));
        }
    }

    pub fn answer_sync(&mut self, answer: SyncReply, now: Instant) {
        if let Some(reply) = self.awaiting_sync.take() {
            self.alive(now);
            let _ = reply.send(answer);
        }
    }

    /// Ends whatever it waits for.
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
