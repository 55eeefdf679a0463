//! Verifies that the proxy's black hole drops packets.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::proxy::{Line, Proxy};

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    address
}

async fn answers(stream: &mut TcpStream) -> bool {
    stream.write_all(b"x").await.unwrap();
    tokio::time::timeout(Duration::from_millis(500), stream.read_u8()).await.is_ok_and(|read| read.is_ok())
}

#[tokio::test]
async fn a_connection_in_a_black_hole_stays_dead_and_later_ones_work() {
    let (proxy, port) = Proxy::start(0, echo().await).await;
    let mut old = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(answers(&mut old).await);

    proxy.set(Line::Dropped);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let connecting = TcpStream::connect(("127.0.0.1", port));
    assert!(
        tokio::time::timeout(Duration::from_millis(500), connecting).await.is_err(),
        "a SYN was answered"
    );
    assert!(!answers(&mut old).await);

    proxy.set(Line::Open);
    let mut new = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(answers(&mut new).await);
    assert!(!answers(&mut old).await);
    // The kernel detects that sent data is not acknowledged.
    SockRef::from(&old).set_tcp_user_timeout(Some(Duration::from_secs(1))).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), old.read_u8()).await;
    assert_eq!(ended.unwrap().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}
