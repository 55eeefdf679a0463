//! The HTTP server: listens, serves, and shuts down gracefully.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig};
use actix_web::{App, HttpServer as ActixServer};
use anyhow::{Context as _, bail};
use futures::future::{join_all, try_join_all};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::args::{HttpArgs, Port};
use super::body::BodyRoom;
use super::connections::Connections;
use super::health::{Disclosure, Health, healthz, readyz};
use super::listener::Listener;
use super::metrics::{HttpMetrics, measure, show};
use super::problem::Problem;
use super::problem_type::ProblemType;
use super::routes::readable;

/// The number of worker threads; each serves many connections.
const SERVING_THREADS: usize = 2;
/// The maximum number of concurrent connections of the port for health and metrics.
const ADMIN_CONNECTIONS: usize = 64;

/// The listening sockets of a role, which do not accept connections yet.
pub struct HttpServer {
    listener: Listener,
    /// What the readiness on `listener` discloses; `None` when it serves neither health nor metrics.
    probes: Option<Disclosure>,
    /// Serves only health and metrics.
    admin: Option<Listener>,
    max_connections: usize,
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
        Ok(Self { listener, probes, admin, max_connections: args.max_connections() })
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
        let Self { listener, probes, admin, max_connections } = self;
        let site = Site {
            metrics: HttpMetrics::register(&mut registry),
            registry: Arc::new(registry),
            health,
            room: BodyRoom::new(),
            connections: Connections::new(),
            grace,
        };
        let mut servers = vec![site.start(listener, max_connections, probes, routes)?];
        if let Some(listener) = admin {
            tracing::info!(address = %listener.address, "health and metrics have an address of their own");
            servers.push(site.start(listener, ADMIN_CONNECTIONS, Some(Disclosure::Whole), |_| {})?);
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
    room: BodyRoom,
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
        routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
    ) -> anyhow::Result<Server> {
        let metrics = web::Data::new(self.metrics.clone());
        let registry = web::Data::new(Arc::clone(&self.registry));
        let state = web::Data::from(Arc::clone(&self.health));
        let room = self.room.clone();
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
                .wrap(from_fn(measure))
                .app_data(metrics.clone())
                .app_data(registry.clone())
                .app_data(state.clone())
                .app_data(room.clone())
                .app_data(web::QueryConfig::default().error_handler(|error, _| {
                    let detail = format!("cannot read the query: {error}");
                    Problem::new(&ProblemType::MALFORMED_REQUEST, detail).into()
                }))
                .configure(probes)
                .configure(routes.clone())
                .default_service(web::to(async || Err::<String, _>(Problem::not_found())))
        };
        let threads = SERVING_THREADS.min(max_connections);
        let server = ActixServer::new(app)
            .workers(threads)
            .max_connections(max_connections / threads)
            .on_connect(move |stream, data| connections.add(stream, data))
            .disable_signals()
            .shutdown_timeout(self.grace.as_secs())
            .listen(listener.socket)
            .context("cannot serve HTTP")?;
        Ok(server.run())
    }
}
