//! Where prices come from.

use std::time::Duration;

use crate::event::VehicleCreated;
use crate::kafka::Failure;
use crate::vehicle::Price;

/// A pricing model.
pub trait Estimator: Send + Sync + 'static {
    /// Puts a price on a vehicle. Many estimates run at the same time; one may be dropped half-way, and asked for
    /// again, when another instance takes the vehicle over.
    ///
    /// # Errors
    /// [`Failure::Transient`] when it may work later, [`Failure::Poison`] when this vehicle can never be priced.
    fn estimate(&self, vehicle: &VehicleCreated) -> impl Future<Output = Result<Price, Failure>> + Send;
}

/// Takes its time, and draws a price.
#[derive(Clone, Debug)]
pub struct SimulatedEstimator {
    pub processing_time: Duration,
}

impl SimulatedEstimator {
    const LOWEST_CENTS: i64 = 1_000_00;
    const HIGHEST_CENTS: i64 = 50_000_00;
}

impl Estimator for SimulatedEstimator {
    async fn estimate(&self, _: &VehicleCreated) -> Result<Price, Failure> {
        tokio::time::sleep(self.processing_time).await;
        Ok(Price::from_cents(rand::random_range(Self::LOWEST_CENTS..=Self::HIGHEST_CENTS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_price_lies_between_1000_and_50000() {
        let estimator = SimulatedEstimator { processing_time: Duration::ZERO };
        let vehicle = VehicleCreated {
            id: None,
            vin: "v".to_owned(),
            model: "m".to_owned(),
            manufacturer: "f".to_owned(),
            year: 2022,
            odometer: 1.0,
            odometer_unit: "km".to_owned(),
        };
        for _ in 0..1_000 {
            let amount = estimator.estimate(&vehicle).await.unwrap().amount();
            assert!((1_000.0..=50_000.0).contains(&amount), "{amount}");
        }
    }
}
