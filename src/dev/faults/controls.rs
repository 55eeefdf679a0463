//! Checks requests for faults and passes them on.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use super::fault::{FAULTS, Fault};
use super::{Injector, Order, Running};

/// The duration of a fault unless the request has one, and its bounds.
pub const DEFAULT_DURATION: Duration = Duration::from_secs(15);
/// The time for which a fault without a duration counts as in effect, so that the page shows it.
const MOMENT: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// The number of requests that wait to be carried out.
const QUEUE: usize = 16;

/// The reason why a fault was not injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such fault, or it is not possible here.
    Unknown,
    Invalid(String),
    /// A fault of this kind is in effect already.
    Running,
    Failed(String),
}

/// The faults that are offered, and those that are in effect.
#[derive(Clone)]
pub struct Controls {
    /// The faults with their targets.
    pub offered: Arc<[(&'static Fault, Vec<String>)]>,
    pub running: watch::Receiver<Vec<Running>>,
    orders: mpsc::Sender<Order>,
}

impl Controls {
    pub(super) fn new(
        injector: &Injector,
        running: watch::Receiver<Vec<Running>>,
    ) -> (Self, mpsc::Receiver<Order>) {
        let (orders, received) = mpsc::channel(QUEUE);
        let offered = FAULTS.iter().filter_map(|fault| Some((fault, injector.targets(fault.kind)?)));
        (Self { offered: offered.collect(), running, orders }, received)
    }

    /// Injects a fault and returns once it is in effect. The default target is the first one.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(super) async fn inject(
        &self,
        name: &str,
        target: Option<String>,
        duration: Option<Duration>,
    ) -> Result<Running, Refusal> {
        let offered = self.offered.iter().find(|(fault, _)| fault.name == name);
        let (fault, targets) = offered.ok_or(Refusal::Unknown)?;
        let target = choose(targets, target)?;
        let duration = match duration {
            Some(_) if !fault.lasts => {
                return Err(Refusal::Invalid(format!("the fault {name} has no duration")));
            }
            Some(duration) if !(SHORTEST..=LONGEST).contains(&duration) => {
                return Err(Refusal::Invalid(format!("\"for\" must be from {SHORTEST:?} to {LONGEST:?}")));
            }
            Some(duration) => duration,
            None if fault.lasts => DEFAULT_DURATION,
            None => MOMENT,
        };
        let (reply, replied) = oneshot::channel();
        let ending = |_| Refusal::Failed("dev is ending".to_owned());
        self.orders.send(Order { fault, target, duration, reply }).await.map_err(|_| ending(()))?;
        replied.await.map_err(|_| ending(()))?
    }

    /// Describes the faults that are offered and those that are in effect, with the remaining time from `now`.
    pub(super) fn describe(&self, now: Option<DateTime<Utc>>) -> Value {
        let running = self.running.borrow();
        let faults = self.offered.iter().map(|(fault, targets)| {
            json!({
                "name": fault.name,
                "description": fault.description,
                "part": fault.part,
                "targets": targets,
                "lasts": fault.lasts,
                "running": running.iter().find(|other| other.name == fault.name).map(|other| other.describe(now)),
            })
        });
        json!({ "defaultSeconds": DEFAULT_DURATION.as_secs(), "faults": faults.collect::<Vec<_>>() })
    }

    /// Waits until no fault with this name is in effect.
    pub(super) async fn ended(&mut self, name: &str) {
        // Its sender ends only with dev.
        let _ = self.running.wait_for(|running| running.iter().all(|other| other.name != name)).await;
    }
}

impl Running {
    /// Describes the fault, with the remaining time from `now`.
    pub(super) fn describe(&self, now: Option<DateTime<Utc>>) -> Value {
        let mut description = json!({
            "target": self.target,
            "ends": self.ends.map(|ends| ends.timestamp_millis()),
        });
        let left = now.zip(self.ends).map(|(now, ends)| (ends - now).max(TimeDelta::zero()));
        if let (Some(left), Some(fields)) = (left, description.as_object_mut()) {
            fields.insert("secondsLeft".to_owned(), json!(left.as_seconds_f64()));
        }
        description
    }
}

fn choose(targets: &[String], target: Option<String>) -> Result<Option<String>, Refusal> {
    match target {
        None => Ok(targets.first().cloned()),
        Some(target) if targets.contains(&target) => Ok(Some(target)),
        Some(_) if targets.is_empty() => Err(Refusal::Invalid("this fault has no target".to_owned())),
        Some(_) => Err(Refusal::Invalid(format!("\"target\" must be one of {}", targets.join(", ")))),
    }
}
