//! Runs the whole platform in one process, without installing anything.
//!
//! The infrastructure is embedded: a Kafka broker, a schema registry, SQLite files. The roles are the same ones that
//! run alone. They reach the infrastructure over the network, so roles in other processes can join.

mod embedded_registry;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use embedded_kafka_broker::Broker;
use reqwest::Url;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::ads::{Ads, AdsArgs};
use crate::console::{self, Console, ConsoleArgs};
use crate::database::DatabaseUrl;
use crate::estimate::{Estimate, EstimateArgs, ModelArgs, WorkArgs};
use crate::event::EventType;
use crate::http::{AllowedHosts, ApiKeys, CorsOrigins, HttpArgs, HttpServer, Port};
use crate::kafka::{ClusterCheck, KafkaArgs};
use crate::output::Output;
use crate::registry::{RegistryArgs, WriterArgs};
use crate::role::{Part, Role, RoleArgs};
use crate::shutdown::ShutdownArgs;
use crate::stock::{self, Stock, StockArgs};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// Directory for all data
    #[arg(long, env = "DATA_DIR", value_name = "PATH", default_value = "./data")]
    pub data_dir: PathBuf,

    /// Roles to run in this process; repeat estimate for more estimators, and use none for only the infrastructure
    #[arg(
        long,
        env = "ROLES",
        value_name = "ROLE,...",
        value_delimiter = ',',
        default_value = "stock,estimate,estimate,ads"
    )]
    pub roles: Vec<RoleName>,

    /// Port to serve stock on
    #[arg(long, env = "STOCK_PORT", value_name = "PORT", default_value_t = Port::new(3002), value_parser = Port::parser_of("--stock-port"), help_heading = "Ports")]
    pub stock_port: Port,

    /// Port to serve ads on
    #[arg(long, env = "ADS_PORT", value_name = "PORT", default_value_t = Port::new(3003), value_parser = Port::parser_of("--ads-port"), help_heading = "Ports")]
    pub ads_port: Port,

    /// Port to serve the Kafka broker on
    #[arg(long, env = "KAFKA_PORT", value_name = "PORT", default_value_t = Port::new(9092), value_parser = Port::parser_of("--kafka-port"), help_heading = "Ports")]
    pub kafka_port: Port,

    /// Port to serve the schema registry on
    #[arg(long, env = "REGISTRY_PORT", value_name = "PORT", default_value_t = Port::new(8081), value_parser = Port::parser_of("--registry-port"), help_heading = "Ports")]
    pub registry_port: Port,

    /// Port to serve the console's page on, or none
    #[arg(long, env = "CONSOLE_PORT", value_name = "PORT", default_value = "8000", value_parser = parse_console_port, help_heading = "Ports")]
    pub console_port: ConsolePort,

    /// Address of Jaeger's page, to which the console links the trace of a vehicle [default: none]
    #[arg(long, env = "JAEGER_URL", value_name = "URL", value_parser = console::url_parser(), help_heading = "Traces")]
    pub jaeger_url: Option<Url>,

    #[command(flatten)]
    pub keys: ApiKeys,

    #[command(flatten)]
    pub origins: CorsOrigins,

    #[command(flatten)]
    pub work: WorkArgs,

    #[command(flatten)]
    pub model: ModelArgs,

    #[command(flatten)]
    pub shutdown: ShutdownArgs,
}

/// The port of the console, if it is to run.
#[derive(Clone, Copy, Debug)]
pub struct ConsolePort(Option<Port>);

fn parse_console_port(text: &str) -> Result<ConsolePort, String> {
    if text == "none" {
        return Ok(ConsolePort(None));
    }
    let number = text.parse().map_err(|_| "must be a port from 0 to 65535, or none".to_owned())?;
    Ok(ConsolePort(Some(Port::of("--console-port", number))))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    Stock,
    Estimate,
    Ads,
    None,
}

impl DevArgs {
    /// Returns the port of the console, unless it does not run: `none` of the roles is only the infrastructure.
    fn console_port(&self) -> Option<Port> {
        self.console_port.0.filter(|_| !self.roles.contains(&RoleName::None))
    }

    pub fn runs_console(&self) -> bool {
        self.console_port().is_some()
    }
}

fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let in_use = || {
        format!(
            "cannot use the data directory {}; choose another with --data-dir (DATA_DIR)",
            data_dir.display()
        )
    };
    fs::create_dir_all(data_dir).with_context(in_use)?;
    let lock = data_dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(lock).with_context(in_use)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(anyhow::anyhow!("another vehicle-platform dev is using it")).with_context(in_use)
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(in_use),
    }
}

