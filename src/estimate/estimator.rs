//! Where prices come from.

use std::time::Duration;

use super::estimate_error::EstimateError;
use crate::event::VehicleCreated;
use crate::vehicle::Price;

/// A pricing model.
///
/// The role calls it for each vehicle and does the rest: it reads and writes Kafka, retries, keeps dead letters, and
/// publishes each price exactly once.
pub trait Estimator: Send + Sync + 'static {
    /// Returns a price for a vehicle.
    ///
    /// Many calls run concurrently, at most `--max-concurrent-estimates`. A call may be dropped at any `await`, when its
    /// partition moves to another instance or its time is over, and the same vehicle may be asked for again, here or in
    /// another process: side effects must tolerate that. A call that blocks its thread delays all others; use
    /// [`tokio::task::spawn_blocking`] for long computations. A panic rejects the vehicle.
    ///
    /// # Errors
    /// [`EstimateError::Retry`] when the model may answer later, [`EstimateError::Reject`] when it can never price this
    /// vehicle. Reject only for what is wrong with the vehicle: an outage must not turn vehicles into dead letters.
    fn estimate(&self, vehicle: &VehicleCreated)
    -> impl Future<Output = Result<Price, EstimateError>> + Send;

    /// Returns how long one call of [`Self::estimate`] takes at most.
    ///
    /// A call that takes 30 s longer is dropped and retried, and a vehicle that is in flight for 30 s longer makes the
    /// role report on `/readyz` that it makes no progress.
    fn max_duration(&self) -> Duration;

    /// Checks whether the model can work. The role calls this every few seconds and shows the result as `model` on
    /// `/readyz`; a check that takes more than 6 s has failed. Estimates go on meanwhile.
    ///
    /// # Errors
    /// When the model cannot work now: the reason.
    fn check(&self) -> impl Future<Output = anyhow::Result<()>> + Send {
        async { Ok(()) }
    }
}

/// Waits for a fixed time, then draws a price.
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
pub(super) fn vehicle() -> VehicleCreated {
    VehicleCreated {
        id: None,
        vin: "v".to_owned(),
        model: "m".to_owned(),
        manufacturer: "f".to_owned(),
        year: 2022,
        odometer: 1.0,
        odometer_unit: "km".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_price_is_from_1000_to_50000() {
        let estimator = SimulatedEstimator { processing_time: Duration::ZERO };
        for _ in 0..1_000 {
            let amount = estimator.estimate(&vehicle()).await.unwrap().amount();
            assert!((1_000.0..=50_000.0).contains(&amount), "{amount}");
        }
    }
}
