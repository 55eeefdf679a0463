//! Writes vehicles to the database, many in one transaction.
//!
//! Requests hand their vehicles to a bounded queue. One task takes what waits there and writes it together, so that
//! concurrent requests share a round trip and a flush to disk; a lone request leaves at once. The task owns the
//! connection: a client that goes away leaves nothing half-done.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::store::{Appender, IdsByVin, NewVehicle, VehicleStore};
use super::write_status::WriteStatus;
use crate::database::{DATABASE_TIMEOUT, DatabaseError};
use crate::vehicle::{StockedVehicle, VehicleId};

/// Vehicles that may wait to be written: more would wait longer than a client should. Each takes at most about 20 KB.
const QUEUE_LIMIT: usize = 1_024;
/// Vehicles written by one transaction at most.
const BATCH_VEHICLES: usize = 500;
/// Bytes of events written by one transaction at most.
const BATCH_BYTES: usize = 1 << 20;
/// How often a transaction that collided with another is made again.
const CONFLICT_RETRIES: u32 = 5;
/// How long a request waits for its vehicle to be written.
const PATIENCE: Duration = DATABASE_TIMEOUT.saturating_mul(2);

/// The outcome for one vehicle that was submitted.
#[derive(Clone, Debug, PartialEq)]
pub enum Insertion {
    Stocked(StockedVehicle),
    /// A vehicle with this vin was there already.
    Exists(VehicleId),
}

/// Why a vehicle was not written, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("too many vehicles wait to be written")]
    Overloaded,
    #[error(transparent)]
    Database(Arc<DatabaseError>),
}

type Answer = Result<Insertion, Arc<DatabaseError>>;

struct Submission {
    new: NewVehicle,
    answer: oneshot::Sender<Answer>,
}

/// The entry to the queue.
#[derive(Clone)]
pub struct Submitter {
    queue: mpsc::Sender<Submission>,
}

impl Submitter {
    /// Waits until the vehicle is written. It may be written even after the client stopped waiting.
    ///
    /// # Errors
    /// When the queue is full, or the database did not write it; after [`DatabaseError::Unavailable`] it may have.
    pub async fn submit(&self, new: NewVehicle) -> Result<Insertion, SubmitError> {
        let (answer, answered) = oneshot::channel();
        let unavailable = |why: &str| {
            SubmitError::Database(Arc::new(DatabaseError::Unavailable(anyhow!("the vehicle {why}"))))
        };
        self.queue.try_send(Submission { new, answer }).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::Overloaded,
            TrySendError::Closed(_) => unavailable("came while the role ended"),
        })?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer.map_err(SubmitError::Database),
            Ok(Err(_)) => Err(unavailable("was not written before the role ended")),
            Err(_) => Err(unavailable("was not written in time")),
        }
    }
}

/// The task that writes.
pub struct Committer {
    store: Arc<dyn VehicleStore>,
    queue: mpsc::Receiver<Submission>,
    /// Notified when something was written.
    arrivals: Arc<Notify>,
    accepted: Counter,
    batch_sizes: Histogram,
    appender: Option<Box<dyn Appender>>,
    status: WriteStatus,
}

