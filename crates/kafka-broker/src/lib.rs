//! A single-node Kafka broker for the `dev` command and for tests: real clients, one file on disk.
//!
//! It serves what librdkafka uses (the APIs and versions in [`connection`]): topics, produce with
//! idempotence, fetch with long polls and read_committed, classic consumer groups with static
//! members, and transactions with offsets. What it answers is meant to be what Apache Kafka 3.9
//! answers; `tests/conformance` runs against both.
//!
//! It leaves out: replication, retention and compaction (the journal only grows), consumer groups of
//! KIP-848, ACLs and authentication, quotas, fetch sessions, formats before record batch v2.
//!
//! # Durability
//!
//! Whatever was acknowledged survives the death of the process, `kill -9` included: it is written to
//! the journal before it is answered. There is no fsync before an answer: a power cut may take the last
//! seconds, or leave a journal that is refused at the next start. Group membership is in memory only: after a restart members see UNKNOWN_MEMBER_ID and
//! join again.
//!
//! # How it is built
//!
//! A request is decoded by [`connection`], translated by a file of [`api`], checked against the
//! state, and turned into a journal [`entry`]; [`store`] writes that and then applies it, by the same
//! function that replays the journal at start. One lock guards all state. It is held for checks, index updates
//! and writes into the page cache, never across an await.

#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes are bounded by the largest request, offsets are not negative, and clocks fit"
)]

mod api;
mod batch;
mod connection;
mod coordinator;
mod entry;
mod group;
mod guard;
mod ids;
mod journal;
mod offsets;
mod partition;
mod producer;
mod state;
mod store;
mod transaction;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use group::Groups;
use store::Store;

/// A running broker. Dropping it ends its tasks too, without waiting for them.
pub struct Broker {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// What all connections share.
struct Shared {
    core: Mutex<Core>,
    /// Rung when a deadline may have come nearer.
    deadlines: Notify,
    shutdown: CancellationToken,
    address: SocketAddr,
}

/// All state, behind one lock.
struct Core {
    store: Store,
    groups: Groups,
}

impl Broker {
    /// `listener`: already bound, on 127.0.0.1; the advertised address is its local address.
    /// `dir`: created when missing; holds the journal.
    pub async fn start(listener: TcpListener, dir: &Path) -> Result<Self> {
        let address = listener.local_addr().context("the listener has no address")?;
        let dir = dir.to_owned();
        let store = tokio::task::spawn_blocking(move || Store::open(&dir)).await??;
        let shared = Arc::new(Shared {
            core: Mutex::new(Core { store, groups: Groups::default() }),
            deadlines: Notify::new(),
            shutdown: CancellationToken::new(),
            address,
        });
        let tasks = TaskTracker::new();
        tasks.spawn(keep_deadlines(shared.clone()));
        tasks.spawn(accept(shared.clone(), listener, tasks.clone()));
        Ok(Self { shared, tasks })
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Stops accepting, ends connections, flushes; returns when all tasks are gone.
    pub async fn shutdown(self) {
        self.shared.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Err(error) = self.shared.lock().store.sync() {
            tracing::warn!(%error, "cannot flush the journal");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                tasks.spawn(connection::serve(shared.clone(), stream, peer));
            }
            Err(error) => {
                // Out of file descriptors, most likely: to try at once would spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Ends sessions, rebalances and transactions when their time has come.
async fn keep_deadlines(shared: Arc<Shared>) {
    loop {
        let next = shared.lock().expire(Instant::now(), now_ms());
        let due = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            () = shared.deadlines.notified() => {}
            () = due => {}
        }
    }
}

impl Core {
    /// Does what is due and returns when to look again.
    fn expire(&mut self, now: Instant, now_ms: i64) -> Option<Instant> {
        self.groups.expire(now);
        let transactions =
            self.expire_transactions(now_ms).map(|wait| now + wait.max(Duration::from_millis(1)));
        self.groups.next_deadline().into_iter().chain(transactions).min()
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
