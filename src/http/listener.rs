//! Opens the sockets that a role listens on.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};

use super::args::Port;

/// The number of connections that wait until the server accepts them.
const BACKLOG: i32 = 1_024;

/// A listening socket that does not accept connections yet.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) address: SocketAddr,
}

impl Listener {
    /// Listens on `host` and `port`; port 0 selects a free one.
    ///
    /// # Errors
    /// Fails when the address is in use or does not belong to this machine.
    pub(super) fn bind(host: IpAddr, port: Port) -> anyhow::Result<Self> {
        let address = SocketAddr::new(host, port.number());
        listen(address).with_context(|| port.cannot_listen(host))
    }
}

fn listen(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Allows a restart while connections of the last process linger.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let socket = TcpListener::from(socket);
    let address = socket.local_addr()?;
    Ok(Listener { socket, address })
}
