//! The broker as a program embeds it: how it starts, what it runs, how it ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Duration;
use tokio_util::task::TaskTracker;

use crate::core::Core;
use crate::limits::Limits;
use crate::shared::Shared;
use crate::start_error::StartError;
use crate::{connection, deadlines, retention};

const SEGMENT_BYTES: u64 = 128 * 1024 * 1024;

/// Runs a Kafka broker in tasks of the current tokio runtime.
///
/// Dropping it ends the tasks too, without waiting for them and without flushing to the device.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use embedded_kafka_broker::Broker;
///
/// let broker = Broker::start().await?;
/// println!("bootstrap.servers={}", broker.address());
/// broker.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct Broker {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// Configures a broker before it starts. [`Broker::builder`] returns one.
#[derive(Debug, Default)]
#[must_use]
pub struct Builder {
    listener: Option<TcpListener>,
    advertised: Option<SocketAddr>,
    data_dir: Option<PathBuf>,
    limits: Limits,
    segment_bytes: Option<u64>,
}

impl Broker {
    /// Starts an empty broker on a free port of 127.0.0.1. Its data end with it.
    ///
    /// # Errors
    /// When it cannot listen, or cannot create or write a temporary file.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O and time enabled.
    pub async fn start() -> Result<Self, StartError> {
        Self::builder().start().await
    }

    /// Returns a builder that listens on a free port of 127.0.0.1 and keeps no data.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns the address that the broker advertises to its clients: that of its listener, unless
    /// [`Builder::advertise`] was called.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Stops accepting, ends connections, flushes; returns when all tasks are gone.
    pub async fn shutdown(self) {
        self.shared.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let shared = Arc::clone(&self.shared);
        // On another thread, so that a device that hangs does not block the caller's.
        let flushed = tokio::task::spawn_blocking(move || shared.lock().sync()).await;
        if let Err(error) = flushed.map_err(io::Error::from).flatten() {
            tracing::warn!(%error, "cannot flush the journal");
        }
    }
}

impl Builder {
    /// Serves on this listener, whose local address the broker advertises.
    ///
    /// The broker has no authentication, and any client may fill the disk: bind to a loopback address.
    pub fn listener(self, listener: TcpListener) -> Self {
        Self { listener: Some(listener), ..self }
    }

    /// Advertises this address to clients instead of the listener's, such as that of a proxy in front of the broker.
    pub fn advertise(self, address: SocketAddr) -> Self {
        Self { advertised: Some(address), ..self }
    }

    /// Keeps the data in this directory, which is created when missing, and resumes with what is there.
    pub fn data_dir(self, path: impl Into<PathBuf>) -> Self {
        Self { data_dir: Some(path.into()), ..self }
    }

    /// Begins a file of the journal when the one before has this size. 128 MiB by default.
    pub fn segment_bytes(self, bytes: u64) -> Self {
        Self { segment_bytes: Some(bytes), ..self }
    }

    /// Sets the limits of connections.
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Starts the broker. Returns once the data are read and clients can connect.
    ///
    /// # Errors
    /// When it cannot listen, when another broker uses the directory, or when its data are damaged.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O and time enabled.
    pub async fn start(self) -> Result<Broker, StartError> {
        let listener = match self.listener {
            Some(listener) => listener,
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(StartError::Listen)?,
        };
        let own = listener.local_addr().map_err(StartError::Listen)?;
        let address = self.advertised.unwrap_or(own);
        let segment_bytes = self.segment_bytes.unwrap_or(SEGMENT_BYTES);
        let open = move || match self.data_dir {
            Some(data_dir) => Core::open(&data_dir, segment_bytes),
            None => Core::temporary(segment_bytes),
        };
        let core = tokio::task::spawn_blocking(open).await??;
        let shared = Arc::new(Shared::new(core, address, self.limits));
        let tasks = TaskTracker::new();
        tasks.spawn(deadlines::keep(shared.clone()));
        tasks.spawn(retention::delete_records(shared.clone()));
        tasks.spawn(retention::expire_producers(shared.clone()));
        tasks.spawn(accept(shared.clone(), listener, tasks.clone()));
        Ok(Broker { shared, tasks })
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Broker").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, tasks: TaskTracker) {
    let slots = Arc::new(Semaphore::new(shared.limits.max_connections.min(Semaphore::MAX_PERMITS)));
    loop {
        if slots.available_permits() == 0 {
            let max_connections = shared.limits.max_connections;
            tracing::warn!(max_connections, "too many connections, further clients wait until one closes");
        }
        let accepting = async { (slots.clone().acquire_owned().await, listener.accept().await) };
        let (Ok(slot), accepted) = (tokio::select! {
            () = shared.shutdown.cancelled() => return,
            accepting = accepting => accepting,
        }) else {
            return;
        };
        match accepted {
            Ok((stream, peer)) => {
                tasks.spawn(connection::serve(shared.clone(), stream, peer, slot));
            }
            Err(error) => {
                // Out of file descriptors, most likely: to try at once would spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
