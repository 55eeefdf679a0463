//! Serves one client's connection: reads frames, decodes headers, and calls the handler of the API.
//!
//! Requests are handled one after the other, as Apache Kafka does. So responses keep their order, and TCP slows down a
//! client that sends faster than it is served.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{self, Api};
use crate::call::{Call, HandlerResult, encode};
use crate::shared::Shared;

/// `socket.request.max.bytes`
const MAX_REQUEST: usize = 100 * 1024 * 1024;
/// Memory is allocated as bytes arrive, not by the announced length.
const READ_AHEAD: usize = 256 * 1024;

pub async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let shutdown = shared.shutdown.clone();
    let ended = shutdown.run_until_cancelled(converse(&shared, stream, peer));
    if let Some(Err(error)) = ended.await {
        tracing::debug!(%peer, error = format!("{error:#}"), "request failed, closing the connection");
    }
}

async fn converse(shared: &Shared, mut stream: TcpStream, peer: SocketAddr) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::new();
    while let Some(frame) = read_frame(&mut stream, &mut buffer).await? {
        if let Some(response) = handle(shared, frame, peer).await? {
            stream.write_all(&response).await?;
        }
    }
    Ok(())
}

/// Reads the next request, without its length. Returns `None` when the client has closed the connection between two
/// requests.
async fn read_frame(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<Option<Bytes>> {
    let mut wanted = size_of::<i32>();
    let mut length = None;
    loop {
        if buffer.len() >= wanted {
            match length {
                Some(length) => return Ok(Some(buffer.split_to(length).freeze())),
                None => {
                    let announced = usize::try_from(buffer.get_i32()).unwrap_or(usize::MAX);
                    if announced > MAX_REQUEST {
                        bail!("a request announces more than {MAX_REQUEST} bytes");
                    }
                    length = Some(announced);
                    wanted = announced;
                    continue;
                }
            }
        }
        buffer.reserve((wanted - buffer.len()).clamp(4096, READ_AHEAD));
        if stream.read_buf(buffer).await? == 0 {
            if buffer.is_empty() && length.is_none() {
                return Ok(None);
            }
            bail!("the connection ends within a request");
        }
    }
}

/// Handles one request. An error closes the connection, as Apache Kafka does with a request that it cannot read or does
/// not serve.
async fn handle(shared: &Shared, frame: Bytes, peer: SocketAddr) -> HandlerResult {
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
