//! Turns processed vehicles into ads.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot};

use super::ad::{Ad, AdIds, Offer};
use super::ad_store::{AdStore, Insertion};
use crate::database::DatabaseError;
use crate::event::VehicleProcessed;
use crate::kafka::{Failure, Handler, OutgoingRecord, Record};
use crate::registry::Codec;
use crate::trace::TraceContext;

/// The maximum number of ads that are written together.
const BATCH_LIMIT: usize = 2_000;

/// The time without a stored ad after which an ambiguous error is attributed to the store.
const DOUBT: Duration = Duration::from_secs(120);

type Answer = oneshot::Sender<Insertion>;

/// An offer that waits for the writer. The record's task owns it, so that it is dropped with a lost partition.
type Pending = Mutex<Option<(Offer, Answer)>>;

/// Reads processed vehicles and completes each record when its ad is stored.
pub(super) struct Ingest {
    codec: Arc<Codec>,
    offers: mpsc::Sender<Weak<Pending>>,
}

impl Ingest {
    /// Returns the handler and the writer, which must run until the handler is dropped.
    pub(super) fn new(
        codec: Arc<Codec>,
        store: Arc<dyn AdStore>,
        published: Counter,
    ) -> (Self, impl Future<Output = ()>) {
        // Buffers the next batch while one is written.
        let (sender, receiver) = mpsc::channel(BATCH_LIMIT);
        (Self { codec, offers: sender }, write(store, receiver, published))
    }
}

impl Handler for Ingest {
    async fn handle(&self, record: &Record, _: &TraceContext) -> Result<Option<OutgoingRecord>, Failure> {
        let stopping = || Failure::Transient("ads is stopping".to_owned());
        let processed: VehicleProcessed = self.codec.decode(&record.topic, record.value()).await?;
        let offer = Offer::try_from(processed).map_err(Failure::Poison)?;
        let (answer, decided) = oneshot::channel();
        let pending = Arc::new(Mutex::new(Some((offer, answer))));
        self.offers.send(Arc::downgrade(&pending)).await.map_err(|_| stopping())?;
        match decided.await.map_err(|_| stopping())? {
            Insertion::Kept | Insertion::Known => Ok(None),
            Insertion::Refused(reason) => Err(Failure::Poison(reason)),
            Insertion::Doubtful(reason) => Err(Failure::Unknown(reason)),
            Insertion::Unavailable(reason) => Err(Failure::Transient(reason)),
        }
    }
}

/// Distinguishes an ad that the store refuses from a store that refuses every ad.
#[derive(Default)]
struct Doubts {
    /// When the store last accepted an ad.
    kept_at: Option<Instant>,
}

impl Doubts {
    /// Returns `insertions`. Doubtful ones become unavailable unless the store has recently accepted an ad.
    fn weigh(&mut self, mut insertions: Vec<Insertion>, now: Instant) -> Vec<Insertion> {
        if insertions.iter().any(|insertion| matches!(insertion, Insertion::Kept | Insertion::Known)) {
            self.kept_at = Some(now);
        }
        if self.kept_at.is_none_or(|kept_at| now.saturating_duration_since(kept_at) > DOUBT) {
            for insertion in &mut insertions {
                if let Insertion::Doubtful(reason) = insertion {
                    *insertion = Insertion::Unavailable(std::mem::take(reason));
                }
            }
        }
        insertions
    }
}

/// Writes all waiting offers in one batch, and one batch after another. Ids are therefore drawn in the order in which
/// ads become visible, which clients that follow `GET /ads?after=` rely on. They continue after the newest ad, which an
/// instance with another clock may have written.
async fn write(store: Arc<dyn AdStore>, mut queue: mpsc::Receiver<Weak<Pending>>, published: Counter) {
    let (mut doubts, mut ids) = (Doubts::default(), None);
    let mut waiting = Vec::with_capacity(BATCH_LIMIT);
    while queue.recv_many(&mut waiting, BATCH_LIMIT).await > 0 {
        let offers = waiting.drain(..).filter_map(|pending: Weak<Pending>| {
            pending.upgrade()?.lock().unwrap_or_else(PoisonError::into_inner).take()
        });
        let (offers, answers): (Vec<_>, Vec<_>) = offers.unzip();
        if offers.is_empty() {
            continue;
        }
        let insertions = match begin(&*store, &mut ids).await {
            Ok(ids) => {
                let ads: Vec<_> = offers.into_iter().map(|offer| Ad::publish(ids.next(), offer)).collect();
                doubts.weigh(store.insert(&ads).await, Instant::now())
            }
            Err(error) => vec![Insertion::Unavailable(error.to_string()); answers.len()],
        };
        for (answer, insertion) in answers.into_iter().zip(insertions) {
            if insertion == Insertion::Kept {
                published.inc();
            }
            // The receiver is gone when the partition was lost.
            let _ = answer.send(insertion);
        }
    }
}

/// Returns the ids to draw from, which continue after the newest ad.
async fn begin<'a>(store: &dyn AdStore, ids: &'a mut Option<AdIds>) -> Result<&'a mut AdIds, DatabaseError> {
    if ids.is_none() {
        let mut begun = AdIds::new();
        if let Some(newest) = store.newest().await? {
            begun.continue_after(newest);
        }
        *ids = Some(begun);
    }
    Ok(ids.get_or_insert_with(AdIds::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_accepts_nothing_is_unavailable_and_no_ad_is_doubtful() {
        let mut doubts = Doubts::default();
        let now = Instant::now();
        let doubtful = || Insertion::Doubtful("a reason".to_owned());
        let unavailable = || Insertion::Unavailable("a reason".to_owned());
        assert_eq!(doubts.weigh(vec![doubtful()], now), [unavailable()]);
        assert_eq!(doubts.weigh(vec![doubtful(), Insertion::Kept], now), [doubtful(), Insertion::Kept]);
        assert_eq!(doubts.weigh(vec![doubtful()], now + DOUBT), [doubtful()]);
        assert_eq!(doubts.weigh(vec![doubtful()], now + DOUBT * 2), [unavailable()]);
    }
}
