//! From a vehicle that was created to a vehicle that was processed.

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
    /// Where processed vehicles go.
    pub(super) topic: String,
}

impl<E: Estimator> Handler for Pricing<E> {
    async fn handle(&self, record: &Record, trace: &TraceContext) -> Result<Option<OutgoingRecord>, Failure> {
        let vehicle: VehicleCreated = self.codec.decode(&record.topic, record.value()).await?;
        let price = self.estimator.estimate(&vehicle).await?;
        // On the heap: otherwise each vehicle that waits would hold the room for what comes after the wait.
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
        // By the event and not by the record that was read: the original services write no key.
        let key = processed.vehicle.vin.into_bytes();
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
