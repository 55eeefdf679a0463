//! Builds the roles of `dev` the way a user's shell does, and runs them together.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Url;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::estimator_process::Assignment;
use super::faults::{Estimators, Faults, Injector, Links};
use super::{DevArgs, LOOPBACK, RoleName};
use crate::ads::{Ads, AdsArgs};
use crate::console::{Console, ConsoleArgs};
use crate::database::DatabaseUrl;
use crate::estimate::{Estimate, EstimateArgs, ModelArgs};
use crate::event::EventType;
use crate::http::{HttpArgs, Port};
use crate::kafka::KafkaArgs;
use crate::registry::{RegistryArgs, WriterArgs};
use crate::role::{Part, Role, RoleArgs};
use crate::shutdown::ShutdownArgs;
use crate::stock::{self, Stock, StockArgs};

/// The roles of this process, bound to their addresses.
pub(super) struct Roles {
    stock: Option<Stock>,
    estimators: Vec<Estimate>,
    model: ModelArgs,
    ads: Option<Ads>,
    console: Option<Console>,
    /// With faults, the estimators run in processes of their own.
    faults: Option<Faults>,
}

fn role_args(args: &DevArgs, kafka: SocketAddr, registry: SocketAddr) -> anyhow::Result<RoleArgs> {
    Ok(RoleArgs {
        http: HttpArgs::on(LOOPBACK),
        kafka: KafkaArgs::single_node(kafka),
        registry: RegistryArgs::at(registry)?,
        shutdown: args.shutdown.clone(),
    })
}

fn bind_estimate(
    args: &DevArgs,
    number: usize,
    port: Option<Port>,
    role: RoleArgs,
) -> anyhow::Result<Estimate> {
    Estimate::bind(EstimateArgs {
        port,
        work: args.work.clone(),
        // A fixed name, independent of the other processes on this machine.
        instance_id: Some(format!("dev-{number}")),
        writer: WriterArgs { auto_register_schemas: true },
        role,
    })
}

/// Binds the estimator that a process of its own runs.
pub(super) fn bind_assigned(args: &DevArgs, assignment: &Assignment) -> anyhow::Result<Estimate> {
    let Assignment { number, port, kafka, registry } = *assignment;
    bind_estimate(args, number, Some(Port::new(port)), role_args(args, kafka, registry)?)
}

impl Roles {
    /// Binds the roles. Estimators run in processes of their own if there are `links` for faults.
    pub(super) async fn bind(
        args: &DevArgs,
        kafka: SocketAddr,
        registry: SocketAddr,
        links: Option<&Links>,
    ) -> anyhow::Result<Self> {
        let count = |wanted| args.roles.iter().filter(|role| **role == wanted).count();
        let sqlite = |file| -> anyhow::Result<DatabaseUrl> {
            let url = format!("sqlite:{}", args.data_dir.join(file).display());
            url.parse().map_err(|error| anyhow::anyhow!("--data-dir (DATA_DIR): {error}"))
        };
        let role = role_args(args, kafka, registry)?;
        let mut roles = Self {
            stock: None,
            estimators: Vec::new(),
            model: args.model.clone(),
            ads: None,
            console: None,
            faults: None,
        };
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
        let estimators = count(RoleName::Estimate);
        if let Some(links) = links {
            let injector = Injector {
                estimators: Estimators::new(estimators, kafka, registry)?,
                databases: [(RoleName::Stock, "stock"), (RoleName::Ads, "ads")]
                    .into_iter()
                    .filter(|(role, _)| count(*role) > 0)
                    .map(|(_, name)| (name, args.data_dir.join(format!("{name}.db"))))
                    .collect(),
                kafka: role.kafka.clone(),
                topics: EventType::ALL.map(|event| event.topic.to_owned()).to_vec(),
                broker_flow: links.broker.flow(),
                registry_flow: links.registry.flow(),
            };
            roles.faults = Some(Faults::new(injector, args.fault.faults_seed));
        } else {
            // The console reads their health and metrics.
            let port = args.console_port().map(|_| Port::new(0));
            let bind = |number| bind_estimate(args, number, port, role.clone());
            roles.estimators = (1..=estimators).map(bind).collect::<Result<_, _>>()?;
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
        let estimators = match &self.faults {
            Some(faults) => faults.estimators().addresses(),
            None => self.estimators.iter().filter_map(Estimate::address).collect(),
        };
        let console = Console::bind(ConsoleArgs {
            port,
            stock_url: at(self.stock.as_ref().map_or(elsewhere(args.stock_port), Stock::address))?,
            ads_url: at(self.ads.as_ref().map_or(elsewhere(args.ads_port), Ads::address))?,
            estimate_url: estimators.into_iter().map(at).collect::<Result<_, _>>()?,
            jaeger_url: args.jaeger_url.clone(),
            processing_time: args.model.processing_time,
            read_only: false,
            keys: args.keys.clone(),
            hosts: args.hosts.clone(),
            http: role.http.clone(),
            kafka: role.kafka.clone(),
            shutdown: role.shutdown.clone(),
        })?;
        Ok(match &self.faults {
            Some(faults) => console.with_faults(faults.panel()),
            None => console,
        })
    }

    /// Runs the roles until `shutdown`. When one ends, all end.
    pub(super) async fn run(self, args: &ShutdownArgs, shutdown: &CancellationToken) -> anyhow::Result<()> {
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
        if let Some(faults) = self.faults {
            let faults = faults.run(shutdown.clone()).instrument(tracing::info_span!("faults"));
            running.run_part(part("faults"), faults);
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
    pub(super) fn describe(&self, args: &DevArgs, kafka: SocketAddr, registry: SocketAddr) -> String {
        let stock = self.stock.as_ref().map(Stock::address);
        let ads = self.ads.as_ref().map(Ads::address);
        let mut lines = Vec::new();
        lines.extend(stock.map(|address| format!("  stock            http://{address}/stock")));
        let (estimators, place) = match &self.faults {
            Some(faults) => (faults.estimators().count(), "processes of their own"),
            None => (self.estimators.len(), "this process"),
        };
        if estimators > 0 {
            let time = humantime::format_duration(args.model.processing_time);
            lines.push(format!("  estimate         {estimators} in {place}, {time} per vehicle"));
        }
        lines.extend(ads.map(|address| format!("  ads              http://{address}/ads")));
        let console = self.console.as_ref().map(Console::address);
        lines.extend(console.map(|address| format!("  console          http://{address}")));
        lines.push(format!("  kafka            {kafka}"));
        lines.push(format!("  schema registry  http://{registry}"));
        lines.push(format!("  data             {}", args.data_dir.display()));

        lines.push("\nTry:".to_owned());
        lines.extend(console.map(|address| format!("  open http://{address} in a browser")));
        if self.faults.is_some() {
            lines.extend(
                console
                    .map(|address| format!("  curl http://{address}/faults   # lists the faults to inject")),
            );
        }
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
