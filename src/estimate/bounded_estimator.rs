//! Limits the number and the duration of concurrent estimates of a pricing model, and measures them.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use futures::FutureExt as _;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::estimate_error::EstimateError;
use super::estimator::Estimator;
use crate::event::VehicleCreated;
use crate::excerpt::excerpt;
use crate::kafka::WorkerStatus;
use crate::vehicle::Price;

/// The time beyond [`Estimator::max_duration`] after which an estimate is dropped.
const GRACE: Duration = Duration::from_secs(30);
/// The maximum number of characters of a model's reason, which may quote a response of any length.
pub(super) const MAX_REASON_CHARS: usize = 1_000;

/// The metrics of estimates.
#[derive(Clone, Debug, Default)]
struct EstimateMetrics {
    running: Gauge,
    retries: Counter,
}

impl EstimateMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("running", "Estimates that are running", metrics.running.clone());
        registry.register("retries", "Estimates that failed and are retried", metrics.retries.clone());
        metrics
    }
}

/// A pricing model with its limits.
pub(super) struct BoundedEstimator<E> {
    estimator: E,
    /// One permit for each estimate that may run. Permits are granted in the order of the requests.
    permits: Semaphore,
    time_limit: Duration,
    status: WorkerStatus,
    metrics: EstimateMetrics,
}

impl<E: Estimator> BoundedEstimator<E> {
    /// Limits `estimator` to `max_concurrent` estimates at a time and registers its metrics. `status` is the status of
    /// the worker that requests the estimates.
    pub(super) fn new(
        estimator: E,
        max_concurrent: usize,
        status: WorkerStatus,
        registry: &mut Registry,
    ) -> Self {
        Self {
            time_limit: estimator.max_duration().saturating_add(GRACE),
            estimator,
            permits: Semaphore::new(max_concurrent.min(Semaphore::MAX_PERMITS)),
            status,
            metrics: EstimateMetrics::register(registry),
        }
    }

    /// Waits for a permit, then estimates a price.
    ///
    /// # Errors
    /// Returns the error of the model, or [`EstimateError::Retry`] when it takes too long.
    pub(super) async fn estimate(&self, vehicle: &VehicleCreated) -> Result<Price, EstimateError> {
        let (running, waited) = self.begin().await;
        let estimated = tokio::time::timeout(self.time_limit, self.estimator.estimate(vehicle)).await;
        drop(running);
        let limit = self.time_limit;
        let estimated = estimated.unwrap_or_else(|_| {
            Err(EstimateError::Retry(format!("the model did not answer within {limit:?}")))
        });
        if matches!(estimated, Err(EstimateError::Retry(_))) {
            self.metrics.retries.inc();
        } else if !waited.is_zero() {
            self.status.waited(waited);
        }
        estimated
    }

    /// Checks whether the model can work.
    ///
    /// # Errors
    /// Returns the reason when the model cannot work. A panic of the check is also an error.
    pub(super) async fn check(&self) -> anyhow::Result<()> {
        let check = async { self.estimator.check().await };
        let checked = AssertUnwindSafe(check).catch_unwind().await;
        let checked = checked.unwrap_or_else(|_| Err(anyhow!("the check of the model panicked")));
        checked.map_err(|error| anyhow!(excerpt(&format!("{error:#}"), MAX_REASON_CHARS)))
    }

    /// Waits for a permit and returns it with the time that this took.
    async fn begin(&self) -> (Running<'_>, Duration) {
        if let Ok(permit) = self.permits.try_acquire() {
            return (Running::new(Some(permit), &self.metrics.running), Duration::ZERO);
        }
        let requested = Instant::now();
        // Boxed, so that vehicles with a running estimate do not reserve its size. The semaphore is never closed.
        let permit = Box::pin(self.permits.acquire()).await.ok();
        (Running::new(permit, &self.metrics.running), requested.elapsed())
    }
}

/// A guard that counts an estimate as running until it is dropped.
struct Running<'a> {
    _permit: Option<SemaphorePermit<'a>>,
    gauge: &'a Gauge,
}

