//! Writes vehicles to the database, many in one transaction.
//!
//! Requests put their vehicles into a bounded queue. One task takes all vehicles that wait there and writes them
//! together, so that concurrent requests share a round trip and a flush to disk. A single request is written without
//! delay. The task owns the connections, so a client that disconnects does not interrupt a write.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::batch_writer::{BatchWriter, WriterContext};
use super::idempotency::{KeysUnderWay, UnderWay};
use super::vehicle_store::{NewVehicle, VehicleStore};
use super::write_status::WriteStatus;
use crate::database::{DATABASE_TIMEOUT, DatabaseError};
use crate::vehicle::{StockedVehicle, VehicleId};

/// The maximum number of vehicles that wait to be written. More would wait longer than a client should. Each takes at
/// most about 20 KB.
const QUEUE_LIMIT: usize = 512;
/// The maximum number of vehicles that one transaction writes.
const BATCH_VEHICLES: usize = 256;
/// The maximum size in bytes of the events that one transaction writes.
const BATCH_BYTES: usize = 1 << 20;
/// The number of connections that write. While the database flushes one batch to disk, it already has the next one and
/// writes it as soon as the lock of the log is free.
const WRITERS: usize = 2;
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

/// The task that writes the queued vehicles.
pub struct Committer {
    queue: mpsc::Receiver<Submission>,
    context: WriterContext,
}

impl Committer {
    pub fn new(
        store: Arc<dyn VehicleStore>,
        arrivals: Arc<Notify>,
        registry: &mut Registry,
    ) -> (Submitter, Self) {
        let (sender, queue) = mpsc::channel(QUEUE_LIMIT);
        let submitter = Submitter { queue: sender, keys: KeysUnderWay::default() };
        (submitter, Self { queue, context: WriterContext::new(store, arrivals, registry) })
    }

    /// Returns the status of the last writes, which stays valid while the task runs.
    pub fn status(&self) -> WriteStatus {
        self.context.status.clone()
    }

    /// Writes vehicles until `shutdown`, then writes those that are still queued.
    pub async fn run(mut self, shutdown: &CancellationToken) {
        let mut idle: Vec<_> = (0..WRITERS).map(|_| BatchWriter::new(self.context.clone())).collect();
        let mut writing = FuturesUnordered::new();
        let mut batch = Batch::default();
        let mut open = true;
        while open || !writing.is_empty() {
            tokio::select! {
                biased;
                Some(writer) = writing.next() => idle.push(writer),
                () = shutdown.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                submission = self.queue.recv(), if open && batch.is_empty() => match submission {
                    Some(submission) => batch.add(submission),
                    None => open = false,
                },
            }
            while let Some(writer) = idle.pop_if(|_| !batch.is_empty()) {
                while !batch.is_full()
                    && let Ok(submission) = self.queue.try_recv()
                {
                    batch.add(submission);
                }
                writing.push(write(writer, batch.take()));
            }
        }
    }
}

async fn write(mut writer: BatchWriter, batch: Vec<Submission>) -> BatchWriter {
    writer.write(batch).await;
    writer
}

/// Vehicles with different vins that are written together.
#[derive(Default)]
struct Batch {
    vehicles: Vec<Submission>,
    vins: HashSet<String>,
    bytes: usize,
    /// The vehicles that must wait for the next batch.
    later: Vec<Submission>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.vehicles.is_empty()
    }

    fn is_full(&self) -> bool {
        self.vehicles.len() + self.later.len() >= BATCH_VEHICLES || self.bytes >= BATCH_BYTES
    }

    fn add(&mut self, submission: Submission) {
        let bytes = self.bytes + submission.new.event.len();
        let fits = self.is_empty() || bytes <= BATCH_BYTES;
        if fits && self.vins.insert(submission.new.vin().to_owned()) {
            self.bytes = bytes;
            self.vehicles.push(submission);
        } else {
            self.later.push(submission);
        }
    }

    /// Takes the vehicles to write now. Those that had to wait begin the next batch.
    fn take(&mut self) -> Vec<Submission> {
        let Self { vehicles, later, .. } = std::mem::take(self);
        for submission in later {
            self.add(submission);
        }
        vehicles
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::database::Access;
    use crate::stock::IdempotencyKey;
    use crate::stock::vehicle_store::SqliteVehicles;

    fn submission(vin: u8) -> Submission {
        Submission { new: NewVehicle::sample(&vin.to_string()), waiter: Waiter::new().0 }
    }

    proptest! {
        /// A repeated vin waits for the next batch and does not delay any other vehicle.
        #[test]
        fn batches_contain_each_vin_once_and_lose_no_vehicle(vins in prop::collection::vec(0..6_u8, 0..60)) {
            let mut batch = Batch::default();
            for vin in &vins {
                batch.add(submission(*vin));
            }
            let mut rest: Vec<_> = vins.iter().map(u8::to_string).collect();
            while !batch.is_empty() {
                let taken: Vec<_> = batch.take().iter().map(|taken| taken.new.vin().to_owned()).collect();
                let distinct: HashSet<_> = rest.iter().cloned().collect();
                prop_assert_eq!(taken.len(), distinct.len());
                for vin in &taken {
                    let first = rest.iter().position(|waiting| waiting == vin);
                    rest.remove(first.unwrap());
                }
            }
            prop_assert!(rest.is_empty());
        }
    }

    #[tokio::test]
    async fn a_key_is_under_way_until_its_vehicle_is_written_or_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteVehicles::open(directory.path().join("stock.db"), Access::Owner).await.unwrap();
        let (submitter, committer) =
            Committer::new(Arc::new(store), Arc::default(), &mut Registry::default());
        let key = IdempotencyKey::parse(b"key").unwrap();
        let new = || NewVehicle { idempotency_key: Some(key.clone()), ..submission(1).new };
        let mut first = Box::pin(submitter.submit(new()));
        tokio::select! {
            biased;
            outcome = &mut first => panic!("nothing writes it yet: {outcome:?}"),
            () = std::future::ready(()) => {}
        }
        assert!(matches!(submitter.submit(new()).await, Err(SubmitError::UnderWay)));
        // The client disconnects, but its vehicle is still in the queue.
        drop(first);
        assert!(matches!(submitter.submit(new()).await, Err(SubmitError::UnderWay)));
        let shutdown = CancellationToken::new();
        let repeat = async {
            let outcome = loop {
                match submitter.submit(new()).await {
                    Err(SubmitError::UnderWay) => tokio::task::yield_now().await,
                    outcome => break outcome.unwrap(),
                }
            };
            assert_eq!(
                submitter.submit(new()).await.unwrap(),
                outcome,
                "the key is free as soon as it is answered"
            );
            shutdown.cancel();
            outcome
        };
        let ((), outcome) = tokio::join!(committer.run(&shutdown), repeat);
        assert!(matches!(outcome, Insertion::Stocked(_)), "{outcome:?}");
    }

    #[test]
    fn the_size_of_a_batch_is_bounded() {
        let mut batch = Batch::default();
        (0..BATCH_VEHICLES).for_each(|_| batch.add(submission(1)));
        assert!(batch.is_full());
        assert_eq!(batch.take().len(), 1);
    }
}