/// Runs the platform until `shutdown`.
///
/// # Errors
/// Fails when a port or the data directory is in use, or a part of the platform fails.
pub async fn run(args: DevArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    check_roles(&args.roles)?;
    let _lock = lock(&args.data_dir)?;
    let kafka = TcpListener::bind((LOOPBACK, args.kafka_port.number()))
        .await
        .with_context(|| args.kafka_port.cannot_listen(LOOPBACK))?;
    let registry = HttpServer::bind(&HttpArgs::on(LOOPBACK), args.registry_port)?;
    let roles = Roles::bind(&args, kafka.local_addr()?, registry.address()).await?;
    // All ports and the data directory are reserved from here on.
    let broker = Broker::builder()
        .listener(kafka)
        .data_dir(args.data_dir.join("kafka"))
        .start()
        .await
        .context("cannot start the Kafka broker")?;
    // A separate thread, because a full pipe blocks its writer.
    let description = roles.describe(&args, broker.address(), registry.address());
    std::thread::spawn(move || Output::stdout().lines(&description));

    let topics = EventType::ALL.map(|event| event.topic.to_owned());
    let kafka = KafkaArgs::single_node(broker.address());
    let schemas = args.data_dir.join("schemas.json");
    // The roles end first, then the infrastructure.
    let infrastructure = CancellationToken::new();
    let mut platform = Role::new(&args.shutdown, shutdown.clone());
    let brokering = async {
        infrastructure.cancelled().await;
        broker.shutdown().await;
        Ok(())
    };
    platform.run_part(Part::new("broker", 1.0), brokering);
    let serving = embedded_registry::run(registry, &schemas, infrastructure.clone(), args.shutdown.grace());
    platform.run_part(Part::new("registry", 1.0), serving);
    platform.run_part(Part::new("roles", 1.0).then_stop(&infrastructure), async {
        // Creates the topics here, because roles that join from other processes would request three replicas.
        ClusterCheck::new(&kafka, topics.to_vec(), None)?.check().await?;
        roles.run(&args.shutdown, &shutdown).await
    });
    platform.run().await
}

fn check_roles(roles: &[RoleName]) -> anyhow::Result<()> {
    let count = |wanted| roles.iter().filter(|role| **role == wanted).count();
    if count(RoleName::None) > 0 && roles.len() > 1 {
        bail!("--roles (ROLES): none cannot be combined with other roles");
    }
    if count(RoleName::Stock) > 1 || count(RoleName::Ads) > 1 {
        bail!("--roles (ROLES): only estimate can be repeated");
    }
    Ok(())
}

/// The roles of this process, bound to their addresses.
struct Roles {
    stock: Option<Stock>,
    estimators: Vec<Estimate>,
    model: ModelArgs,
    ads: Option<Ads>,
    console: Option<Console>,
}

impl Roles {
    async fn bind(args: &DevArgs, kafka: SocketAddr, registry: SocketAddr) -> anyhow::Result<Self> {
        let count = |wanted| args.roles.iter().filter(|role| **role == wanted).count();
        let sqlite = |file| -> anyhow::Result<DatabaseUrl> {
            let url = format!("sqlite:{}", args.data_dir.join(file).display());
            url.parse().map_err(|error| anyhow::anyhow!("--data-dir (DATA_DIR): {error}"))
        };
        let role = RoleArgs {
            http: HttpArgs::on(LOOPBACK),
            kafka: KafkaArgs::single_node(kafka),
            registry: RegistryArgs::at(registry)?,
            shutdown: args.shutdown.clone(),
        };
        let mut roles =
            Self { stock: None, estimators: Vec::new(), model: args.model.clone(), ads: None, console: None };
        if count(RoleName::Stock) > 0 {
            let stock = StockArgs {
                port: args.stock_port,
                database_url: sqlite("stock.db")?,
                outbox_retention: stock::DEFAULT_RETENTION.into(),
                keys: args.keys.clone(),
                origins: args.origins.clone(),
                writer: WriterArgs { auto_register_schemas: true },
                role: role.clone(),
            };
            roles.stock = Some(Stock::bind(stock).await?);
        }
        if count(RoleName::Ads) > 0 {
            let ads = AdsArgs {
                port: args.ads_port,
                database_url: sqlite("ads.db")?,
                instance_id: Some("dev".to_owned()),
                origins: args.origins.clone(),
                role: role.clone(),
            };
            roles.ads = Some(Ads::bind(ads).await?);
        }
        for number in 1..=count(RoleName::Estimate) {
            let estimate = EstimateArgs {
                // The console reads their health and metrics.
                port: args.console_port().map(|_| Port::new(0)),
                work: args.work.clone(),
                // A fixed name, independent of the other processes on this machine.
                instance_id: Some(format!("dev-{number}")),
                writer: WriterArgs { auto_register_schemas: true },
                role: role.clone(),
            };
            roles.estimators.push(Estimate::bind(estimate)?);
        }
        if let Some(port) = args.console_port() {
            roles.console = Some(roles.bind_console(args, port, &role)?);
        }
        Ok(roles)
    }

