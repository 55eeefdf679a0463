//! The HTTP server: listens, serves, and shuts down gracefully.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig};
use actix_web::{App, HttpRequest};
use anyhow::{Context, bail};
use clap::Args;
use clap::builder::TypedValueParser;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::health::{Health, healthz, readyz};
use super::host::parse_host;
use super::metrics::{HttpMetrics, measure, show};
use super::problem::Problem;
use crate::open_files;

/// The maximum size of a request body.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The number of worker threads; each serves many connections.
const SERVING_THREADS: usize = 2;
/// The maximum number of concurrent connections, regardless of the limit on open files.
const MAX_CONNECTIONS: usize = 50_000;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub struct HttpArgs {
    /// IP address or name of this machine to listen on; 0.0.0.0 for all interfaces
    #[arg(long, env = "HOST", value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = parse_host)]
    pub host: IpAddr,
}

/// A port to listen on.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    number: u16,
    /// The flag by which the user chooses it.
    flag: &'static str,
}

impl Port {
    pub const fn new(number: u16) -> Self {
        Self { number, flag: "--port" }
    }

    /// Parses the port of `--port`.
    pub fn parser() -> impl TypedValueParser<Value = Self> {
        clap::value_parser!(u16).map(Self::new)
    }

    /// Parses the port of another flag.
    pub fn parser_of(flag: &'static str) -> impl TypedValueParser<Value = Self> {
        clap::value_parser!(u16).map(move |number| Self { number, flag })
    }

    pub fn number(self) -> u16 {
        self.number
    }

    /// Returns the context of the error that the port cannot be used on `host`.
    pub fn cannot_listen(self, host: IpAddr) -> String {
        let variable = self.flag.trim_start_matches('-').to_uppercase().replace('-', "_");
        let address = SocketAddr::new(host, self.number);
        format!("cannot listen on {address}; choose another port with {} ({variable})", self.flag)
    }
}

impl Display for Port {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.number.fmt(formatter)
    }
}

/// A listening socket that does not accept connections yet.
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl HttpServer {
    /// Listens on `host` and `port`; port 0 selects a free one.
    ///
    /// # Errors
    /// Fails when the address is in use or does not belong to this machine.
    pub fn bind(host: IpAddr, port: Port) -> anyhow::Result<Self> {
        let bind = || -> std::io::Result<Self> {
            let listener = TcpListener::bind((host, port.number))?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bind().with_context(|| port.cannot_listen(host))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes`, health and metrics until `shutdown`. Then waits at most `grace` for requests in progress.
    ///
    /// # Errors
    /// Fails when the server cannot be set up or ends before `shutdown`.
    pub async fn serve(
        self,
        health: Arc<Health>,
        mut registry: Registry,
        routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
        shutdown: CancellationToken,
        grace: Duration,
    ) -> anyhow::Result<()> {
        let metrics = web::Data::new(HttpMetrics::register(&mut registry));
        let registry = web::Data::new(Arc::new(registry));
        let health = web::Data::from(health);
        let app = move || {
            App::new()
                .wrap(from_fn(measure))
                .app_data(metrics.clone())
                .app_data(registry.clone())
                .app_data(health.clone())
                .app_data(web::PayloadConfig::new(MAX_BODY_BYTES))
                .app_data(web::QueryConfig::default().error_handler(|error, _| {
                    Problem::new(StatusCode::BAD_REQUEST, format!("cannot read the query: {error}")).into()
                }))
                .route("/healthz", web::get().to(healthz))
                .route("/readyz", web::get().to(readyz))
                .route("/metrics", web::get().to(show))
                .configure(routes.clone())
                .default_service(web::to(async || Err::<String, _>(Problem::not_found())))
        };
        let server = actix_web::HttpServer::new(app)
            .workers(SERVING_THREADS)
            .max_connections(max_connections() / SERVING_THREADS)
            .disable_signals()
            .shutdown_timeout(grace.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX))
            .listen(self.listener)
            .context("cannot serve HTTP")?
            .run();
        let handle = server.handle();
        let mut server = pin!(server);
        tokio::select! {
            served = &mut server => {
                served.context("cannot serve HTTP")?;
                bail!("the HTTP server ended before shutdown was requested")
            }
            () = shutdown.cancelled() => {
                let (served, ()) = tokio::join!(server, handle.stop(true));
                served.context("cannot serve HTTP")
            }
        }
    }
}

/// Returns the maximum number of concurrent connections of one server. Further connections wait, so that clients
/// cannot exhaust the files that the role needs for its database and brokers. `dev` runs three servers in one
/// process.
fn max_connections() -> usize {
    usize::try_from(open_files::limit() / 5).unwrap_or(usize::MAX).min(MAX_CONNECTIONS)
}

/// Parses the JSON document in a request.
///
/// # Errors
/// Returns 415 for another content type, 413 for a body of more than 64 KiB, and 400 for malformed JSON.
pub fn json_document(
    request: &HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
) -> Result<Value, Problem> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the Content-Type must be application/json",
        ));
    }
    let body = body.map_err(|error| match error.as_response_error().status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than {MAX_BODY_BYTES} bytes"),
        ),
        _ => Problem::new(StatusCode::BAD_REQUEST, format!("cannot read the body: {error}")),
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}")))
}
