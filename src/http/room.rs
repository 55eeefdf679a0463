//! Bounds the memory for the bodies of requests and responses, which a client fills or empties as slowly as it likes.

use std::convert::Infallible;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::body::{MessageBody, SizedStream};
use actix_web::web::Bytes;
use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use super::problem_type::ProblemType;

/// The maximum size of all bodies in one direction at the same time.
const ROOM_BYTES: usize = 32 * 1024 * 1024;

/// The size of the parts in which a body is sent.
const PART_BYTES: usize = 16 * 1024;

/// The room for the bodies of all connections, in bytes.
#[derive(Clone)]
pub(super) struct Rooms {
    pub(super) arriving: Room,
    leaving: Room,
}

#[derive(Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Rooms {
    pub(super) fn new() -> Self {
        let room = || Room(Arc::new(Semaphore::new(ROOM_BYTES)));
        Self { arriving: room(), leaving: room() }
    }
}

impl Room {
    /// Takes room until the permit is dropped.
    ///
    /// # Errors
    /// Returns a 503 problem when there is none.
    pub(super) fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        u32::try_from(bytes)
            .ok()
            .and_then(|bytes| Arc::clone(&self.0).try_acquire_many_owned(bytes).ok())
            .ok_or_else(|| {
                let detail = "too many bodies are being transferred, retry later";
                Problem::new(&ProblemType::OVERLOADED, detail)
            })
    }
}

/// Returns a body that takes room until it is sent.
///
/// # Errors
/// Returns a 503 problem when there is no room.
pub(super) fn leaving(
    request: &HttpRequest,
    content: impl Into<Bytes>,
) -> Result<impl MessageBody + 'static, Problem> {
    let content = content.into();
    let rooms = request.app_data::<Rooms>().ok_or_else(|| Problem::new(&ProblemType::INTERNAL, ""))?;
    let permit = rooms.leaving.take(content.len())?;
    Ok(in_parts(content, Some(permit)))
}

/// Returns a body that is sent in small parts, so that a connection buffers only one of them. Needs no room when all
/// connections share the content.
pub(super) fn in_parts(content: Bytes, permit: Option<OwnedSemaphorePermit>) -> impl MessageBody + 'static {
    let size = content.len() as u64;
    let parts = stream::unfold((content, permit), |(mut rest, permit)| async move {
        let part = rest.split_to(PART_BYTES.min(rest.len()));
        (!part.is_empty()).then(|| (Ok::<_, Infallible>(part), (rest, permit)))
    });
    SizedStream::new(size, parts)
}
