//! Reads and writes the frames of the Kafka protocol, for proxies that change some of them.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

pub async fn read_frame(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    let mut frame = vec![0; length as usize];
    from.read_exact(&mut frame).await.ok()?;
    Some(frame)
}

pub async fn write_frame(to: &mut OwnedWriteHalf, frame: &[u8]) -> Option<()> {
    to.write_u32(u32::try_from(frame.len()).unwrap()).await.ok()?;
    to.write_all(frame).await.ok()
}

/// Replaces the port of a broker on 127.0.0.1 wherever a response contains its address.
pub fn rename_port(frame: &mut [u8], from: u16, to: u16) {
    let address = |port: u16| [b"127.0.0.1".as_slice(), &i32::from(port).to_be_bytes()].concat();
    let (named, renamed) = (address(from), address(to));
    for at in 0..frame.len().saturating_sub(named.len() - 1) {
        if frame[at..].starts_with(&named) {
            frame[at..at + named.len()].copy_from_slice(&renamed);
        }
    }
}