impl Committer {
    pub fn new(
        store: Arc<dyn VehicleStore>,
        arrivals: Arc<Notify>,
        registry: &mut Registry,
    ) -> (Submitter, Self) {
        let (sender, queue) = mpsc::channel(QUEUE_LIMIT);
        let accepted = Counter::default();
        registry.register("vehicles_accepted", "Vehicles written to the database", accepted.clone());
        let batch_sizes = Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]);
        registry.register("commit_vehicles", "Vehicles written by one transaction", batch_sizes.clone());
        let status = WriteStatus::default();
        let committer = Self { store, queue, arrivals, accepted, batch_sizes, appender: None, status };
        (Submitter { queue: sender }, committer)
    }

    /// Returns whether vehicles can be written, as long as the task works.
    pub fn status(&self) -> WriteStatus {
        self.status.clone()
    }

    /// Works until `shutdown`, then writes what still waits.
    pub async fn run(mut self, shutdown: &CancellationToken) {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(submission) => submission,
                None => tokio::select! {
                    biased;
                    submission = self.queue.recv() => match submission {
                        Some(submission) => submission,
                        None => return,
                    },
                    () = shutdown.cancelled() => {
                        self.queue.close();
                        continue;
                    }
                },
            };
            let batch;
            (batch, next) = self.gather(first);
            self.write(batch).await;
        }
    }

    /// Takes what waits, and what did not fit: the vehicles of a batch have different vins.
    fn gather(&mut self, first: Submission) -> (Vec<Submission>, Option<Submission>) {
        let mut bytes = first.new.event.len();
        let mut vins = HashSet::from([first.new.vin().to_owned()]);
        let mut batch = vec![first];
        while batch.len() < BATCH_VEHICLES {
            let Ok(next) = self.queue.try_recv() else { break };
            bytes += next.new.event.len();
            if bytes > BATCH_BYTES || !vins.insert(next.new.vin().to_owned()) {
                return (batch, Some(next));
            }
            batch.push(next);
        }
        (batch, None)
    }

    async fn write(&mut self, mut batch: Vec<Submission>) {
        // A client that is gone is not served.
        batch.retain(|submission| !submission.answer.is_closed());
        if batch.is_empty() {
            return;
        }
        let vehicles: Vec<_> = batch.iter().map(|submission| &submission.new).collect();
        let outcomes = self.append(&vehicles).await;
        let kept = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Some(_)))).count() as u64;
        if kept > 0 {
            self.accepted.inc_by(kept);
            self.arrivals.notify_one();
        }
        // Those whose vin was there already wait for a look-up, which may fail, and the others do not.
        let mut existing = Vec::new();
        for (Submission { new, answer }, outcome) in batch.into_iter().zip(outcomes) {
            let answered = match outcome {
                Ok(Some(id)) => {
                    let NewVehicle { vehicle, created_at, .. } = new;
                    Ok(Insertion::Stocked(StockedVehicle { id, created_at, vehicle }))
                }
                Ok(None) => {
                    existing.push((new.vin().to_owned(), answer));
                    continue;
                }
                Err(error) => Err(error),
            };
            // The client may have gone meanwhile.
            let _ = answer.send(answered);
        }
        if !existing.is_empty() {
            self.answer_existing(existing).await;
        }
    }

    async fn answer_existing(&mut self, existing: Vec<(String, oneshot::Sender<Answer>)>) {
        let vins = existing.iter().map(|(vin, _)| vin.clone()).collect();
        let ids = match &mut self.appender {
            Some(appender) => appender.ids_of(vins).await.map_err(Arc::new),
            None => Err(Arc::new(DatabaseError::Unavailable(anyhow!("the connection was lost")))),
        };
        if ids.is_err() {
            self.appender = None;
        }
        for (vin, answer) in existing {
            let answered = match &ids {
                Ok(ids) => ids.get(&vin).map(|id| Insertion::Exists(*id)).ok_or_else(|| {
                    let removed = anyhow!("the vehicle with the same vin was removed meanwhile");
                    Arc::new(DatabaseError::Conflict(removed))
                }),
                Err(error) => Err(Arc::clone(error)),
            };
            let _ = answer.send(answered);
        }
    }

    /// Returns for each vehicle its id, or `None` when its vin was there already. A vehicle that the database refuses
    /// is told apart from its neighbours by halving the batch.
    async fn append(
        &mut self,
        vehicles: &[&NewVehicle],
    ) -> Vec<Result<Option<VehicleId>, Arc<DatabaseError>>> {
        let mut outcomes = Vec::with_capacity(vehicles.len());
        let mut pending = vec![vehicles];
        while let Some(part) = pending.pop() {
            match self.append_part(part).await {
                Ok(ids) => {
                    self.status.written();
                    outcomes.extend(part.iter().map(|new| Ok(ids.get(new.vin()).copied())));
                }
                Err(DatabaseError::Refused(_)) if part.len() > 1 => {
                    let (left, right) = part.split_at(part.len() / 2);
                    pending.extend([right, left]);
                }
                Err(error) => {
                    self.status.failed(&error);
                    let lost = matches!(error, DatabaseError::Unavailable(_) | DatabaseError::ReadOnly(_));
                    let error = Arc::new(error);
                    // With the database unavailable the other parts would only wait for another timeout each.
                    let failed = if lost { vehicles.len() - outcomes.len() } else { part.len() };
                    outcomes.extend((0..failed).map(|_| Err(Arc::clone(&error))));
                    if lost {
                        break;
                    }
                }
            }
        }
        outcomes
    }

    /// Never makes a statement again whose outcome is unknown.
    async fn append_part(&mut self, part: &[&NewVehicle]) -> Result<IdsByVin, DatabaseError> {
        let mut retries = 0;
        loop {
            // Nothing was sent on it: a vehicle that is written on another one is not written twice.
            self.appender.take_if(|appender| appender.is_broken());
            let appender = match &mut self.appender {
                Some(appender) => appender,
                None => self.appender.insert(self.store.appender().await?),
            };
            match appender.append(part).await {
                Ok(ids) => {
                    self.batch_sizes.observe(u32::try_from(part.len()).map_or(f64::MAX, f64::from));
                    return Ok(ids);
                }
                Err(DatabaseError::Conflict(error)) if retries < CONFLICT_RETRIES => {
                    retries += 1;
                    tracing::debug!(%error, retries, "a transaction collided with another, making it again");
                }
                Err(error) => {
                    if !matches!(error, DatabaseError::Refused(_)) {
                        self.appender = None;
                    }
                    return Err(error);
                }
            }
        }
    }
}
