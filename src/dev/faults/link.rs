//! A TCP link in front of an embedded server, which can stall or refuse its clients.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The maximum number of connections. Further clients wait to be connected.
const MAX_CONNECTIONS: usize = 1_024;
const BUFFER_BYTES: usize = 16 * 1_024;
/// The pause after a connection could not be accepted, mostly for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a link does with data and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Pass,
    /// Connections stay open, but nothing flows.
    Stall,
    /// Resets all connections, and every new one.
    Refuse,
}

/// The links in front of the embedded servers.
pub struct Links {
    pub broker: Link,
    pub registry: Link,
}

/// A link, which forwards connections to `target`.
pub struct Link {
    listener: TcpListener,
    target: SocketAddr,
    flow: watch::Sender<Flow>,
}

impl Link {
    pub fn new(listener: TcpListener, target: SocketAddr) -> Self {
        Self { listener, target, flow: watch::Sender::new(Flow::Pass) }
    }

    /// Returns the sender that changes the flow.
    pub fn flow(&self) -> watch::Sender<Flow> {
        self.flow.clone()
    }

    /// Forwards connections until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((client, _)) => {
                        connections.spawn(serve(client, self.target, self.flow.subscribe()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection, will retry");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// Forwards one connection until both sides have closed it, one fails, or the link refuses.
async fn serve(mut client: TcpStream, target: SocketAddr, flow: watch::Receiver<Flow>) {
    let mut refusing = flow.clone();
    tokio::select! {
        biased;
        _ = refusing.wait_for(|flow| *flow == Flow::Refuse) => reset(&client),
        forwarded = forward(&mut client, target, flow) => if forwarded.is_err() {
            reset(&client);
        },
    }
}

/// Makes the close of the connection a reset, so that its client does not take it for an orderly end.
fn reset(client: &TcpStream) {
    // A connection that fails already is closed either way.
    let _ = SockRef::from(client).set_linger(Some(Duration::ZERO));
}

async fn forward(client: &mut TcpStream, target: SocketAddr, flow: watch::Receiver<Flow>) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let requests = copy(from_client, to_server, flow.clone());
    let responses = copy(from_server, to_client, flow);
    tokio::try_join!(requests, responses)?;
    Ok(())
}

async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut flow: watch::Receiver<Flow>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        // The link ends only with the process.
        flow.wait_for(|flow| *flow == Flow::Pass).await.map_err(io::Error::other)?;
        match buffer.get(..count).filter(|read| !read.is_empty()) {
            Some(read) => to.write_all(read).await?,
            None => return to.shutdown().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a server that returns what it receives, and a link to it.
    async fn echo() -> (SocketAddr, watch::Sender<Flow>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let link = Link::new(listener, target);
        let flow = link.flow();
        tokio::spawn(link.run(CancellationToken::new()));
        (address, flow)
    }

    async fn exchange(stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(b"text").await?;
        let mut text = [0; 4];
        stream.read_exact(&mut text).await?;
        assert_eq!(&text, b"text");
        Ok(())
    }

    #[tokio::test]
    async fn a_stall_delays_data_without_closing_connections() {
        let (address, flow) = echo().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        exchange(&mut stream).await.unwrap();
        flow.send_replace(Flow::Stall);
        let mut exchanged = Box::pin(exchange(&mut stream));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut exchanged).await.is_err());
        flow.send_replace(Flow::Pass);
        exchanged.await.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_resets_old_and_new_connections_until_it_ends() {
        let (address, flow) = echo().await;
        let mut old = TcpStream::connect(address).await.unwrap();
        exchange(&mut old).await.unwrap();
        flow.send_replace(Flow::Refuse);
        let reset = old.read_u8().await.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        let refused = async {
            let mut new = TcpStream::connect(address).await?;
            exchange(&mut new).await
        };
        assert!(refused.await.is_err());
        flow.send_replace(Flow::Pass);
        exchange(&mut TcpStream::connect(address).await.unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn each_direction_can_be_closed_by_itself() {
        let (address, _flow) = echo().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"text").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"text");
    }
}
