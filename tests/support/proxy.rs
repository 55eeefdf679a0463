//! A TCP proxy between a role and an engine, which can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    /// Nothing gets through and neither side is told: connections stay, and what was sent arrives later.
    Silent,
    /// Every packet is dropped, those that would end a connection included: the connections of this time stay open at
    /// both ends, and nothing gets through them ever again.
    Lost,
    /// Connections are closed, and new ones too.
    Severed,
}

/// A proxy; it ends with its runtime.
#[derive(Clone)]
pub struct Proxy {
    line: Arc<watch::Sender<Line>>,
    accepted: Arc<AtomicUsize>,
}

impl Proxy {
    /// Forwards from a port of this machine, 0 for any, to `engine`; also returns the port.
    pub async fn start(port: u16, engine: SocketAddr) -> (Self, u16) {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, line) = watch::channel(Line::Open);
        let accepted = Arc::new(AtomicUsize::new(0));
        let proxy = Self { line: Arc::new(sender), accepted: Arc::clone(&accepted) };
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(forward(client, engine, line.clone()));
            }
        });
        (proxy, port)
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// Returns the number of connections that were made to it.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn forward(mut client: TcpStream, engine: SocketAddr, mut line: watch::Receiver<Line>) {
    // Without its sender the proxy has ended.
    let now = line.wait_for(|line| *line != Line::Silent).await.map_or(Line::Severed, |line| *line);
    match now {
        Line::Severed => return,
        Line::Lost => return swallow(&mut client).await,
        Line::Open | Line::Silent => {}
    }
    let Ok(mut engine) = TcpStream::connect(engine).await else { return };
    for stream in [&client, &engine] {
        stream.set_nodelay(true).unwrap();
    }
    let lost = {
        let (from_client, to_client) = client.split();
        let (from_engine, to_engine) = engine.split();
        let mut cut = line.clone();
        tokio::select! {
            cut = cut.wait_for(|line| matches!(line, Line::Severed | Line::Lost)) => cut.is_ok_and(|line| *line == Line::Lost),
            () = pump(from_client, to_engine, line.clone()) => false,
            () = pump(from_engine, to_client, line) => false,
        }
    };
    if lost {
        tokio::join!(swallow(&mut client), swallow(&mut engine));
    }
}

/// Reads until the other side closes, and answers nothing.
async fn swallow(stream: &mut TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

/// Until either side closes.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut line: watch::Receiver<Line>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if line.wait_for(|line| *line != Line::Silent).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
