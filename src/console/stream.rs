//! Sends the events of the page to a client.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Bytes;
use futures::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::event_log::Next;
use super::state::Console;

/// The time after which a comment is sent, so that a client and the proxies before it notice a lost connection.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A client and how far it has read.
struct Client {
    console: Arc<Console>,
    /// The number of the last event that was sent; `None` when a snapshot is due.
    last: Option<u64>,
    latest: watch::Receiver<u64>,
    shutdown: CancellationToken,
    /// Limits the number of clients.
    _permit: OwnedSemaphorePermit,
}

/// Returns the events after the one that the client names, and a snapshot if it names none or one that is not retained.
/// Nothing is queued for a client: it takes the next event from the log when it has read the one before.
pub fn events(
    console: Arc<Console>,
    last_event_id: Option<&str>,
    permit: OwnedSemaphorePermit,
    shutdown: CancellationToken,
) -> impl Stream<Item = Bytes> + use<> {
    let last = last_event_id.and_then(|id| console.log.number_of(id));
    let latest = console.log.watch();
    let client = Client { console, last, latest, shutdown, _permit: permit };
    stream::unfold(client, |mut client| async move {
        let event = client.next().await?;
        Some((event, client))
    })
}

impl Client {
    /// Waits for the next event. Returns `None` at shutdown.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let next = self.last.map_or(Next::Unknown, |last| self.console.log.after(last));
            match next {
                Next::Event(event) => {
                    self.last = self.last.map(|last| last + 1);
                    return Some(event);
                }
                Next::Unknown => {
                    let (number, snapshot) = self.console.snapshot();
                    self.last = Some(number);
                    return Some(snapshot);
                }
                Next::Nothing => {}
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                changed = self.latest.changed() => changed.ok()?,
                () = tokio::time::sleep(HEARTBEAT) => return Some(Bytes::from_static(b": nothing changed\n\n")),
            }
        }
    }
}
