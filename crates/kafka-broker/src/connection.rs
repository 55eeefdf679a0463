//! One client's connection: frames, headers, and which API a request goes to.
//!
//! Requests are handled one after the other, as Apache Kafka does, so answers keep their order and a
//! client that sends faster than it is served is held back by TCP.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::api::{admin, configs, fetch, groups, metadata, offsets, produce, transactions};
use super::{Shared, guard};

/// `socket.request.max.bytes`
const MAX_REQUEST: usize = 100 * 1024 * 1024;
/// Memory is taken as the bytes arrive, not as the length says.
const READ_AHEAD: usize = 256 * 1024;

/// What is served: key, lowest and highest version.
pub const APIS: [(ApiKey, i16, i16); 23] = [
    (ApiKey::Produce, 3, 8),
    (ApiKey::Fetch, 4, 11),
    (ApiKey::ListOffsets, 1, 6),
    (ApiKey::Metadata, 0, 9),
    (ApiKey::OffsetCommit, 2, 7),
    (ApiKey::OffsetFetch, 1, 7),
    (ApiKey::FindCoordinator, 0, 3),
    (ApiKey::JoinGroup, 0, 5),
    (ApiKey::Heartbeat, 0, 3),
    (ApiKey::LeaveGroup, 0, 3),
    (ApiKey::SyncGroup, 0, 3),
    (ApiKey::DescribeGroups, 0, 4),
    (ApiKey::ListGroups, 0, 4),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 6),
    (ApiKey::DeleteTopics, 1, 5),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::AddPartitionsToTxn, 0, 2),
    (ApiKey::AddOffsetsToTxn, 0, 2),
    (ApiKey::EndTxn, 0, 2),
    (ApiKey::TxnOffsetCommit, 0, 3),
    (ApiKey::DescribeConfigs, 1, 3),
    (ApiKey::CreatePartitions, 0, 2),
];

pub async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let shutdown = shared.shutdown.clone();
    let ended = shutdown.run_until_cancelled(converse(&shared, stream, peer));
    if let Some(Err(error)) = ended.await {
        tracing::debug!(%peer, error = format!("{error:#}"), "closed a connection");
    }
}

async fn converse(shared: &Shared, mut stream: TcpStream, peer: SocketAddr) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::new();
    while let Some(frame) = read_frame(&mut stream, &mut buffer).await? {
        if let Some(answer) = handle(shared, frame, peer).await? {
            stream.write_all(&answer).await?;
        }
    }
    Ok(())
}

/// The next request without its length; nothing when the client has closed between two.
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

/// An error closes the connection, as Apache Kafka does on what it cannot read or does not serve.
async fn handle(shared: &Shared, frame: Bytes, peer: SocketAddr) -> Result<Option<Bytes>> {
    let mut start = frame.clone();
    let key = start.try_get_i16()?;
    let version = start.try_get_i16()?;
    let correlation_id = start.try_get_i32()?;
    let api = ApiKey::try_from(key).map_err(|()| anyhow!("unknown API key {key}"))?;
    let served = APIS.iter().find(|(served, ..)| *served == api);
    let (_, lowest, highest) = served.with_context(|| format!("{api:?} is not served"))?;
    if !(*lowest..=*highest).contains(&version) {
        if api == ApiKey::ApiVersions {
            return encode(correlation_id, 0, &metadata::unsupported_version());
        }
        bail!("{api:?} is not served at version {version}");
    }
    let mut body = frame;
    let header = RequestHeader::decode(&mut body, api.request_header_version(version))?;
    let call = Call {
        version,
        correlation_id,
        client_id: header.client_id.map(|id| id.to_string()).unwrap_or_default(),
        client_host: format!("/{}", peer.ip()),
        body,
    };
    dispatch(shared, api, call).await.with_context(|| format!("{api:?} version {version}"))
}

async fn dispatch(shared: &Shared, api: ApiKey, call: Call) -> Result<Option<Bytes>> {
    let version = call.version;
    match api {
        ApiKey::Produce => match produce::produce(shared, call.request()?, version)? {
            Some(response) => call.answer(&response),
            None => Ok(None),
        },
        ApiKey::Fetch => call.answer(&fetch::fetch(shared, call.request()?).await?),
        ApiKey::ListOffsets => call.answer(&offsets::list_offsets(shared, call.request()?, version).await?),
        ApiKey::Metadata => call.answer(&metadata::metadata(shared, call.request()?, version)),
        ApiKey::OffsetCommit => call.answer(&offsets::commit(shared, call.request()?)),
        ApiKey::OffsetFetch => call.answer(&offsets::fetch(shared, call.request()?)),
        ApiKey::FindCoordinator => call.answer(&metadata::find_coordinator(shared, call.request()?)),
        ApiKey::JoinGroup => call.answer(&groups::join(shared, call.request()?, &call).await),
        ApiKey::Heartbeat => call.answer(&groups::heartbeat(shared, call.request()?)),
        ApiKey::LeaveGroup => call.answer(&groups::leave(shared, call.request()?, version)),
        ApiKey::SyncGroup => call.answer(&groups::sync(shared, call.request()?).await),
        ApiKey::DescribeGroups => call.answer(&groups::describe(shared, call.request()?)),
        ApiKey::ListGroups => call.answer(&groups::list(shared, call.request()?)),
        ApiKey::ApiVersions => call.answer(&metadata::api_versions()),
        ApiKey::CreateTopics => call.answer(&admin::create_topics(shared, call.request()?)),
        ApiKey::DeleteTopics => call.answer(&admin::delete_topics(shared, call.request()?)),
        ApiKey::CreatePartitions => call.answer(&admin::create_partitions(shared, call.request()?)),
        ApiKey::DescribeConfigs => call.answer(&configs::describe(shared, call.request()?)),
        ApiKey::InitProducerId => {
            call.answer(&transactions::init_producer_id(shared, call.request()?, version))
        }
        ApiKey::AddPartitionsToTxn => {
            call.answer(&transactions::add_partitions(shared, call.request()?, version))
        }
        ApiKey::AddOffsetsToTxn => call.answer(&transactions::add_offsets(shared, call.request()?, version)),
        ApiKey::TxnOffsetCommit => call.answer(&transactions::commit_offsets(shared, call.request()?)),
        ApiKey::EndTxn => call.answer(&transactions::end(shared, call.request()?, version)),
        _ => bail!("{api:?} is in the list of APIs but not served"),
    }
}

/// A request whose header is read.
pub struct Call {
    pub version: i16,
    pub client_id: String,
    pub client_host: String,
    correlation_id: i32,
    body: Bytes,
}

impl Call {
    fn request<R: Decodable>(&self) -> Result<R> {
        guard::decode(&self.body, self.version)
    }

    fn answer<R: Encodable + HeaderVersion>(&self, response: &R) -> Result<Option<Bytes>> {
        encode(self.correlation_id, self.version, response)
    }
}

fn encode<R: Encodable + HeaderVersion>(
    correlation_id: i32,
    version: i16,
    response: &R,
) -> Result<Option<Bytes>> {
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    let header_version = R::header_version(version);
    let size = header.compute_size(header_version)? + response.compute_size(version)?;
    let mut out = BytesMut::with_capacity(size_of::<i32>() + size);
    out.put_i32(size.try_into()?);
    header.encode(&mut out, header_version)?;
    response.encode(&mut out, version)?;
    Ok(Some(out.freeze()))
}
