//! Pairs a request with what its response needs: version, correlation id, and the wire format.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use crate::client::{Client, shortened};
use crate::guard::{self, TooManyFields};
use crate::memory::{Memory, Room};

/// Bytes of the large responses to fetches that are not written yet.
pub const FETCH_MEMORY: usize = 128 * 1024 * 1024;
/// Bytes of the other large responses that are not written yet. They do not wait for room, so fetches cannot take it.
pub const RESPONSE_MEMORY: usize = 32 * 1024 * 1024;
/// Limits a response, in bytes. Apache Kafka's limit is 2 GiB.
const MAX_RESPONSE: usize = FETCH_MEMORY;

/// Holds the response to send, if any. An error closes the connection.
pub type HandlerResult = Result<Option<Response>>;

/// Holds the frame of a response, and its room among the large responses if it is one.
#[derive(Debug)]
pub struct Response {
    pub frame: Bytes,
    pub room: Room,
}

/// Holds a request whose header is decoded and whose body is not.
pub struct Call {
    pub version: i16,
    pub client_id: String,
    /// A slash and the IP address, as DescribeGroups reports it.
    pub client_host: String,
    pub client: Arc<Client>,
    api_key: i16,
    correlation_id: i32,
    body: Mutex<Option<Body>>,
    responses: Memory,
}

/// Holds the bytes of a request body, and its room among the large requests if it is one.
pub struct Body {
    pub bytes: Bytes,
    pub room: Room,
}

impl Call {
    /// Pairs a header with its body. The response takes room in `responses`.
    pub fn new(header: RequestHeader, client: &Arc<Client>, body: Body, responses: &Memory) -> Self {
        Self {
            version: header.request_api_version,
            client_id: header.client_id.map(|id| id.to_string()).unwrap_or_default(),
            client_host: format!("/{}", client.address),
            client: Arc::clone(client),
            api_key: header.request_api_key,
            correlation_id: header.correlation_id,
            body: Mutex::new(Some(body)),
            responses: responses.clone(),
        }
    }

    /// Decodes the body.
    pub fn request<R: Decodable>(&self) -> Result<R> {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let body = &body.as_ref().context("the body was released")?.bytes;
        let decoded = guard::decode_request(body, self.api_key, self.version);
        decoded.inspect_err(|error| {
            if error.is::<TooManyFields>() {
                let (client, client_id) = (self.client.address, shortened(&self.client_id));
                tracing::warn!(%client, ?client_id, %error, "refusing a request, closing its connection");
            }
        })
    }

    /// Returns whether the request has room among the large requests.
    pub fn is_large(&self) -> bool {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        body.as_ref().is_some_and(|body| body.room.bytes() > 0)
    }

    /// Frees the body and its room among the large requests, before a wait for other clients. The caller must hold nothing
    /// of the decoded request, as strings and bytes are slices of the body.
    pub fn release(&self) {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Encodes the response in the version of the request.
    pub fn respond<R: Encodable + HeaderVersion>(&self, response: &R) -> HandlerResult {
        self.respond_within(&self.responses, Room::default(), response)
    }

    /// Encodes a response whose largest part has its room in `memory` already.
    ///
    /// # Errors
    /// When the response is too large, or when responses that other clients do not read leave no room for it.
    pub fn respond_within<R: Encodable + HeaderVersion>(
        &self,
        memory: &Memory,
        mut room: Room,
        response: &R,
    ) -> HandlerResult {
        let size = size(self.version, response)?;
        if !memory.extend(&mut room, size) {
            let client = self.client.address;
            tracing::warn!(%client, size, "responses that others do not read take all memory, closing a connection");
            bail!("no room for a response of {size} bytes");
        }
        Ok(Some(Response { frame: encode(self.correlation_id, self.version, response)?, room }))
    }
}

/// Returns the size of a response with its header.
fn size<R: Encodable + HeaderVersion>(version: i16, response: &R) -> Result<usize> {
    let header = ResponseHeader::default().compute_size(R::header_version(version))?;
    let size = header + response.compute_size(version)?;
    ensure!(size <= MAX_RESPONSE, "the response has {size} bytes, more than {MAX_RESPONSE}");
    Ok(size)
}

/// Encodes a response as a frame with its length and header.
pub fn encode<R: Encodable + HeaderVersion>(
    correlation_id: i32,
    version: i16,
    response: &R,
) -> Result<Bytes> {
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    let size = size(version, response)?;
    let mut out = BytesMut::with_capacity(size_of::<i32>() + size);
    out.put_i32(size.try_into()?);
    header.encode(&mut out, R::header_version(version))?;
    response.encode(&mut out, version)?;
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::SyncGroupResponse;

    use super::*;

    #[test]
    fn a_response_above_the_limit_is_an_error() {
        let of = |size| SyncGroupResponse::default().with_assignment(Bytes::from(vec![0; size]));
        assert!(encode(0, 5, &of(MAX_RESPONSE / 2)).is_ok());
        assert!(encode(0, 5, &of(MAX_RESPONSE)).is_err());
    }
}
