//! Opens connections: tries the servers of an address in turn, negotiates TLS, and authenticates.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::NoTls;
use tokio_util::task::AbortOnDropHandle;

use super::address::{Host, PostgresAddress, Server, Settings};
use super::driver::Driver;
use super::link::Link;
use super::postgres_error::PostgresError;
use super::route::{Encryption, Failure, Route};
use super::session::{Session, SessionKind};
use super::socket::Endpoint;
use super::sqlstate::SqlState;
use super::tap::{ServerReports, Tap};
use super::tls::SslMode;
use crate::database::{DATABASE_TIMEOUT, DatabaseError};

impl PostgresAddress {
    /// Opens a session on the runtime of the address. Dropping the future aborts the attempt.
    pub(super) async fn open(&self, kind: SessionKind) -> Result<Session, DatabaseError> {
        let runtime = self.0.runtime.clone().map_or_else(tokio::runtime::Handle::try_current, Ok);
        let runtime = runtime.map_err(DatabaseError::internal)?;
        let opening = open_any(Arc::clone(&self.0), kind);
        let opened = AbortOnDropHandle::new(runtime.spawn(opening)).await;
        // The task does not panic, so it was cancelled together with its runtime.
        Ok(opened.map_err(DatabaseError::unavailable)??)
    }
}

/// Divides the remaining time evenly among the remaining attempts, so that an unresponsive server leaves time for the
/// others.
#[derive(Clone, Copy)]
struct Budget(Instant);

impl Budget {
    fn share(self, attempts: usize) -> Duration {
        let left = self.0.saturating_duration_since(Instant::now());
        left / u32::try_from(attempts.max(1)).unwrap_or(u32::MAX)
    }
}

/// Tries the servers in turn, within [`DATABASE_TIMEOUT`] in total.
async fn open_any(settings: Arc<Settings>, kind: SessionKind) -> Result<Session, PostgresError> {
    let budget = Budget(Instant::now() + DATABASE_TIMEOUT);
    let mut failures = Vec::new();
    for (index, server) in settings.servers.iter().enumerate() {
        let share = budget.share(settings.servers.len() - index);
        match open_one(&settings, server, share, kind).await {
            Ok(session) => return Ok(session),
            Err(error) => failures.push(error.context(&format!("PostgreSQL at {server}"))),
        }
    }
    Err(PostgresError::join(failures))
}

/// Tries the addresses of one server in turn.
async fn open_one(
    settings: &Arc<Settings>,
    server: &Server,
    limit: Duration,
    kind: SessionKind,
) -> Result<Session, PostgresError> {
    let budget = Budget(Instant::now() + limit);
    let endpoints = match timeout(limit, resolve(server)).await {
        Ok(resolved) => resolved?,
        Err(_) => {
            return Err(PostgresError::unavailable(format!(
                "the host name did not resolve within {limit:?}"
            )));
        }
    };
    let mut failures = Vec::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let share = budget.share(endpoints.len() - index);
        let share = settings.connect_timeout.map_or(share, |limit| limit.min(share));
        let attempt = async {
            let link = connect(settings, server, endpoint).await?;
            Session::begin(link, kind, settings.read_write).await
        };
        match timeout(share, attempt).await {
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(error)) => failures.push(error.while_connecting()),
            Err(_) => failures.push(PostgresError::unavailable(format!("no answer within {share:.1?}"))),
        }
    }
    Err(PostgresError::join(failures))
}

async fn resolve(server: &Server) -> Result<Vec<Endpoint>, PostgresError> {
    match &server.host {
        Host::Unix(directory) => {
            Ok(vec![Endpoint::Unix(directory.join(format!(".s.PGSQL.{}", server.port)))])
        }
        Host::Tcp { address: Some(address), .. } => Ok(vec![Endpoint::Tcp((*address, server.port).into())]),
        Host::Tcp { name, address: None } => {
            let resolved = tokio::net::lookup_host((name.as_str(), server.port)).await;
            let resolved = resolved.map_err(|error| {
                PostgresError::unavailable(format!("the host name does not resolve: {error}"))
            })?;
            Ok(resolved.map(Endpoint::Tcp).collect())
        }
    }
}

/// Connects to one address, with the encryption that libpq would use
/// (<https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION>).
async fn connect(
    settings: &Arc<Settings>,
    server: &Server,
    endpoint: &Endpoint,
) -> Result<Link, PostgresError> {
    let (first, second) = match (settings.tls.mode, endpoint) {
        (SslMode::Disable, _) | (_, Endpoint::Unix(_)) => (Encryption::Never, None),
        (SslMode::Allow, _) => (Encryption::Never, Some(Encryption::Always)),
        (SslMode::Prefer, _) => (Encryption::IfOffered, Some(Encryption::Never)),
        (SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull, _) => (Encryption::Always, None),
    };
    let route = |encryption| Route {
        settings: Arc::clone(settings),
        server: server.clone(),
        endpoint: endpoint.clone(),
        encryption,
    };
    let failure = match authenticate(route(first)).await {
        Ok(link) => return Ok(link),
        Err(failure) => failure,
    };
    match second.filter(|_| failure.depends_on_encryption) {
        None if settings.tls.mode == SslMode::Disable && failure.depends_on_encryption => {
            Err(failure.error.advise("the server may require TLS: sslmode=disable prevents it"))
        }
        None => Err(failure.error),
        Some(second) => match authenticate(route(second)).await {
            Ok(link) => Ok(link),
            Err(again) => Err(PostgresError::join(vec![failure.error, again.error])),
        },
    }
}

async fn authenticate(mut route: Route) -> Result<Link, Failure> {
    let (stream, encrypted) = route.stream_or_failure().await?;
    let requested = route.encryption;
    // Requests to cancel a statement use the same encryption.
    route.encryption = if encrypted { Encryption::Always } else { Encryption::Never };
    let reports = Arc::new(ServerReports::default());
    let tap = Tap::new(stream, Arc::clone(&reports));
    let (client, connection) = route.settings.startup.connect_raw(tap, NoTls).await.map_err(|error| {
        let error = PostgresError::from_driver(&error);
        // No entry of pg_hba.conf matches a connection with this encryption.
        let depends_on_encryption = error.code() == Some(SqlState::INVALID_AUTHORIZATION)
            && (encrypted || requested == Encryption::Never);
        Failure { error, depends_on_encryption }
    })?;
    Ok(Link { client, driver: Driver::spawn(connection), reports, route })
}
