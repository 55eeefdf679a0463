//! A TCP proxy between a role and an engine that can be cut.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::eventually;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    /// Blocks all data without notifying either side: connections stay open and wait.
    Silent,
    /// Closes existing and new connections.
    Severed,
    /// A black hole that drops packets in both directions. Existing connections never work again, as after a lost NAT
    /// entry, and neither side is notified. Later connections work.
    ///
    /// A kernel acknowledges data for a proxy, whether the proxy reads it or not, and answers keepalives. A proxy
    /// that merely stops, or reads and discards, is therefore invisible to both sides: keepalives, user timeouts and
    /// retransmissions see a healthy connection. Here, a socket filter drops the packets before the kernel's TCP
    /// processes them: nothing is acknowledged, a SYN gets no answer, and neither a FIN nor an RST passes.
    Dropped,
}

#[derive(Clone, Copy)]
struct State {
    line: Line,
    /// How often the line became a black hole. Connections from before the last time are dead.
    holes: u64,
}

/// A proxy, which ends with its runtime.
#[derive(Clone)]
pub struct Proxy {
    state: Arc<watch::Sender<State>>,
    accepted: Arc<AtomicUsize>,
}

impl Proxy {
    /// Forwards from a local port, where 0 selects a free one, to `engine`. Also returns the port.
    pub async fn start(port: u16, engine: SocketAddr) -> (Self, u16) {
        // A port of the cluster may be in use by an outgoing connection for a moment.
        let free = async || TcpListener::bind(("127.0.0.1", port)).await.ok();
        let listener = eventually(&format!("port {port} to be free"), free).await;
        let port = listener.local_addr().unwrap().port();
        let (sender, state) = watch::channel(State { line: Line::Open, holes: 0 });
        let accepted = Arc::new(AtomicUsize::new(0));
        tokio::spawn(serve(listener, engine, state, Arc::clone(&accepted)));
        (Self { state: Arc::new(sender), accepted }, port)
    }

    /// Returns the number of connections that were made to the proxy.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    pub fn set(&self, line: Line) {
        self.state.send_modify(|state| {
            state.holes += u64::from(line == Line::Dropped);
            state.line = line;
        });
    }
}

async fn serve(
    listener: TcpListener,
    engine: SocketAddr,
    state: watch::Receiver<State>,
    count: Arc<AtomicUsize>,
) {
    let dead = Arc::new(DeadConnections::default());
    let mut changes = state.clone();
    let mut dropping = false;
    loop {
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                let drops = changes.borrow_and_update().line == Line::Dropped;
                match (dropping, drops) {
                    (false, true) => drop_packets(SockRef::from(&listener)),
                    (true, false) => receive_packets(SockRef::from(&listener)),
                    _ => {}
                }
                dropping = drops;
            }
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let born = state.borrow().holes;
                tokio::spawn(handle(client, engine, born, state.clone(), Arc::clone(&dead)));
            }
        }
    }
}

async fn handle(
    mut client: TcpStream,
    address: SocketAddr,
    born: u64,
    state: watch::Receiver<State>,
    dead: Arc<DeadConnections>,
) {
    let mut hole = state.clone();
    let mut engine = None;
    let lost = tokio::select! {
        biased;
        // Includes a connection that was established just before and accepted only now.
        _ = hole.wait_for(|state| state.holes > born || state.line == Line::Dropped) => true,
        () = forward(&mut client, &mut engine, address, state) => false,
    };
    if lost {
        dead.keep(client, engine);
    }
}

/// Forwards until either side closes or the line is severed.
async fn forward(
    client: &mut TcpStream,
    engine: &mut Option<TcpStream>,
    address: SocketAddr,
    mut state: watch::Receiver<State>,
) {
    if state.wait_for(|state| state.line != Line::Silent).await.unwrap().line == Line::Severed {
        return;
    }
    let Ok(stream) = TcpStream::connect(address).await else { return };
    let engine = engine.insert(stream);
    for stream in [&*client, &*engine] {
        stream.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.split();
    let (from_engine, to_engine) = engine.split();
    let mut severed = state.clone();
    tokio::select! {
        _ = severed.wait_for(|state| state.line == Line::Severed) => {}
        () = pump(from_client, to_engine, state.clone()) => {}
        () = pump(from_engine, to_client, state) => {}
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if state.wait_for(|state| state.line != Line::Silent).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Both ends of connections in a black hole. They stay open because closing one would send a FIN, and no packet from
/// the peers shows when they close their side.
#[derive(Default)]
struct DeadConnections(Mutex<VecDeque<[Option<TcpStream>; 2]>>);

impl DeadConnections {
    /// The maximum number of connections per proxy. The oldest, whose peers gave up long ago, is closed to make room.
    const LIMIT: usize = 100;

    fn keep(&self, client: TcpStream, engine: Option<TcpStream>) {
        let connection = [Some(client), engine];
        connection.iter().flatten().for_each(|stream| drop_packets(SockRef::from(stream)));
        let mut kept = self.0.lock().unwrap();
        kept.push_back(connection);
        if kept.len() > Self::LIMIT {
            kept.pop_front();
        }
    }
}

/// Drops every packet that arrives at a socket before TCP processes it, with a filter that accepts no bytes.
#[cfg(target_os = "linux")]
fn drop_packets(socket: SockRef<'_>) {
    const RETURN_CONSTANT: u16 = 0x06;
    socket.attach_filter(&[socket2::SockFilter::new(RETURN_CONSTANT, 0, 0, 0)]).unwrap();
}

#[cfg(target_os = "linux")]
fn receive_packets(socket: SockRef<'_>) {
    socket.detach_filter().unwrap();
}

/// On other systems, packets are acknowledged but not read.
#[cfg(not(target_os = "linux"))]
fn drop_packets(_: SockRef<'_>) {}

#[cfg(not(target_os = "linux"))]
fn receive_packets(_: SockRef<'_>) {}
