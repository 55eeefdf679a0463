//! Shows the running platform on a web page, as an operator could see it from outside.
//!
//! The sources are the topics, the consumer groups, and the readiness, metrics and lists of the roles. All change one
//! state, and twice a second an event with what changed goes to an event log, from which each page reads at its own
//! pace:
//!
//! ```text
//! records, groups, roles, lists -> state -> event_log -> stream -> page -> api
//! ```

mod api;
mod counts;
mod early;
mod event_log;
mod fault_panel;
mod flight;
mod groups;
mod histogram;
mod history;
mod ledger;
mod letters;
mod lists;
mod records;
mod role_client;
mod roles;
mod state;
mod stream;
mod sweep;
mod tail;
mod traces;
mod vehicle_key;
mod ways;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::ServiceConfig;
use anyhow::{Context as _, anyhow};
use clap::Args;
use clap::builder::BoolishValueParser;
use prometheus_client::registry::Registry;
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use crate::duration::parse_duration;
use crate::http::{AllowedHosts, ApiKeys, HttpArgs, HttpServer, Need, Port};
use crate::kafka::KafkaArgs;
use crate::role::{Part, Role, on_its_own};
use crate::shutdown::ShutdownArgs;
use api::Api;
pub use fault_panel::FaultPanel;
use groups::Groups;
use lists::Lists;
use records::Records;
pub use role_client::url_parser;
use role_client::{RoleClient, new_client};
use roles::Roles;
use state::Console as State;
use state::Settings;

/// The interval between two events of the page.
const EVENT_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Args, Clone, Debug)]
pub struct ConsoleArgs {
    /// Port to serve the page on
    #[arg(long, env = "PORT", value_name = "PORT", default_value_t = Port::new(8000), value_parser = Port::parser())]
    pub port: Port,

    /// Address of stock
    #[arg(long, env = "STOCK_URL", value_name = "URL", default_value = "http://127.0.0.1:3002", value_parser = url_parser(), help_heading = "Roles")]
    pub stock_url: Url,

    /// Address of ads
    #[arg(long, env = "ADS_URL", value_name = "URL", default_value = "http://127.0.0.1:3003", value_parser = url_parser(), help_heading = "Roles")]
    pub ads_url: Url,

    /// Addresses of the estimators that serve health (estimate --port), each address of a name being one; without them,
    /// the page shows only the members of their group [default: none]
    #[arg(long, env = "ESTIMATE_URL", value_name = "URL,...", value_delimiter = ',', value_parser = url_parser(), help_heading = "Roles")]
    pub estimate_url: Vec<Url>,

    /// Address of Jaeger's page, to which the page links the trace of a vehicle [default: none]
    #[arg(long, env = "JAEGER_URL", value_name = "URL", value_parser = url_parser(), help_heading = "Roles")]
    pub jaeger_url: Option<Url>,

    /// Duration of an estimate; a vehicle that has no ad 10 s later is late
    #[arg(long, env = "PROCESSING_TIME", value_name = "DURATION", default_value = "30s", value_parser = parse_duration, help_heading = "Roles")]
    pub processing_time: Duration,

    /// Refuse to post vehicles and to resolve dead letters
    #[arg(long, env = "READ_ONLY", value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, help_heading = "Access")]
    pub read_only: bool,

    #[command(flatten)]
    pub keys: ApiKeys,

    #[command(flatten)]
    pub hosts: AllowedHosts,

    #[command(flatten)]
    pub http: HttpArgs,

    #[command(flatten)]
    pub kafka: KafkaArgs,

    #[command(flatten)]
    pub shutdown: ShutdownArgs,
}

/// The console, bound to its address but not running yet.
pub struct Console {
    server: HttpServer,
    args: ConsoleArgs,
    faults: Option<FaultPanel>,
}

