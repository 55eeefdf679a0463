//! Runs the whole platform in one process, without installing anything.
//!
//! The infrastructure is embedded: a Kafka broker, a schema registry, SQLite files. The roles are the same ones that
//! run alone. They reach the infrastructure over the network, so roles in other processes can join.

mod embedded_registry;
mod estimator_process;
mod faults;
mod roles;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use embedded_kafka_broker::Broker;
use reqwest::Url;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::console;
use crate::estimate::{ModelArgs, WorkArgs};
use crate::event::EventType;
use crate::http::{AllowedHosts, ApiKeys, CorsOrigins, HttpArgs, HttpServer, Port};
use crate::kafka::{ClusterCheck, KafkaArgs};
use crate::open_files::ROLE_FILES;
use crate::output::Output;
use crate::role::{Part, Role};
use crate::shutdown::ShutdownArgs;
use estimator_process::Assignment;
use faults::{FaultArgs, Link, Links};
use roles::Roles;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The files that the whole platform needs in one process: about 170, and some for clients.
const DEV_FILES: u64 = 256;
/// The files that the console needs in addition.
const CONSOLE_FILES: u64 = 128;

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
    pub hosts: AllowedHosts,

    #[command(flatten)]
    pub work: WorkArgs,

    #[command(flatten)]
    pub model: ModelArgs,

    #[command(flatten)]
    pub fault: FaultArgs,

    /// The estimator that this process is to be for another `dev`.
    #[arg(long, hide = true)]
    pub estimator_process: Option<Assignment>,

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

    fn runs_console(&self) -> bool {
        self.console_port().is_some()
    }

    /// Returns the number of open files that the process needs.
    pub fn files(&self) -> u64 {
        if self.estimator_process.is_some() {
            return ROLE_FILES;
        }
        let console = if self.runs_console() { CONSOLE_FILES } else { 0 };
        // With faults, the links need files, and the estimators have their own.
        DEV_FILES + console
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
    if let Some(assignment) = &args.estimator_process {
        let estimate = roles::bind_assigned(&args, assignment)?;
        return estimator_process::run(assignment.number, estimate, &args.model, shutdown).await;
    }
    check_faults(&args)?;
    let _lock = lock(&args.data_dir)?;
    let Listeners { broker, kafka, registry, registry_address, links } = Listeners::bind(&args).await?;
    let roles = Roles::bind(&args, kafka, registry_address, links.as_ref()).await?;
    // All ports and the data directory are reserved from here on.
    let broker = Broker::builder()
        .listener(broker)
        .advertise(kafka)
        .data_dir(args.data_dir.join("kafka"))
        .start()
        .await
        .context("cannot start the Kafka broker")?;
    // A separate thread, because a full pipe blocks its writer.
    let description = roles.describe(&args, kafka, registry_address);
    std::thread::spawn(move || Output::stdout().lines(&description));

    let topics = EventType::ALL.map(|event| event.topic.to_owned());
    let kafka = KafkaArgs::single_node(kafka);
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
    if let Some(Links { broker, registry }) = links {
        let infrastructure = infrastructure.clone();
        platform.run_part(Part::new("links", 1.0), async move {
            tokio::join!(broker.run(infrastructure.clone()), registry.run(infrastructure));
            Ok(())
        });
    }
    platform.run_part(Part::new("roles", 1.0).then_stop(&infrastructure), async {
        // Creates the topics here, because roles that join from other processes would request three replicas.
        ClusterCheck::new(&kafka, topics.to_vec(), None)?.check().await?;
        roles.run(&args.shutdown, &shutdown).await
    });
    platform.run().await
}

/// The listeners of the embedded servers.
struct Listeners {
    broker: TcpListener,
    registry: HttpServer,
    /// The addresses that clients use.
    kafka: SocketAddr,
    registry_address: SocketAddr,
    /// With faults, the links that listen on these addresses instead of the servers.
    links: Option<Links>,
}

impl Listeners {
    async fn bind(args: &DevArgs) -> anyhow::Result<Self> {
        let http = HttpArgs::on(LOOPBACK);
        let kafka = listen(args.kafka_port).await?;
        let kafka_address = kafka.local_addr()?;
        if !args.fault.faults {
            let registry = HttpServer::bind(&http, args.registry_port)?;
            let registry_address = registry.address();
            return Ok(Self { broker: kafka, kafka: kafka_address, registry, registry_address, links: None });
        }
        let broker = listen(Port::new(0)).await?;
        let registry_listener = listen(args.registry_port).await?;
        let registry = HttpServer::bind(&http, Port::new(0))?;
        let registry_address = registry_listener.local_addr()?;
        let links = Links {
            broker: Link::new(kafka, broker.local_addr()?),
            registry: Link::new(registry_listener, registry.address()),
        };
        Ok(Self { broker, registry, kafka: kafka_address, registry_address, links: Some(links) })
    }
}

async fn listen(port: Port) -> anyhow::Result<TcpListener> {
    TcpListener::bind((LOOPBACK, port.number())).await.with_context(|| port.cannot_listen(LOOPBACK))
}

fn check_faults(args: &DevArgs) -> anyhow::Result<()> {
    if args.fault.faults_seed.is_some() && !args.fault.faults {
        bail!("--faults-seed (FAULTS_SEED) needs --faults (FAULTS)");
    }
    if args.fault.faults && args.roles.contains(&RoleName::None) {
        bail!("--faults (FAULTS) cannot be combined with --roles none (ROLES): there is nothing to disturb");
    }
    if args.fault.faults && !args.runs_console() {
        bail!("--faults (FAULTS) needs the console: choose a port with --console-port (CONSOLE_PORT)");
    }
    Ok(())
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