impl<'a> Running<'a> {
    fn new(permit: Option<SemaphorePermit<'a>>, gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self { _permit: permit, gauge }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Mutex;

    use super::*;
    use crate::vehicle::sample;

    /// A model that returns its answers from the last to the first, and then never completes.
    struct Script(Mutex<Vec<Result<Price, EstimateError>>>);

    impl Estimator for Script {
        async fn estimate(&self, _: &VehicleCreated) -> Result<Price, EstimateError> {
            let next = self.0.lock().unwrap().pop();
            match next {
                Some(answer) => answer,
                None => pending().await,
            }
        }

        fn max_duration(&self) -> Duration {
            Duration::ZERO
        }

        async fn check(&self) -> anyhow::Result<()> {
            match self.0.lock().unwrap().pop() {
                Some(Err(error)) => Err(error.into()),
                Some(Ok(_)) => Ok(()),
                None => panic!("no answer is left"),
            }
        }
    }

    fn vehicle() -> VehicleCreated {
        VehicleCreated::from(&sample::vehicle("vin"))
    }

    fn bounded(
        max_concurrent: usize,
        answers: Vec<Result<Price, EstimateError>>,
    ) -> BoundedEstimator<Script> {
        let mut registry = Registry::default();
        let status = WorkerStatus::register(&mut registry, Duration::ZERO);
        BoundedEstimator::new(Script(Mutex::new(answers)), max_concurrent, status, &mut registry)
    }

    #[test]
    fn an_estimate_runs_only_with_a_permit_and_returns_it_when_it_is_dropped() {
        let price = Price::from_cents(1_00);
        let bounded = bounded(1, Vec::new());
        let vehicle = vehicle();
        let mut hanging = Box::pin(bounded.estimate(&vehicle));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        assert!((&mut hanging).now_or_never().is_none());
        bounded.estimator.0.lock().unwrap().push(Ok(price));
        let mut lost = Box::pin(bounded.estimate(&vehicle));
        let mut waiting = Box::pin(bounded.estimate(&vehicle));
        assert!((&mut lost).now_or_never().is_none());
        assert!((&mut waiting).now_or_never().is_none());
        assert_eq!(bounded.metrics.running.get(), 1);
        drop(lost);
        drop(hanging);
        assert_eq!((&mut waiting).now_or_never(), Some(Ok(price)));
        assert_eq!((bounded.metrics.running.get(), bounded.permits.available_permits()), (0, 1));
    }

    #[tokio::test]
    async fn an_estimate_that_takes_too_long_is_retried_and_returns_its_permit() {
        let mut bounded = bounded(1, Vec::new());
        bounded.time_limit = Duration::from_millis(20);
        let error = bounded.estimate(&vehicle()).await.unwrap_err();
        assert_eq!(error, EstimateError::Retry("the model did not answer within 20ms".to_owned()));
        assert_eq!((bounded.metrics.retries.get(), bounded.permits.available_permits()), (1, 1));
    }

    #[tokio::test]
    async fn only_transient_failures_count_as_retries() {
        let answers = vec![
            Ok(Price::from_cents(1_00)),
            Err(EstimateError::Reject("no".to_owned())),
            Err(EstimateError::Retry("later".to_owned())),
        ];
        let bounded = bounded(2, answers);
        for expected in [1, 1, 1] {
            let _ = bounded.estimate(&vehicle()).await;
            assert_eq!(bounded.metrics.retries.get(), expected);
        }
    }

    #[tokio::test]
    async fn a_check_shortens_a_long_reason_and_reports_a_panic() {
        let reason = "x".repeat(100_000);
        let bounded = bounded(1, vec![Err(EstimateError::Retry(reason)), Ok(Price::from_cents(1_00))]);
        bounded.check().await.unwrap();
        let reason = bounded.check().await.unwrap_err().to_string();
        assert_eq!(reason.chars().count(), MAX_REASON_CHARS);
        let panicked = bounded.check().await.unwrap_err();
        assert_eq!(panicked.to_string(), "the check of the model panicked");
    }
}
