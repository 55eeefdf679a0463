//! Defines the interface of pricing models, and the simulated model.

use std::time::Duration;

use super::estimate_error::EstimateError;
use crate::event::VehicleCreated;
use crate::vehicle::Price;

/// A pricing model.
///
/// The role calls the model for each vehicle and does everything else: it reads and writes Kafka, retries, writes dead
/// letters, and publishes each price exactly once.
pub trait Estimator: Send + Sync + 'static {
    /// Returns a price for a vehicle.
    ///
    /// At most `--max-concurrent-estimates` calls run concurrently. A call may be dropped at any `await`, when its
    /// partition moves to another instance or its time limit expires. The same vehicle may then be estimated again, in
    /// this process or another one, and side effects must tolerate that. A call that blocks its thread delays all
    /// others; use [`tokio::task::spawn_blocking`] for long computations. A panic rejects the vehicle.
    ///
    /// # Errors
    /// Return [`EstimateError::Retry`] when a retry may succeed, and [`EstimateError::Reject`] when the model can never
    /// price this vehicle. Reject only a vehicle that is itself the cause: an outage must not turn vehicles into dead
    /// letters.
    fn estimate(&self, vehicle: &VehicleCreated)
    -> impl Future<Output = Result<Price, EstimateError>> + Send;

    /// Returns the maximum duration of one call of [`Self::estimate`].
    ///
    /// A call that exceeds it by 30 s is dropped and retried. When a vehicle is in flight for 30 s longer than this,
    /// the role reports on `/readyz` that it makes no progress.
    fn max_duration(&self) -> Duration;

    /// Checks whether the model can work. The role calls this every few seconds and shows the result as `model` on
    /// `/readyz`. A check that takes more than 6 s fails. Estimates continue in the meantime.
    ///
    /// # Errors
    /// Return the reason when the model cannot work now.
    fn check(&self) -> impl Future<Output = anyhow::Result<()>> + Send {
        async { Ok(()) }
    }
}

/// A model that waits for a fixed time, then draws a random price.
#[derive(Clone, Debug)]
pub struct SimulatedEstimator {
    pub processing_time: Duration,
}

impl SimulatedEstimator {
    const LOWEST_CENTS: i64 = 1_000_00;
    const HIGHEST_CENTS: i64 = 50_000_00;
}

impl Estimator for SimulatedEstimator {
    async fn estimate(&self, _: &VehicleCreated) -> Result<Price, EstimateError> {
        tokio::time::sleep(self.processing_time).await;
        Ok(Price::from_cents(rand::random_range(Self::LOWEST_CENTS..=Self::HIGHEST_CENTS)))
    }

    fn max_duration(&self) -> Duration {
        self.processing_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vehicle::sample;

    #[tokio::test]
    async fn a_price_is_between_1000_and_50000() {
        let estimator = SimulatedEstimator { processing_time: Duration::ZERO };
        let vehicle = VehicleCreated::from(&sample::vehicle("vin"));
        for _ in 0..1_000 {
            let amount = estimator.estimate(&vehicle).await.unwrap().amount();
            assert!((1_000.0..=50_000.0).contains(&amount), "{amount}");
        }
    }
}
