//! A TCP proxy between a role and an engine, which can be cut.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    /// Nothing gets through, and nobody is told: connections stay, and wait.
    Silent,
    /// Connections are closed, and new ones too.
    Severed,
}

/// A proxy; it ends with its runtime.
#[derive(Clone)]
pub struct Proxy {
    line: Arc<watch::Sender<Line>>,
}

impl Proxy {
    /// Forwards from a port of this machine, 0 for any, to `engine`; also the port.
    pub async fn start(port: u16, engine: SocketAddr) -> (Self, u16) {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, line) = watch::channel(Line::Open);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(forward(client, engine, line.clone()));
            }
        });
        (Self { line: Arc::new(sender) }, port)
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn forward(client: TcpStream, engine: SocketAddr, mut line: watch::Receiver<Line>) {
    if *line.wait_for(|line| *line != Line::Silent).await.unwrap() == Line::Severed {
        return;
    }
    let Ok(engine) = TcpStream::connect(engine).await else { return };
    for stream in [&client, &engine] {
        stream.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.into_split();
    let (from_engine, to_engine) = engine.into_split();
    let mut severed = line.clone();
    tokio::select! {
        _ = severed.wait_for(|line| *line == Line::Severed) => {}
        () = pump(from_client, to_engine, line.clone()) => {}
        () = pump(from_engine, to_client, line) => {}
    }
}

/// Until either side closes.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<Line>) {
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
