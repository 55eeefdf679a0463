//! A running broker: how it starts, what it runs, how it ends.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::time::Duration;
use tokio_util::task::TaskTracker;

use crate::core::Core;
use crate::shared::Shared;
use crate::{connection, deadlines};

/// A running broker. Dropping it ends its tasks too, without waiting for them.
pub struct Broker {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl Broker {
    /// `listener`: already bound, on 127.0.0.1; the advertised address is its local address.
    /// `dir`: created when missing; holds the journal.
    pub async fn start(listener: TcpListener, dir: &Path) -> Result<Self> {
        let address = listener.local_addr().context("the listener has no address")?;
        let dir = dir.to_owned();
        let core = tokio::task::spawn_blocking(move || Core::open(&dir)).await??;
        let shared = Arc::new(Shared::new(core, address));
        let tasks = TaskTracker::new();
        tasks.spawn(deadlines::keep(shared.clone()));
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
        if let Err(error) = self.shared.lock().sync() {
            tracing::warn!(%error, "cannot flush the journal");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
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
