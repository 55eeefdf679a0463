//! Drives a connection in a task until it is dropped, cancelled or lost.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_postgres::{CancelToken, Connection, NoTls};

use super::postgres_error::chain;
use super::route::Route;

/// The time for a connection to terminate gracefully or to cancel its statement before its socket is closed.
const PARTING: Duration = Duration::from_secs(1);

/// The owner's handle of the task. The task ends within [`PARTING`] after the handle is dropped.
pub(super) struct Driver {
    /// Ends the task. Sending a request cancels the running statement first; dropping the sender does not.
    end: Option<oneshot::Sender<CancelRequest>>,
    ended: Arc<OnceLock<String>>,
}

impl Driver {
    /// Starts the task on the current runtime.
    pub fn spawn<S, T>(connection: Connection<S, T>) -> Self
    where
        S: super::socket::Stream + 'static,
        T: super::socket::Stream + 'static,
    {
        let (end, requested) = oneshot::channel();
        let ended = Arc::new(OnceLock::new());
        tokio::spawn(drive(connection, requested, Ended(Arc::clone(&ended))));
        Self { end: Some(end), ended }
    }

    /// Returns the reason why the connection ended, if it has.
    pub fn end(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }

    /// Cancels the running statement and closes the connection.
    pub fn cancel(&mut self, request: CancelRequest) {
        if let Some(end) = self.end.take() {
            // A task that has ended has no statement to cancel, so the result is ignored.
            _ = end.send(request);
        }
    }
}

/// Records the end of the task, even when the task panics or is aborted.
struct Ended(Arc<OnceLock<String>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.get_or_init(|| "its task ended".to_owned());
    }
}

async fn drive<S, T>(connection: Connection<S, T>, requested: oneshot::Receiver<CancelRequest>, ended: Ended)
where
    S: super::socket::Stream,
    T: super::socket::Stream,
{
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = &mut connection => {
            let reason = result.map_or_else(|error| chain(&error), |()| "it was closed".to_owned());
            ended.0.get_or_init(|| reason);
        }
        request = requested => match request {
            // Keeps the socket open meanwhile. Otherwise a pooler could give the session to another client, whose
            // statement the request would then cancel.
            Ok(request) => _ = timeout(PARTING, request.send()).await,
            // The client is dropped as well, so the connection sends the Terminate message and closes the socket.
            Err(_) => _ = timeout(PARTING, connection).await,
        },
    }
}

/// A request to cancel the statement that a connection runs.
pub(super) struct CancelRequest {
    pub route: Route,
    pub token: CancelToken,
}

impl CancelRequest {
    /// Sends the request over a separate connection and waits until the server has processed it. The request is best
    /// effort: the server's `statement_timeout` ends the statement as well.
    async fn send(self) {
        let Ok((mut stream, _)) = self.route.stream().await else { return };
        if self.token.cancel_query_raw(&mut stream, NoTls).await.is_ok() {
            // The server closes the connection after it has signalled.
            _ = stream.read_u8().await;
        }
    }
}
