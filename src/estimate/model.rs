//! Selects the pricing model of the executable.

use std::time::Duration;

use clap::Args;

use super::estimator::{Estimator, SimulatedEstimator};
use crate::duration::parse_duration;

/// The settings of the pricing model.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Pricing model")]
pub struct ModelArgs {
    /// Duration of the simulated estimate of one vehicle
    #[arg(long, env = "PROCESSING_TIME", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub processing_time: Duration,
}

impl ModelArgs {
    /// Returns the pricing model that the arguments select.
    pub fn estimator(&self) -> impl Estimator + use<> {
        SimulatedEstimator { processing_time: self.processing_time }
    }
}
