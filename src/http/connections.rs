//! Closes connections on which no request is in progress and the client leaves something unfinished for too long: the
//! head of a later request, a body that is not read, or reading a response.

use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use socket2::SockRef;

/// The time after the beginning of a response for the client to read it and to send its next request.
const LIMIT: Duration = Duration::from_secs(30);
/// The interval between two looks at all connections.
const INTERVAL: Duration = Duration::from_secs(1);

/// The open connections of a server.
#[derive(Clone)]
pub(super) struct Connections {
    began: Instant,
    open: Arc<Mutex<Vec<Weak<Connection>>>>,
}

/// A connection, until it is closed.
struct Connection {
    /// Another descriptor of the connection's socket.
    socket: OwnedFd,
    /// Since when no request has been in progress, in milliseconds since the server began; [`BUSY`] during a request.
    idle_since: AtomicU64,
}

const BUSY: u64 = u64::MAX;

/// Marks the requests of one connection. Part of the data that the server keeps with the connection.
#[derive(Clone)]
pub(super) struct ConnectionMark {
    began: Instant,
    connection: Arc<Connection>,
}

impl ConnectionMark {
    pub(super) fn request_begins(&self) {
        self.connection.idle_since.store(BUSY, Ordering::Relaxed);
    }

    pub(super) fn response_begins(&self) {
        self.connection.idle_since.store(millis_since(self.began), Ordering::Relaxed);
    }
}

impl Connections {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), open: Arc::default() }
    }

    /// Adds a connection that the server has accepted. Without a second descriptor, it is not watched.
    pub(super) fn add(&self, stream: &TcpStream, data: &mut Extensions) {
        let Ok(socket) = stream.as_fd().try_clone_to_owned() else { return };
        let idle_since = AtomicU64::new(millis_since(self.began));
        let connection = Arc::new(Connection { socket, idle_since });
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&connection));
        data.insert(ConnectionMark { began: self.began, connection });
    }

    /// Closes connections until the future is dropped.
    pub(super) async fn watch(self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = millis_since(self.began);
            self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|connection| {
                let Some(connection) = connection.upgrade() else { return false };
                let idle_since = connection.idle_since.load(Ordering::Relaxed);
                if idle_since != BUSY && u128::from(now.saturating_sub(idle_since)) > LIMIT.as_millis() {
                    // Fails when the client has closed it.
                    let _ = SockRef::from(&connection.socket).shutdown(Shutdown::Both);
                }
                true
            });
        }
    }
}

fn millis_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(BUSY - 1)
}
