//! Reads JSON documents from requests, within bounds of size and time.

use std::future::ready;
use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{Bytes, BytesMut};
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, dev};
use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::problem::Problem;
use super::problem_type::ProblemType;
use super::room::{Room, Rooms};

/// The maximum size of a body.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The time for a body to arrive, from its request's head.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The byte order mark in UTF-8, which a parser may ignore (RFC 8259, section 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The JSON document in the body of a request.
///
/// Extracting it fails with 415 for another media type, charset or content coding, 413 for a body of more than 64 KiB,
/// 408 for a body that does not arrive within 10 s, 503 when too many bodies are arriving, and 400 for malformed JSON.
pub struct JsonDocument(pub Value);

impl FromRequest for JsonDocument {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let Some(room) = request.app_data::<Rooms>().map(|rooms| rooms.arriving.clone()) else {
            return Box::pin(ready(Err(Problem::new(&ProblemType::INTERNAL, ""))));
        };
        if let Err(problem) = check_head(request) {
            return Box::pin(ready(Err(problem)));
        }
        let payload = payload.take();
        Box::pin(async move {
            let body = tokio::time::timeout(BODY_TIMEOUT, read(payload, &room)).await.map_err(|_| {
                let detail = format!("the body did not arrive within {BODY_TIMEOUT:?}");
                Problem::new(&ProblemType::BODY_TIMEOUT, detail)
            })??;
            let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&body);
            serde_json::from_slice(text).map(Self).map_err(|error| {
                Problem::new(&ProblemType::MALFORMED_REQUEST, format!("the body is not JSON: {error}"))
            })
        })
    }
}

fn check_head(request: &HttpRequest) -> Result<(), Problem> {
    check_media_type(request)?;
    let codings = request.headers().get_all(header::CONTENT_ENCODING);
    if !codings.into_iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(unsupported("the body must have no content coding")
            .with_header(header::ACCEPT_ENCODING, "identity"));
    }
    match announced_length(request.headers()) {
        Some(bytes) if bytes > MAX_BODY_BYTES as u64 => Err(too_large()),
        _ => Ok(()),
    }
}

fn check_media_type(request: &HttpRequest) -> Result<(), Problem> {
    if request.headers().get_all(header::CONTENT_TYPE).count() != 1 {
        return Err(unsupported("the request must have exactly one header Content-Type"));
    }
    match request.mime_type() {
        Ok(Some(media_type)) if media_type.essence_str() == "application/json" => {
            match media_type.get_param("charset") {
                Some(charset) if !charset.as_str().eq_ignore_ascii_case("utf-8") => {
                    Err(unsupported("the charset must be utf-8"))
                }
                _ => Ok(()),
            }
        }
        _ => Err(unsupported("the Content-Type must be application/json")),
    }
}

fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body. Only what has arrived takes room, so that clients cannot reserve it by an announcement.
async fn read(mut payload: dev::Payload, room: &Room) -> Result<Bytes, Problem> {
    let mut body = BytesMut::new();
    let mut taken: Option<OwnedSemaphorePermit> = None;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| unreadable(&error))?;
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        let more = room.take(chunk.len())?;
        match &mut taken {
            Some(taken) => taken.merge(more),
            None => taken = Some(more),
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(&ProblemType::UNSUPPORTED_MEDIA_TYPE, detail)
}

fn too_large() -> Problem {
    Problem::new(&ProblemType::BODY_TOO_LARGE, format!("the body has more than {MAX_BODY_BYTES} bytes"))
}

fn unreadable(error: &PayloadError) -> Problem {
    Problem::new(&ProblemType::MALFORMED_REQUEST, format!("cannot read the body: {error}"))
}
