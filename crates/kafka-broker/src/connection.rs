//! Serves one client's connection: reads frames, decodes headers, and calls the handler of the API.
//!
//! Requests are handled one after the other, as Apache Kafka does. So responses keep their order, and TCP slows down a
//! client that sends faster than it is served.
//!
//! Large requests of all connections share [`REQUEST_MEMORY`]: a connection reads one only when there is room for all of
//! it, so that half of a request never waits for another half.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};
use tokio::time::timeout;

use crate::api::{self, Api};
use crate::call::{Call, HandlerResult, encode};
use crate::shared::Shared;

/// `socket.request.max.bytes`
const MAX_REQUEST: usize = 100 * 1024 * 1024;
/// Bytes of the large requests that are read or handled at the same time (`queued.max.request.bytes`).
pub const REQUEST_MEMORY: usize = MAX_REQUEST;
/// A request up to this size does not wait for room, so that no client can delay the heartbeats of another.
const SMALL_REQUEST: usize = 64 * 1024;
const READ_BUFFER: usize = 8 * 1024;

/// Serves the connection until the client or the broker ends it. `slot` is one of the connections that may be open.
pub async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
    let shutdown = shared.shutdown.clone();
    let ended = shutdown.run_until_cancelled(converse(&shared, stream, peer));
    if let Some(Err(error)) = ended.await {
        tracing::debug!(%peer, error = format!("{error:#}"), "request failed, closing the connection");
    }
    drop(slot);
}

async fn converse(shared: &Shared, mut stream: TcpStream, peer: SocketAddr) -> Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::with_capacity(READ_BUFFER, reader);
    while let Some((frame, room)) = read_frame(shared, &mut reader).await? {
        let response = handle(shared, frame, peer).await?;
        drop(room);
        if let Some(response) = response {
            write(shared, &mut writer, response).await?;
        }
    }
    Ok(())
}

/// Reads the next request, without its length. Returns `None` when the client has closed the connection between two
/// requests, or was idle.
async fn read_frame<'a>(
    shared: &'a Shared,
    reader: &mut BufReader<ReadHalf<'_>>,
) -> Result<Option<(Bytes, Option<SemaphorePermit<'a>>)>> {
    let Ok(begun) = timeout(shared.limits.max_idle, reader.fill_buf()).await else { return Ok(None) };
    if begun?.is_empty() {
        return Ok(None);
    }
    let late = "the rest of a request did not arrive in time";
    let length = timeout(shared.limits.request_timeout, reader.read_i32()).await.context(late)??;
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_REQUEST);
    let length = length.with_context(|| format!("a request announces more than {MAX_REQUEST} bytes"))?;
    let room = match length {
        0..=SMALL_REQUEST => None,
        _ => Some(shared.request_memory.acquire_many(length as u32).await?),
    };
    let mut frame = BytesMut::with_capacity(length);
    let mut rest = reader.take(length as u64);
    let read = async {
        while frame.len() < length {
            if rest.read_buf(&mut frame).await? == 0 {
                bail!("the connection ends within a request");
            }
        }
        Ok(())
    };
    timeout(shared.limits.request_timeout, read).await.context(late)??;
    Ok(Some((frame.freeze(), room)))
}

async fn write(shared: &Shared, writer: &mut WriteHalf<'_>, mut response: Bytes) -> Result<()> {
    while response.has_remaining() {
        let written = timeout(shared.limits.max_idle, writer.write_buf(&mut response)).await;
        written.context("the client does not read its response")??;
    }
    Ok(())
}

/// Handles one request. An error closes the connection, as Apache Kafka does with a request that it cannot read or does
/// not serve.
pub async fn handle(shared: &Shared, frame: Bytes, peer: SocketAddr) -> HandlerResult {
    let mut start = frame.clone();
    let key = start.try_get_i16()?;
    let version = start.try_get_i16()?;
    let correlation_id = start.try_get_i32()?;
    let key = ApiKey::try_from(key).map_err(|()| anyhow!("unknown API key {key}"))?;
    let api = Api::find(key).with_context(|| format!("{key:?} is not served"))?;
    if !api.serves(version) {
        if key == ApiKey::ApiVersions {
            return encode(correlation_id, 0, &api::unsupported_version()).map(Some);
        }
        bail!("{key:?} is not served at version {version}");
    }
    let mut body = frame;
    let header = RequestHeader::decode(&mut body, key.request_header_version(version))?;
    let call = Call::new(header, peer.ip(), body);
    api.handle(shared, &call).await.with_context(|| format!("{key:?} version {version}"))
}
