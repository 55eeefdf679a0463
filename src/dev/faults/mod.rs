//! Injects faults into the platform that `dev` runs: `dev --faults`.
//!
//! The estimators are processes, so they can be killed and stopped, and TCP links in front of the embedded broker and
//! registry can stall or refuse their clients. Every fault ends by itself. One task on the thread that runs `dev`
//! carries all of them out:
//!
//! ```text
//! page, api, draw -> Controls -> orders -> Injector -> estimators, link, database, records
//! ```

mod api;
mod controls;
mod draw;
mod estimators;
mod fault;
mod link;
mod records;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::Args;
use clap::builder::BoolishValueParser;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::console::FaultPanel;
use crate::database::sqlite::lock_exclusively;
use crate::kafka::KafkaArgs;
use controls::{Controls, Refusal};
pub use estimators::Estimators;
use fault::{Fault, Kind};
use link::Flow;
pub use link::{Link, Links};

/// The time by which slow estimates take longer. It is shorter than the time after which a vehicle is late.
const DELAY: Duration = Duration::from_secs(5);

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Faults")]
pub struct FaultArgs {
    /// Offer faults to inject on the console's page and at POST /faults/NAME; estimators run as processes of their own
    #[arg(long, env = "FAULTS", value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true)]
    pub faults: bool,

    /// Inject faults in a random sequence that this number determines; needs --faults [default: none]
    #[arg(long, env = "FAULTS_SEED", value_name = "N")]
    pub faults_seed: Option<u64>,
}

/// A fault that is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub name: &'static str,
    pub target: Option<String>,
    /// None until it is in effect.
    pub ends: Option<DateTime<Utc>>,
}

/// A request to inject a fault.
struct Order {
    fault: &'static Fault,
    target: Option<String>,
    duration: Duration,
    /// Receives the fault once it is in effect.
    reply: oneshot::Sender<Result<Running, Refusal>>,
}

/// The parts of the platform that faults affect.
pub struct Injector {
    pub estimators: Estimators,
    /// The roles with a database, and its file.
    pub databases: Vec<(&'static str, PathBuf)>,
    pub kafka: KafkaArgs,
    pub topics: Vec<String>,
    pub broker_flow: watch::Sender<Flow>,
    pub registry_flow: watch::Sender<Flow>,
}

/// The estimators and the faults, not running yet.
pub struct Faults {
    injector: Injector,
    running: watch::Sender<Vec<Running>>,
    orders: mpsc::Receiver<Order>,
    controls: Controls,
    seed: Option<u64>,
}

impl Faults {
    pub fn new(injector: Injector, seed: Option<u64>) -> Self {
        let running = watch::Sender::default();
        let (controls, orders) = Controls::new(&injector, running.subscribe());
        Self { injector, running, orders, controls, seed }
    }

    /// Returns what the page of the console shows and offers.
    pub fn panel(&self) -> FaultPanel {
        let controls = self.controls.clone();
        FaultPanel {
            routes: Arc::new(api::routes(self.controls.clone())),
            view: Arc::new(move || controls.describe(None)),
        }
    }

    pub fn estimators(&self) -> &Estimators {
        &self.injector.estimators
    }

    /// Runs the estimators, and injects faults until `shutdown`.
    ///
    /// # Errors
    /// Fails when an estimator ends by itself or cannot be started.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { injector, running, orders, controls, seed } = self;
        let serving = async {
            tokio::select! {
                () = shutdown.cancelled() => Ok(()),
                failed = serve(&injector, &running, orders) => failed,
                () = draw::inject(&controls, seed) => Ok(()),
            }
        };
        // When one of both ends, for whatever reason, the other one ends.
        let serving = async {
            let _ending = shutdown.drop_guard_ref();
            serving.await
        };
        let estimating = async {
            let _ending = shutdown.drop_guard_ref();
            injector.estimators.run(&shutdown).await
        };
        let (served, ended) = tokio::join!(serving, estimating);
        served.and(ended)
    }
}

/// Carries out orders, each of another kind, until one fails in a way that leaves the platform incomplete.
async fn serve(
    injector: &Injector,
    running: &watch::Sender<Vec<Running>>,
    mut orders: mpsc::Receiver<Order>,
) -> anyhow::Result<()> {
    let mut active = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(order) = orders.recv() => {
                let is_running = running.borrow().iter().any(|other| other.name == order.fault.name);
                if is_running {
                    // The client may have disconnected.
                    let _ = order.reply.send(Err(Refusal::Running));
                } else {
                    let entry = Running { name: order.fault.name, target: order.target.clone(), ends: None };
                    running.send_modify(|running| running.push(entry));
                    active.push(carry_out(injector, running, order));
                }
            }
            Some(ended) = active.next() => ended?,
            else => return Ok(()),
        }
    }
}