impl Console {
    /// Binds the listener. Does not connect to anything.
    ///
    /// # Errors
    /// Fails when the port is in use.
    pub fn bind(args: ConsoleArgs) -> anyhow::Result<Self> {
        let server = HttpServer::bind(&args.http, args.port)?;
        let is_open = !args.http.host.is_loopback() && !args.read_only && !args.keys.are_required();
        if is_open {
            tracing::warn!(
                "anyone who reaches the console can post vehicles and resolve dead letters; see --api-key and --read-only"
            );
        }
        Ok(Self { server, args, faults: None })
    }

    /// Adds a panel of faults to the page.
    #[must_use]
    pub fn with_faults(self, panel: FaultPanel) -> Self {
        Self { faults: Some(panel), ..self }
    }

    /// Returns the address that the page is served on.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Runs the console until `shutdown`, whatever is unavailable.
    ///
    /// # Errors
    /// Fails when a part of the console fails.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { server, args, faults } = self;
        tracing::info!(address = %server.address(), "console listens");
        let processing = i64::try_from(args.processing_time.as_millis()).unwrap_or(i64::MAX / 2);
        let console = Arc::new(State::new(Settings {
            version: env!("CARGO_PKG_VERSION"),
            read_only: args.read_only,
            needs_key: args.keys.are_required(),
            jaeger_url: args.jaeger_url.map(|url| url.as_str().trim_end_matches('/').to_owned()),
            processing,
        }));
        let client = new_client()?;
        let (stock, ads) =
            (RoleClient::new(&client, &args.stock_url), RoleClient::new(&client, &args.ads_url));
        let roles = Roles {
            console: Arc::clone(&console),
            stock: stock.clone(),
            estimators: args.estimate_url.iter().map(|url| RoleClient::new(&client, url)).collect(),
            ads: ads.clone(),
        };
        let records = Records::new(&args.kafka, Arc::clone(&console))?;
        let groups = Groups::new(&args.kafka, Arc::clone(&console))?;
        let mut lists = Lists::new(Arc::clone(&console), stock.clone(), ads);
        let api = Arc::new(Api::new(
            Arc::clone(&console),
            args.kafka,
            stock,
            args.keys,
            args.hosts,
            shutdown.clone(),
        ));

        let mut role = Role::new(&args.shutdown, shutdown.clone());
        role.check("kafka", Need::Background, async || {
            let state = console.lock();
            match (&state.kafka_error, &state.estimators) {
                (Some(error), _) => Err(anyhow!("{error}").context("the consumer groups cannot be read")),
                (None, None) => Err(anyhow!("the consumer groups were not read yet")),
                (None, Some(_)) => Ok(()),
            }
        });
        let metrics = Registry::with_prefix("console");
        let (routes, panel) = (api.routes(), faults.clone());
        let routes = move |config: &mut ServiceConfig| {
            routes(config);
            if let Some(panel) = &panel {
                (panel.routes)(config);
            }
        };
        let serving = server.serve(role.health(), metrics, routes, shutdown.clone(), args.shutdown.grace());
        role.run_part(Part::new("requests", 0.9), serving);
        let stop = shutdown.clone();
        role.run_part(Part::new("records", 0.9).or_abandon(), async move {
            let following = tokio::task::spawn_blocking(move || records.follow(&stop));
            following.await.context("following the topics panicked")
        });
        let stop = shutdown.clone();
        let watching = async move {
            let work = async { tokio::join!(groups.watch(), roles.watch(), lists.follow()) };
            tokio::select! {
                () = stop.cancelled() => {}
                _ = work => {}
            }
        };
        role.run_part(Part::new("watch", 0.9), on_its_own("watch", watching));
        role.run_part(
            Part::new("events", 0.9),
            on_its_own("events", publish(console.clone(), faults, shutdown)),
        );
        role.run().await
    }
}

/// Publishes the events of the page until `shutdown`.
async fn publish(console: Arc<State>, faults: Option<FaultPanel>, shutdown: CancellationToken) {
    let mut interval = tokio::time::interval(EVENT_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_second = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => {}
        }
        is_second = !is_second;
        if is_second {
            console.lock().sample(console.settings.processing);
        }
        if let Some(panel) = &faults {
            console.lock().faults = Some((panel.view)());
        }
        console.publish();
    }
}
