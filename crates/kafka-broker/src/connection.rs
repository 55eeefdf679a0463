//! Serves one client's connection: reads frames, decodes headers, and calls the handler of the API.
//!
//! Requests are handled one after the other, as Apache Kafka does. So responses keep their order, and TCP slows down a
//! client that sends faster than it is served.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{self, Api};
use crate::call::{Call, HandlerResult, encode};
use crate::client::Client;
use crate::shared::Shared;
use crate::unserved::Request;

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
    let client = Arc::new(Client::new(peer.ip()));
    let mut buffer = BytesMut::new();
    while let Some(frame) = read_frame(&mut stream, &mut buffer).await? {
        if let Some(response) = handle(shared, frame, &client).await? {
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
async fn handle(shared: &Shared, frame: Bytes, client: &Arc<Client>) -> HandlerResult {
    let mut rest = frame.clone();
    let key = rest.try_get_i16()?;
    let version = rest.try_get_i16()?;
    let correlation_id = rest.try_get_i32()?;
    let api = ApiKey::try_from(key).ok().and_then(Api::find);
    let Some(api) = api.filter(|api| api.serves(version)) else {
        if key == ApiKey::ApiVersions as i16 {
            return encode(correlation_id, 0, &api::unsupported_version()).map(Some);
        }
        shared.unserved.log(client, &Request { key, version, rest }, api.map(Api::versions));
        bail!("API key {key} is not served at version {version}");
    };
    let key = api.key();
    let mut body = frame;
    let header = RequestHeader::decode(&mut body, key.request_header_version(version))?;
    let call = Call::new(header, client, body);
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
        let shared = Shared::new(Core::temporary().unwrap(), (Ipv4Addr::LOCALHOST, 0).into());
        let client = Arc::new(Client::new(Ipv4Addr::LOCALHOST.into()));
        let introduction = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("kafka-python"))
            .with_client_software_version(StrBytes::from_static_str("2.0.2"));
        let mut body = BytesMut::new();
        introduction.encode(&mut body, 3).unwrap();
        let introduction = request(ApiKey::ApiVersions as i16, 3, &body);
        assert!(handle(&shared, introduction, &client).await.unwrap().is_some());
        for _ in 0..3 {
            for (key, version) in [(ApiKey::Fetch as i16, 3), (ApiKey::Vote as i16, 0), (1000, 1)] {
                assert!(handle(&shared, request(key, version, &[]), &client).await.is_err());
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
