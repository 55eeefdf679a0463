//! Serves one client's connection: reads frames, decodes headers, and calls the handler of the API.
//!
//! Requests are handled one after the other, as Apache Kafka does. So responses keep their order, and TCP slows down a
//! client that sends faster than it is served.
//!
//! Large requests of all connections share [`REQUEST_MEMORY`]: a connection reads one only when there is room for all of
//! it, so that half of a request never waits for another half. Large responses share a memory too, and a connection
//! whose client does not read its response in time is closed. The next request is read after that, so a connection has
//! at most one response that is not written.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::api::{self, Api};
use crate::call::{Body, Call, HandlerResult, Response, encode};
use crate::client::Client;
use crate::memory::Room;
use crate::shared::Shared;
use crate::unserved::Request;

/// `socket.request.max.bytes`
pub const MAX_REQUEST: usize = 100 * 1024 * 1024;
/// Bytes of the large requests that are read or handled at the same time (`queued.max.request.bytes`).
pub const REQUEST_MEMORY: usize = MAX_REQUEST;
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
    let client = Arc::new(Client::new(peer.ip()));
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::with_capacity(READ_BUFFER, reader);
    while let Some((frame, room)) = read_frame(shared, &mut reader).await? {
        let handling = handle(shared, frame, room, &client);
        let response = watch(handling, &mut reader, &client).await?;
        if let Some(response) = response {
            write(shared, &mut writer, response).await?;
        }
    }
    Ok(())
}

/// Runs the handler, and lets it know when the client closes the connection. Only the handler can decide what must be
/// completed nevertheless: a client may close the connection after a Produce without acks.
async fn watch(
    handling: impl Future<Output = HandlerResult>,
    reader: &mut BufReader<ReadHalf<'_>>,
    client: &Client,
) -> HandlerResult {
    let mut handling = pin!(handling);
    tokio::select! {
        biased;
        handled = &mut handling => return handled,
        // The next request stays in the buffer.
        next = reader.fill_buf() => {
            if next.map_or(true, <[u8]>::is_empty) {
                client.closed.cancel();
            }
        }
    }
    handling.await
}

/// Reads the next request, without its length. Returns `None` when the client has closed the connection between two
/// requests, or was idle.
async fn read_frame(shared: &Shared, reader: &mut BufReader<ReadHalf<'_>>) -> Result<Option<(Bytes, Room)>> {
    let Ok(begun) = timeout(shared.limits.max_idle, reader.fill_buf()).await else { return Ok(None) };
    if begun?.is_empty() {
        return Ok(None);
    }
    let late = "the rest of a request did not arrive in time";
    let length = timeout(shared.limits.request_timeout, reader.read_i32()).await.context(late)??;
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_REQUEST);
    let length = length.with_context(|| format!("a request announces more than {MAX_REQUEST} bytes"))?;
    let room = shared.requests.room_for(length, "requests").await?;
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

/// Writes a response, whose room is free afterwards.
async fn write(shared: &Shared, writer: &mut WriteHalf<'_>, response: Response) -> Result<()> {
    let Response { frame, room } = response;
    timeout(shared.limits.response_timeout, writer.write_all(&frame))
        .await
        .context("the client does not read its response")??;
    drop(room);
    Ok(())
}

/// Handles one request. An error closes the connection, as Apache Kafka does with a request that it cannot read or does
/// not serve.
pub async fn handle(shared: &Shared, frame: Bytes, room: Room, client: &Arc<Client>) -> HandlerResult {
    let mut rest = &frame[..];
    let key = rest.try_get_i16()?;
    let version = rest.try_get_i16()?;
    let correlation_id = rest.try_get_i32()?;
    let api = ApiKey::try_from(key).ok().and_then(Api::find);
    let Some(api) = api.filter(|api| api.serves(version)) else {
        if key == ApiKey::ApiVersions as i16 {
            let frame = encode(correlation_id, 0, &api::unsupported_version())?;
            return Ok(Some(Response { frame, room: Room::default() }));
        }
        shared.unserved.log(
            client,
            &Request { key, version, rest: frame.slice_ref(rest) },
            api.map(Api::versions),
        );
        bail!("API key {key} is not served at version {version}");
    };
    let key = api.key();
    let mut bytes = frame;
    let header = RequestHeader::decode(&mut bytes, key.request_header_version(version))?;
    let call = Call::new(header, client, Body { bytes, room }, &shared.responses);
    api.handle(shared, &call).await.with_context(|| format!("{key:?} version {version}"))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::Ipv4Addr;
    use std::sync::Mutex;

    use bytes::BufMut;
    use kafka_protocol::messages::ApiVersionsRequest;
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;
    use crate::core::Core;
    use crate::limits::Limits;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn request(key: i16, version: i16, body: &[u8]) -> Bytes {
        let header = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_client_id(Some(StrBytes::from_static_str("an\nid")));
        let mut request = BytesMut::new();
        header.encode(&mut request, if body.is_empty() { 1 } else { 2 }).unwrap();
        request.put_slice(body);
        request.freeze()
    }

    #[tokio::test]
    async fn a_client_that_sends_what_is_not_served_is_named_in_one_warning() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let _guard = tracing::subscriber::set_default(subscriber.finish());
        let core = Core::temporary(1 << 20).unwrap();
        let shared = Shared::new(core, (Ipv4Addr::LOCALHOST, 0).into(), Limits::default());
        let client = Arc::new(Client::new(Ipv4Addr::LOCALHOST.into()));
        let introduction = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("kafka-python"))
            .with_client_software_version(StrBytes::from_static_str("2.0.2"));
        let mut body = BytesMut::new();
        introduction.encode(&mut body, 3).unwrap();
        let introduction = request(ApiKey::ApiVersions as i16, 3, &body);
        assert!(handle(&shared, introduction, Room::default(), &client).await.unwrap().is_some());
        for _ in 0..3 {
            for (key, version) in [(ApiKey::Fetch as i16, 3), (ApiKey::Vote as i16, 0), (1000, 1)] {
                assert!(handle(&shared, request(key, version, &[]), Room::default(), &client).await.is_err());
            }
        }
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 3, "{log}");
        let expected = [
            r#"api="Fetch" version=3 served="versions 4 to"#,
            r#"api="Vote" version=0 served="none""#,
            r#"api="1000" version=1 served="none""#,
        ];
        for (line, expected) in lines.into_iter().zip(expected) {
            assert!(line.contains("WARN") && line.contains(expected), "{line}");
            let client =
                r#"client=127.0.0.1 client_id="an\nid" software="kafka-python" software_version="2.0.2""#;
            assert!(line.contains(client), "{line}");
        }
    }
}
