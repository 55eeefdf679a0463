//! The HTTP server: listens, serves, and shuts down gracefully.

use std::future::ready;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpService;
use actix_server::Server;
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::middleware::{Condition, from_fn};
use actix_web::rt::net::TcpStream;
use actix_web::web::{self, ServiceConfig};
use actix_web::{App, Error};
use anyhow::{Context as _, bail};
use futures::future::{join_all, try_join_all};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::args::{HttpArgs, Port};
use super::client_stream::ClientStream;
use super::connections::Connections;
use super::cors::{CorsOrigins, explain_refusal};
use super::health::{Disclosure, Health, healthz, readyz};
use super::listener::Listener;
use super::metrics::{HttpMetrics, measure, show};
use super::problem::Problem;
use super::problem_type::ProblemType;
use super::room::Rooms;
use super::routes::readable;
use super::upgrade::refuse_upgrade;

/// The number of worker threads; each serves many connections.
const SERVING_THREADS: usize = 2;
/// The maximum number of concurrent connections of the port for health and metrics.
const ADMIN_CONNECTIONS: usize = 64;
/// The time for a client to close its end of a connection.
const DISCONNECT: Duration = Duration::from_secs(1);

/// The listening sockets of a role, which do not accept connections yet.
pub struct HttpServer {
    listener: Listener,
    /// What the readiness on `listener` discloses; `None` when it serves neither health nor metrics.
    probes: Option<Disclosure>,
    /// Serves only health and metrics.
    admin: Option<Listener>,
    max_connections: usize,
    origins: CorsOrigins,
}

impl HttpServer {
    /// Listens on `port`, and on the port for health and metrics, if there is one.
    ///
    /// # Errors
    /// Fails when an address is in use or does not belong to this machine.
    pub fn bind(args: &HttpArgs, port: Port) -> anyhow::Result<Self> {
        let listener = Listener::bind(args.host, port)?;
        let admin = args.admin_port.map(|port| Listener::bind(args.host, port)).transpose()?;
        let probes = if admin.is_none() { Some(Disclosure::Summary) } else { None };
        Ok(Self {
            listener,
            probes,
            admin,
            max_connections: args.max_connections(),
            origins: CorsOrigins::default(),
        })
    }

    /// Lets web pages of other origins use the routes.
    #[must_use]
    pub fn allow_origins(self, origins: CorsOrigins) -> Self {
        Self { origins, ..self }
    }

    /// Listens for a role that needs no HTTP: on the ports that are given, if any.
    ///
    /// # Errors
    /// Fails when an address is in use or does not belong to this machine.
    pub fn bind_given(args: &HttpArgs, port: Option<Port>) -> anyhow::Result<Option<Self>> {
        let server = match (port, args.admin_port) {
            (Some(port), _) => Self::bind(args, port)?,
            (None, Some(port)) => Self {
                listener: Listener::bind(args.host, port)?,
                probes: Some(Disclosure::Whole),
                admin: None,
                max_connections: ADMIN_CONNECTIONS,
                origins: CorsOrigins::default(),
            },
            (None, None) => return Ok(None),
        };
        Ok(Some(server))
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address
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
        let Self { listener, probes, admin, max_connections, origins } = self;
        let site = Site {
            metrics: HttpMetrics::register(&mut registry),
            registry: Arc::new(registry),
            health,
            connections: Connections::new(),
            grace,
        };
        let mut servers = vec![site.start(listener, max_connections, probes, origins, routes)?];
        if let Some(listener) = admin {
            tracing::info!(address = %listener.address, "health and metrics have an address of their own");
            let (probes, origins) = (Some(Disclosure::Whole), CorsOrigins::default());
            servers.push(site.start(listener, ADMIN_CONNECTIONS, probes, origins, |_| {})?);
        }
        let watching = site.connections.watch();
        let handles: Vec<_> = servers.iter().map(Server::handle).collect();
        let mut served = pin!(try_join_all(servers));
        tokio::select! {
            () = watching => bail!("the watch over the connections ended"),
            ended = &mut served => {
                ended.context("cannot serve HTTP")?;
                bail!("the HTTP server ended before shutdown was requested")
            }
            () = shutdown.cancelled() => {
                let stop = join_all(handles.iter().map(|handle| handle.stop(true)));
                let (served, _) = tokio::join!(served, stop);
                served.map(drop).context("cannot serve HTTP")
            }
        }
    }
}

/// What all listeners of a role share.
struct Site {
    metrics: HttpMetrics,
    registry: Arc<Registry>,
    health: Arc<Health>,
    connections: Connections,
    grace: Duration,
}

impl Site {
    /// Starts to serve `routes`, and health and metrics unless `probes` is `None`.
    fn start(
        &self,
        listener: Listener,
        max_connections: usize,
        probes: Option<Disclosure>,
        origins: CorsOrigins,
        routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
    ) -> anyhow::Result<Server> {
        let metrics = web::Data::new(self.metrics.clone());
        let registry = web::Data::new(Arc::clone(&self.registry));
        let state = web::Data::from(Arc::clone(&self.health));
        let rooms = Rooms::new();
        let connections = self.connections.clone();
        let app = move || {
            let probes = |config: &mut ServiceConfig| {
                if let Some(disclosure) = probes {
                    config
                        .app_data(web::Data::new(disclosure))
                        .service(readable("/healthz", healthz))
                        .service(readable("/readyz", readyz))
                        .service(readable("/metrics", show));
                }
            };
            App::new()
                .wrap(from_fn(refuse_upgrade))
                .wrap(Condition::new(origins.exist(), origins.middleware()))
                .wrap(Condition::new(origins.exist(), from_fn(explain_refusal)))
                .wrap(from_fn(measure))
                .app_data(metrics.clone())
                .app_data(registry.clone())
                .app_data(state.clone())
                .app_data(rooms.clone())
                .app_data(web::QueryConfig::default().error_handler(|error, _| {
                    let detail = format!("cannot read the query: {error}");
                    Problem::new(&ProblemType::MALFORMED_REQUEST, detail).into()
                }))
                .configure(probes)
                .configure(routes.clone())
                .default_service(web::to(async || Err::<String, _>(Problem::not_found())))
        };
        let threads = SERVING_THREADS.min(max_connections);
        let server = Server::build()
            .workers(threads)
            .max_concurrent_connections(max_connections / threads)
            .disable_signals()
            .shutdown_timeout(self.grace.as_secs());
        let shutdown = server.graceful_shutdown_signal();
        // As actix-web's own server does, with another type of stream.
        let service = move || {
            let (connections, shutdown) = (connections.clone(), shutdown.clone());
            let app = app().into_factory().map_err(|error: Error| error.error_response());
            let http = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let shutdown = shutdown.clone();
                    async move { shutdown.notified().await }
                })
                .client_disconnect_timeout(DISCONNECT)
                .on_connect_ext(move |stream: &ClientStream, data: &mut _| {
                    connections.add(stream.socket(), data);
                })
                .h1(map_config(app, |()| AppConfig::default()));
            let connected = |stream: TcpStream| {
                let peer = stream.peer_addr().ok();
                ready(Ok((ClientStream::new(stream), peer)))
            };
            fn_service(connected).and_then(http)
        };
        Ok(server.listen("http", listener.socket, service).context("cannot serve HTTP")?.run())
    }
}
