//! Runs one estimator of `dev` in a process of its own, so that it can be killed and paused.
//!
//! `dev --faults` starts its own executable with its own arguments, and with one more that assigns an estimator to the
//! process. Standard input is a pipe from `dev`: each line is the time in milliseconds by which estimates are to take
//! longer, and its end is the end of `dev`. A process that is stopped at that moment cannot read the end, so the kernel
//! ends it: by the parent-death signal on Linux, and everywhere by SIGHUP and SIGCONT to a stopped process group that
//! loses its parent.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::estimate::{Estimate, EstimateError, Estimator, ModelArgs};
use crate::event::VehicleCreated;
use crate::vehicle::Price;

/// The flag with an [`Assignment`].
pub(super) const FLAG: &str = "--estimator-process";

/// An estimator of `dev` and the addresses that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The number of the estimator, from 1.
    pub number: usize,
    /// The port for health and metrics.
    pub port: u16,
    pub kafka: SocketAddr,
    pub registry: SocketAddr,
}

impl Display for Assignment {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { number, port, kafka, registry } = self;
        write!(formatter, "{number},{port},{kafka},{registry}")
    }
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.split(',');
            let assignment = Self {
                number: parts.next()?.parse().ok()?,
                port: parts.next()?.parse().ok()?,
                kafka: parts.next()?.parse().ok()?,
                registry: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(assignment)
        };
        parse().ok_or_else(|| "is an argument that dev itself passes to its estimators".to_owned())
    }
}

/// Runs the estimator until `shutdown` or the end of `dev`.
///
/// # Errors
/// Fails when a part of the role fails, and at the end of `dev`.
pub(super) async fn run(
    number: usize,
    estimate: Estimate,
    model: &ModelArgs,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let (delay, changes) = watch::channel(Duration::ZERO);
    let dev_ended = CancellationToken::new();
    let ending = dev_ended.clone();
    std::thread::spawn(move || {
        let _ending = ending.drop_guard();
        for line in io::stdin().lines().map_while(Result::ok) {
            if let Ok(millis) = line.parse() {
                delay.send_replace(Duration::from_millis(millis));
            }
        }
    });
    let estimator = SlowableEstimator { estimator: model.estimator(), delay: changes };
    let running = estimate.run(estimator, shutdown).instrument(tracing::info_span!("estimate", number));
    tokio::select! {
        ended = running => ended,
        () = dev_ended.cancelled() => bail!("dev has ended"),
    }
}

/// A model whose estimates can be made to take longer.
struct SlowableEstimator<E> {
    estimator: E,
    delay: watch::Receiver<Duration>,
}

impl<E: Estimator> Estimator for SlowableEstimator<E> {
    async fn estimate(&self, vehicle: &VehicleCreated) -> Result<Price, EstimateError> {
        let price = self.estimator.estimate(vehicle).await?;
        let delay = *self.delay.borrow();
        tokio::time::sleep(delay).await;
        Ok(price)
    }

    fn max_duration(&self) -> Duration {
        self.estimator.max_duration()
    }

    async fn check(&self) -> anyhow::Result<()> {
        self.estimator.check().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_as_it_is_written() {
        let assignment = Assignment {
            number: 2,
            port: 20_001,
            kafka: "127.0.0.1:9092".parse().unwrap(),
            registry: "127.0.0.1:8081".parse().unwrap(),
        };
        assert_eq!(assignment.to_string().parse(), Ok(assignment));
        for wrong in
            ["", "1", "1,2,127.0.0.1:1", "1,2,127.0.0.1:1,127.0.0.1:2,3", "x,2,127.0.0.1:1,127.0.0.1:2"]
        {
            assert!(wrong.parse::<Assignment>().is_err(), "{wrong}");
        }
    }
}
