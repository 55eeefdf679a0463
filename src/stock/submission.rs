//! Submits vehicles to the queue of those to be written, and returns the outcome of each.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::idempotency::{KeysUnderWay, UnderWay};
use super::vehicle_store::NewVehicle;
use crate::database::{DATABASE_TIMEOUT, DatabaseError};
use crate::vehicle::{StockedVehicle, VehicleId};

/// The maximum number of vehicles that wait to be written. More would wait longer than a client should. Each takes at
/// most about 20 KB.
const QUEUE_LIMIT: usize = 512;
/// The time that a request waits for its vehicle to be written.
const PATIENCE: Duration = DATABASE_TIMEOUT.saturating_mul(2);

/// The outcome for one vehicle that was submitted.
#[derive(Clone, Debug, PartialEq)]
pub enum Insertion {
    /// The vehicle was written, now or by an earlier request with the same idempotency key.
    Stocked(StockedVehicle),
    /// A vehicle with this vin already exists.
    Exists(VehicleId),
    /// The idempotency key belongs to another vehicle.
    KeyReused,
}

/// The reason why a vehicle was not written, or may not have been written.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("too many vehicles are waiting to be written")]
    Overloaded,
    #[error("a request with the same idempotency key is under way")]
    UnderWay,
    #[error(transparent)]
    Database(Arc<DatabaseError>),
}

pub(super) type Answer = Result<Insertion, Arc<DatabaseError>>;

pub(super) struct Submission {
    pub new: NewVehicle,
    pub waiter: Waiter,
}

/// The request that waits for the outcome.
pub(super) struct Waiter {
    answer: oneshot::Sender<Answer>,
    /// The request's idempotency key, which no other request uses until the outcome is known.
    under_way: Option<UnderWay>,
}

impl Waiter {
    /// Returns whether the client has disconnected or stopped waiting.
    pub fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }

    pub fn answer(self, answer: Answer) {
        // The key must be free when the client has the answer and repeats its request.
        drop(self.under_way);
        // The client may have disconnected in the meantime.
        let _ = self.answer.send(answer);
    }
}

/// The sending side of the queue.
#[derive(Clone)]
pub struct Submitter {
    queue: mpsc::Sender<Submission>,
    keys: KeysUnderWay,
}

impl Submitter {
    /// Returns a submitter and the queue of what it submits.
    pub(super) fn new() -> (Self, mpsc::Receiver<Submission>) {
        let (sender, queue) = mpsc::channel(QUEUE_LIMIT);
        (Self { queue: sender, keys: KeysUnderWay::default() }, queue)
    }

    /// Queues a vehicle and waits until it is written. The vehicle may be written even after the caller stopped
    /// waiting; its idempotency key is under way until then.
    ///
    /// # Errors
    /// Fails when the queue is full, a vehicle with the same key is under way, or the database did not write the
    /// vehicle. After [`DatabaseError::Unavailable`] it may have been written.
    pub async fn submit(&self, new: NewVehicle) -> Result<Insertion, SubmitError> {
        let under_way = match &new.idempotency_key {
            Some(key) => Some(self.keys.begin(key).ok_or(SubmitError::UnderWay)?),
            None => None,
        };
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter { answer, under_way };
        let unavailable = |why: &str| {
            SubmitError::Database(Arc::new(DatabaseError::Unavailable(anyhow!("the vehicle {why}"))))
        };
        self.queue.try_send(Submission { new, waiter }).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::Overloaded,
            TrySendError::Closed(_) => unavailable("arrived during the shutdown of the role"),
        })?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer.map_err(SubmitError::Database),
            Ok(Err(_)) => Err(unavailable("was not written before the role ended")),
            Err(_) => Err(unavailable("was not written in time")),
        }
    }
}

#[cfg(test)]
impl Waiter {
    /// Creates a waiter without an idempotency key and the receiver of its answer.
    pub fn new() -> (Self, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        (Self { answer, under_way: None }, answered)
    }
}
