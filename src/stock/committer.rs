//! Writes vehicles to the database, many in one transaction.
//!
//! Requests put their vehicles into a bounded queue. One task takes all vehicles that wait there and writes them
//! together, so that concurrent requests share a round trip and a flush to disk. A single request is written without
//! delay. The task owns the connections, so a client that disconnects does not interrupt a write.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::batch_writer::{BatchWriter, WriterContext};
use super::submission::{Submission, Submitter};
use super::vehicle_store::VehicleStore;
use super::write_status::WriteStatus;

/// The maximum number of vehicles that one transaction writes.
const BATCH_VEHICLES: usize = 256;
/// The maximum size in bytes of the events that one transaction writes.
const BATCH_BYTES: usize = 1 << 20;
/// The number of connections that write. While the database flushes one batch to disk, it already has the next one and
/// writes it as soon as the lock of the log is free.
const WRITERS: usize = 2;

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
        let (submitter, queue) = Submitter::new();
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::database::Access;
    use crate::stock::IdempotencyKey;
    use crate::stock::submission::{Insertion, SubmitError, Waiter};
    use crate::stock::vehicle_store::{NewVehicle, SqliteVehicles};

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
