//! From a vehicle that was processed to its ad.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot};

use super::ad::{Ad, Offer};
use super::store::AdStore;
use crate::event::VehicleProcessed;
use crate::kafka::{Failure, Handler, OutgoingRecord, Record};
use crate::registry::Codec;
use crate::trace::TraceContext;

/// Ads that are written together at most.
const BATCH_LIMIT: usize = 500;

type Answer = oneshot::Sender<Result<(), String>>;

/// Reads processed vehicles, and answers when their ads are kept.
pub(super) struct Ingest {
    codec: Arc<Codec>,
    offers: mpsc::Sender<(Offer, Answer)>,
}

impl Ingest {
    /// The handler, and the writer that has to run beside it until the handler is dropped.
    pub(super) fn new(
        codec: Arc<Codec>,
        store: Arc<dyn AdStore>,
        published: Counter,
    ) -> (Self, impl Future<Output = ()>) {
        let (sender, receiver) = mpsc::channel(BATCH_LIMIT);
        (Self { codec, offers: sender }, write(store, receiver, published))
    }
}

impl Handler for Ingest {
    async fn handle(&self, record: &Record, _: &TraceContext) -> Result<Option<OutgoingRecord>, Failure> {
        let processed: VehicleProcessed = self.codec.decode(record.value.as_deref()).await?;
        let offer = Offer::try_from(processed).map_err(Failure::Poison)?;
        let (answer, kept) = oneshot::channel();
        let stopping = || Failure::Transient("ads is stopping".to_owned());
        self.offers.send((offer, answer)).await.map_err(|_| stopping())?;
        kept.await.map_err(|_| stopping())?.map_err(Failure::Transient)?;
        Ok(None)
    }
}

/// Writes together what waits together, and alone what comes alone.
async fn write(store: Arc<dyn AdStore>, mut offers: mpsc::Receiver<(Offer, Answer)>, published: Counter) {
    let mut waiting = Vec::with_capacity(BATCH_LIMIT);
    while offers.recv_many(&mut waiting, BATCH_LIMIT).await > 0 {
        let (ads, answers): (Vec<_>, Vec<_>) =
            waiting.drain(..).map(|(offer, answer)| (Ad::publish(offer), answer)).unzip();
        let outcome = match store.insert(&ads).await {
            Ok(new) => {
                published.inc_by(new as u64);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        for answer in answers {
            // Nobody waits any more when the partition was lost.
            let _ = answer.send(outcome.clone());
        }
    }
}
