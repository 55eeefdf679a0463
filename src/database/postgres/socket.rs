//! Connects sockets to a server.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A connected stream of any kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The address that a server listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The time limits for detecting an unresponsive server
/// (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES>).
#[derive(Clone, Debug)]
pub(super) struct SocketOptions {
    /// Whether idle connections are probed.
    pub keepalives: bool,
    /// The idle time before the first probe.
    pub idle: Duration,
    /// The time between two probes.
    pub interval: Duration,
    /// The number of unanswered probes after which a connection is lost.
    pub count: u32,
    /// The maximum time that data may stay unacknowledged; zero selects the system's default.
    pub user_timeout: Duration,
}

impl Default for SocketOptions {
    /// Detects the loss of a server within 20 seconds.
    fn default() -> Self {
        Self {
            keepalives: true,
            idle: Duration::from_secs(10),
            interval: Duration::from_secs(3),
            count: 3,
            user_timeout: Duration::from_secs(10),
        }
    }
}

impl SocketOptions {
    pub async fn connect_tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        if self.keepalives {
            let keepalive = TcpKeepalive::new().with_time(self.idle).with_interval(self.interval);
            socket.set_tcp_keepalive(&keepalive.with_retries(self.count))?;
        }
        #[cfg(target_os = "linux")]
        if !self.user_timeout.is_zero() {
            socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        }
        Ok(stream)
    }
}

pub(super) async fn connect_unix(path: &PathBuf) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}
