//! From a vehicle that was processed to its ad.

use std::sync::Arc;

use futures::future::join_all;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};

use super::ad::{Ad, Offer};
use super::store::{AdStore, Insertion};
use crate::event::VehicleProcessed;
use crate::kafka::{Failure, Handler, OutgoingRecord, Record};
use crate::registry::Codec;
use crate::trace::TraceContext;

/// Ads that are written together at most.
const BATCH_LIMIT: usize = 500;
/// Batches that are written at the same time.
const WRITERS: usize = 4;
/// KiB of records whose ads wait or are being written. Below the 48 MB that MongoDB takes in one message.
const ROOM_KIB: u32 = 32 * 1024;

type Answer = oneshot::Sender<Insertion>;

/// Reads processed vehicles, and answers when their ads are kept.
pub(super) struct Ingest {
    codec: Arc<Codec>,
    offers: mpsc::Sender<(Offer, Answer)>,
    room: Semaphore,
}

impl Ingest {
    /// Returns the handler, and the writers that have to run next to it until it is dropped.
    pub(super) fn new(
        codec: Arc<Codec>,
        store: Arc<dyn AdStore>,
        published: Counter,
    ) -> (Self, impl Future<Output = ()>) {
        let (sender, receiver) = mpsc::channel(WRITERS * BATCH_LIMIT);
        let offers = Mutex::new(receiver);
        let writing = async move {
            join_all((0..WRITERS).map(|_| write(&*store, &offers, &published))).await;
        };
        (Self { codec, offers: sender, room: Semaphore::new(ROOM_KIB as usize) }, writing)
    }
}

impl Handler for Ingest {
    async fn handle(&self, record: &Record, _: &TraceContext) -> Result<Option<OutgoingRecord>, Failure> {
        let stopping = || Failure::Transient("ads is stopping".to_owned());
        let kib = record.value.as_ref().map_or(0, Vec::len) / 1024 + 1;
        // One that is larger than all the room takes all of it.
        let kib = u32::try_from(kib).unwrap_or(u32::MAX).min(ROOM_KIB);
        let _room = self.room.acquire_many(kib).await.map_err(|_| stopping())?;
        let processed: VehicleProcessed = self.codec.decode(&record.topic, record.value.as_deref()).await?;
        let offer = Offer::try_from(processed).map_err(Failure::Poison)?;
        let (answer, decided) = oneshot::channel();
        self.offers.send((offer, answer)).await.map_err(|_| stopping())?;
        match decided.await.map_err(|_| stopping())? {
            Insertion::Kept | Insertion::Known => Ok(None),
            Insertion::Refused(reason) => Err(Failure::Poison(reason)),
            Insertion::Doubtful(reason) => Err(Failure::Unknown(reason)),
            Insertion::Unavailable(reason) => Err(Failure::Transient(reason)),
        }
    }
}

/// Writes together what waits together, and alone what comes alone. Of two writers that have the same vin, the store's unique
/// index decides which one keeps it.
async fn write(store: &dyn AdStore, offers: &Mutex<mpsc::Receiver<(Offer, Answer)>>, published: &Counter) {
    let mut waiting = Vec::with_capacity(BATCH_LIMIT);
    while offers.lock().await.recv_many(&mut waiting, BATCH_LIMIT).await > 0 {
        let (ads, answers): (Vec<_>, Vec<_>) =
            waiting.drain(..).map(|(offer, answer)| (Ad::publish(offer), answer)).unzip();
        for (answer, insertion) in answers.into_iter().zip(store.insert(&ads).await) {
            if insertion == Insertion::Kept {
                published.inc();
            }
            // Nothing waits any more when the partition was lost.
            let _ = answer.send(insertion);
        }
    }
}
