//! Handles a created vehicle: estimates its price and returns a processed vehicle.

use std::sync::Arc;

use super::bounded_estimator::{BoundedEstimator, MAX_REASON_CHARS};
use super::estimate_error::EstimateError;
use super::estimator::Estimator;
use crate::event::{VEHICLE_PROCESSED, VehicleCreated, VehicleProcessed};
use crate::excerpt::excerpt;
use crate::kafka::{Failure, Handler, OutgoingRecord, Record};
use crate::registry::Codec;
use crate::trace::TraceContext;

pub(super) struct Pricing<E> {
    pub(super) codec: Arc<Codec>,
    pub(super) estimator: BoundedEstimator<E>,
    /// The topic of processed vehicles.
    pub(super) topic: String,
}

impl<E: Estimator> Handler for Pricing<E> {
    async fn handle(&self, record: &Record, trace: &TraceContext) -> Result<Option<OutgoingRecord>, Failure> {
        let vehicle: VehicleCreated = self.codec.decode(&record.topic, record.value()).await?;
        let price = self.estimator.estimate(&vehicle).await?;
        // Boxed, because every waiting vehicle would otherwise reserve the size of this future.
        Box::pin(self.announce(vehicle.priced(price), trace)).await.map(Some)
    }
}

impl<E> Pricing<E> {
    async fn announce(
        &self,
        processed: VehicleProcessed,
        trace: &TraceContext,
    ) -> Result<OutgoingRecord, Failure> {
        let value = self.codec.encode(VEHICLE_PROCESSED, &self.topic, &processed).await?;
        // The key comes from the event, because the original services write records without a key.
        let key = processed.created.vehicle.vin.into_bytes();
        Ok(OutgoingRecord::new(self.topic.clone(), key, value, trace))
    }
}

impl From<EstimateError> for Failure {
    fn from(error: EstimateError) -> Self {
        match error {
            EstimateError::Retry(reason) => Self::Transient(excerpt(&reason, MAX_REASON_CHARS)),
            EstimateError::Reject(reason) => Self::Poison(excerpt(&reason, MAX_REASON_CHARS)),
        }
    }
}