    /// Binds the console of the roles of this process, and of those at their default ports when they run elsewhere.
    fn bind_console(&self, args: &DevArgs, port: Port, role: &RoleArgs) -> anyhow::Result<Console> {
        let at = |address: SocketAddr| Url::parse(&format!("http://{address}"));
        let elsewhere = |port: Port| SocketAddr::new(LOOPBACK, port.number());
        let estimators = self.estimators.iter().filter_map(Estimate::address).map(at);
        Console::bind(ConsoleArgs {
            port,
            stock_url: at(self.stock.as_ref().map_or(elsewhere(args.stock_port), Stock::address))?,
            ads_url: at(self.ads.as_ref().map_or(elsewhere(args.ads_port), Ads::address))?,
            estimate_url: estimators.collect::<Result<_, _>>()?,
            jaeger_url: args.jaeger_url.clone(),
            processing_time: args.model.processing_time,
            read_only: false,
            keys: args.keys.clone(),
            hosts: AllowedHosts::default(),
            http: role.http.clone(),
            kafka: role.kafka.clone(),
            shutdown: role.shutdown.clone(),
        })
    }

    /// Runs the roles until `shutdown`. When one ends, all end.
    async fn run(self, args: &ShutdownArgs, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let mut running = Role::new(args, shutdown.clone());
        // Each role ends by itself within 0.9 of the timeout. The rest is for the infrastructure.
        let part = |name| Part::new(name, 0.95);
        if let Some(stock) = self.stock {
            let stock = stock.run(shutdown.clone()).instrument(tracing::info_span!("stock"));
            running.run_part(part("stock"), stock);
        }
        for (number, estimator) in (1..).zip(self.estimators) {
            let estimator = estimator.run(self.model.estimator(), shutdown.clone());
            running.run_part(part("estimate"), estimator.instrument(tracing::info_span!("estimate", number)));
        }
        if let Some(ads) = self.ads {
            let ads = ads.run(shutdown.clone()).instrument(tracing::info_span!("ads"));
            running.run_part(part("ads"), ads);
        }
        if let Some(console) = self.console {
            let console = console.run(shutdown.clone()).instrument(tracing::info_span!("console"));
            running.run_part(part("console"), console);
        }
        // Without a role, only the infrastructure runs.
        let (ended, ()) = tokio::join!(running.run(), shutdown.cancelled());
        ended
    }

    /// Describes the addresses of the platform and the first commands to try.
    fn describe(&self, args: &DevArgs, kafka: SocketAddr, registry: SocketAddr) -> String {
        let stock = self.stock.as_ref().map(Stock::address);
        let ads = self.ads.as_ref().map(Ads::address);
        let mut lines = Vec::new();
        lines.extend(stock.map(|address| format!("  stock            http://{address}/stock")));
        if !self.estimators.is_empty() {
            let time = humantime::format_duration(args.model.processing_time);
            lines.push(format!(
                "  estimate         {} in this process, {time} per vehicle",
                self.estimators.len()
            ));
        }
        lines.extend(ads.map(|address| format!("  ads              http://{address}/ads")));
        let console = self.console.as_ref().map(Console::address);
        lines.extend(console.map(|address| format!("  console          http://{address}")));
        lines.push(format!("  kafka            {kafka}"));
        lines.push(format!("  schema registry  http://{registry}"));
        lines.push(format!("  data             {}", args.data_dir.display()));

        lines.push("\nTry:".to_owned());
        lines.extend(console.map(|address| format!("  open http://{address} in a browser")));
        if let Some(address) = stock {
            lines.push(format!(
                "  curl -i http://{address}/stock -H 'Content-Type: application/json' -d '{{\"vin\":\"vin\",\"model\":\"model\",\"manufacturer\":\"manufacturer\",\"year\":2022,\"odometer\":1000,\"odometerUnit\":\"odometerUnit\"}}'"
            ));
        }
        lines.extend(ads.map(|address| format!("  curl http://{address}/ads")));
        if let (Some(stock), Some(ads)) = (stock, ads) {
            let mut load = "  vehicle-platform load".to_owned();
            if (stock.port(), ads.port()) != (3002, 3003) {
                load.push_str(&format!(" --stock-url http://{stock} --ads-url http://{ads}"));
            }
            if args.model.processing_time != Duration::from_secs(30) {
                let time = humantime::format_duration(args.model.processing_time);
                load.push_str(&format!(" --processing-time '{time}'"));
            }
            lines.push(format!("{load}   # in another terminal: posts vehicles and checks their ads"));
        }
        let mut join = "  vehicle-platform estimate".to_owned();
        if kafka.port() != 9092 {
            join.push_str(&format!(" --kafka-bootstrap-servers {kafka}"));
        }
        if registry.port() != 8081 {
            join.push_str(&format!(" --schema-registry-url http://{registry}"));
        }
        lines.push(format!("{join}   # in another terminal: starts one more estimator"));
        lines.push("\nPress Ctrl-C to stop. The data directory retains every accepted vehicle.\n".to_owned());
        lines.join("\n")
    }
}