async fn carry_out(
    injector: &Injector,
    running: &watch::Sender<Vec<Running>>,
    order: Order,
) -> anyhow::Result<()> {
    let Order { fault, target, duration, reply } = order;
    let name = fault.name;
    let mut effect = Effect { running, name, duration, reply: Some(reply) };
    let injected = injector.inject(fault.kind, target.as_deref(), &mut effect).await;
    running.send_modify(|running| running.retain(|other| other.name != name));
    match (injected, effect.reply) {
        (Ok(()), _) => {
            tracing::info!(fault = name, target, "a fault ended");
            Ok(())
        }
        (Err(error), Some(reply)) => {
            tracing::warn!(fault = name, target, error = format!("{error:#}"), "a fault cannot be injected");
            let _ = reply.send(Err(Refusal::Failed(format!("{error:#}"))));
            Ok(())
        }
        (Err(error), None) => Err(error.context(format!("the fault {name} cannot be ended"))),
    }
}

/// A fault that takes effect.
struct Effect<'a> {
    running: &'a watch::Sender<Vec<Running>>,
    name: &'static str,
    duration: Duration,
    /// None once the fault is in effect.
    reply: Option<oneshot::Sender<Result<Running, Refusal>>>,
}

impl Effect<'_> {
    /// Reports that the fault is in effect, and waits for its end.
    async fn last(&mut self) {
        let end = tokio::time::Instant::now() + self.duration;
        let mut reported = None;
        self.running.send_modify(|running| {
            if let Some(own) = running.iter_mut().find(|other| other.name == self.name) {
                own.ends = Some(Utc::now() + self.duration);
                reported = Some(own.clone());
            }
        });
        if let (Some(reply), Some(own)) = (self.reply.take(), reported) {
            tracing::warn!(fault = self.name, target = own.target, duration = ?self.duration, "a fault begins");
            // The client may have disconnected.
            let _ = reply.send(Ok(own));
        }
        tokio::time::sleep_until(end).await;
    }
}

/// Restores the flow when it is dropped, so that a shutdown ends the fault, too.
struct Disturbed<'a>(&'a watch::Sender<Flow>);

impl<'a> Disturbed<'a> {
    fn new(flow: &'a watch::Sender<Flow>, disturbed: Flow) -> Self {
        flow.send_replace(disturbed);
        Self(flow)
    }
}

impl Drop for Disturbed<'_> {
    fn drop(&mut self) {
        self.0.send_replace(Flow::Pass);
    }
}

impl Injector {
    async fn inject(&self, kind: Kind, target: Option<&str>, effect: &mut Effect<'_>) -> anyhow::Result<()> {
        let target = target.unwrap_or_default();
        match kind {
            Kind::KillEstimator => {
                let number = target.parse()?;
                self.estimators.kill(number)?;
                effect.last().await;
                self.estimators.start(number)?;
            }
            Kind::PauseEstimator => {
                let number = target.parse()?;
                let killed = self.estimators.pause(number)?;
                tokio::select! {
                    () = effect.last() => {
                        // It may have ended in the meantime.
                        let _ = self.estimators.resume(number);
                    }
                    // Another process takes its place, which runs.
                    () = killed.cancelled() => {}
                }
            }
            Kind::SlowEstimates => {
                self.estimators.delay(DELAY);
                effect.last().await;
                self.estimators.delay(Duration::ZERO);
            }
            Kind::RegistryUnavailable => {
                let _disturbed = Disturbed::new(&self.registry_flow, Flow::Refuse);
                effect.last().await;
            }
            Kind::BrokerStalled => {
                let _disturbed = Disturbed::new(&self.broker_flow, Flow::Stall);
                effect.last().await;
            }
            Kind::DatabaseUnavailable => {
                let database = self.databases.iter().find(|(role, _)| *role == target);
                let (_, path) = database.context("the role has no database here")?;
                let _lock = lock_exclusively(path.clone()).await?;
                effect.last().await;
            }
            Kind::Poison => {
                records::poison(&self.kafka, target).await?;
                effect.last().await;
            }
            Kind::Duplicates => {
                records::duplicate(&self.kafka, target).await?;
                effect.last().await;
            }
        }
        Ok(())
    }

    /// Returns the targets of a fault, of which one is chosen, or `None` when the fault is not possible here.
    fn targets(&self, kind: Kind) -> Option<Vec<String>> {
        let count = self.estimators.count();
        let (targets, possible) = match kind {
            Kind::KillEstimator | Kind::PauseEstimator => {
                ((1..=count).map(|number| number.to_string()).collect(), count > 0)
            }
            Kind::SlowEstimates => (Vec::new(), count > 0),
            Kind::RegistryUnavailable | Kind::BrokerStalled => (Vec::new(), true),
            Kind::DatabaseUnavailable => (
                self.databases.iter().map(|(role, _)| (*role).to_owned()).collect(),
                !self.databases.is_empty(),
            ),
            Kind::Poison | Kind::Duplicates => (self.topics.clone(), true),
        };
        possible.then_some(targets)
    }
}
