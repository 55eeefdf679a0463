//! Writes one batch of vehicles at a time over its own connection, and answers each request.

use std::sync::Arc;

use anyhow::anyhow;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use super::committer::{Insertion, Submission};
use super::vehicle_store::{Appender, Existing, IdsByVin, NewVehicle, VehicleStore};
use super::write_status::WriteStatus;
use crate::database::DatabaseError;
use crate::vehicle::{StockedVehicle, VehicleId};

/// The maximum number of retries of a transaction that conflicted with another one.
const CONFLICT_RETRIES: u32 = 5;

/// The state that all writers share.
#[derive(Clone)]
pub(super) struct WriterContext {
    pub store: Arc<dyn VehicleStore>,
    /// Notified when vehicles were written.
    pub arrivals: Arc<Notify>,
    pub status: WriteStatus,
    accepted: Counter,
    batch_sizes: Histogram,
}

impl WriterContext {
    pub fn new(store: Arc<dyn VehicleStore>, arrivals: Arc<Notify>, registry: &mut Registry) -> Self {
        let accepted = Counter::default();
        registry.register("vehicles_accepted", "Vehicles written to the database", accepted.clone());
        let batch_sizes = Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]);
        registry.register("commit_vehicles", "Vehicles written by one transaction", batch_sizes.clone());
        Self { store, arrivals, status: WriteStatus::default(), accepted, batch_sizes }
    }
}

/// A connection that writes batches.
pub(super) struct BatchWriter {
    context: WriterContext,
    /// The connection, opened when it is first needed and reopened after it was lost.
    appender: Option<Box<dyn Appender>>,
}

impl BatchWriter {
    pub fn new(context: WriterContext) -> Self {
        Self { context, appender: None }
    }

    /// Writes vehicles with different vins and answers each request.
    pub async fn write(&mut self, mut batch: Vec<Submission>) {
        // Skip vehicles whose client has disconnected.
        batch.retain(|submission| !submission.waiter.is_gone());
        if batch.is_empty() {
            return;
        }
        let vehicles: Vec<_> = batch.iter().map(|submission| &submission.new).collect();
        let outcomes = self.append(&vehicles).await;
        let written = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Some(_)))).count() as u64;
        if written > 0 {
            self.context.accepted.inc_by(written);
            self.context.arrivals.notify_one();
        }
        // Vehicles whose vin or key exists need a lookup, which may fail. The other requests do not wait for it.
        let mut refused = Vec::new();
        for (Submission { new, waiter }, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Ok(Some(id)) => {
                    let NewVehicle { vehicle, created_at, .. } = new;
                    waiter.answer(Ok(Insertion::Stocked(StockedVehicle { id, created_at, vehicle })));
                }
                Ok(None) => refused.push(Submission { new, waiter }),
                Err(error) => waiter.answer(Err(error)),
            }
        }
        if !refused.is_empty() {
            self.answer_refused(refused).await;
        }
    }

    async fn answer_refused(&mut self, refused: Vec<Submission>) {
        let vins = refused.iter().map(|submission| submission.new.vin().to_owned()).collect();
        let keys = refused.iter().filter_map(|submission| submission.new.idempotency_key.as_ref());
        let keys = keys.map(|key| key.as_str().to_owned()).collect();
        // A failed part of the batch may have closed the connection that wrote the other parts.
        let existing = match self.appender().await {
            Ok(appender) => appender.existing(vins, keys).await.map_err(Arc::new),
            Err(error) => Err(Arc::new(error)),
        };
        if existing.is_err() {
            self.appender = None;
        }
        for Submission { new, waiter } in refused {
            waiter.answer(match &existing {
                Ok(existing) => judge(&new, existing).map_err(Arc::new),
                Err(error) => Err(Arc::clone(error)),
            });
        }
    }

    /// Writes vehicles and returns the id of each one, or `None` when its vin or key already exists. Splits a batch
    /// that the database refuses in half, until the refused vehicle is isolated.
    async fn append(
        &mut self,
        vehicles: &[&NewVehicle],
    ) -> Vec<Result<Option<VehicleId>, Arc<DatabaseError>>> {
        let mut outcomes = Vec::with_capacity(vehicles.len());
        let mut pending = vec![vehicles];
        while let Some(part) = pending.pop() {
            match self.append_part(part).await {
                Ok(ids) => {
                    self.context.status.written();
                    outcomes.extend(part.iter().map(|new| Ok(ids.get(new.vin()).copied())));
                }
                Err(DatabaseError::Refused(_)) if part.len() > 1 => {
                    let (left, right) = part.split_at(part.len() / 2);
                    pending.extend([right, left]);
                }
                Err(error) => {
                    self.context.status.failed(&error);
                    let lost = matches!(error, DatabaseError::Unavailable(_) | DatabaseError::ReadOnly(_));
                    let error = Arc::new(error);
                    // While the database is unavailable, each of the other parts would only wait for another timeout.
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

    /// Writes one part of a batch. Never repeats a statement whose outcome is unknown.
    async fn append_part(&mut self, part: &[&NewVehicle]) -> Result<IdsByVin, DatabaseError> {
        let mut retries = 0;
        loop {
            match self.appender().await?.append(part).await {
                Ok(ids) => {
                    self.context.batch_sizes.observe(u32::try_from(part.len()).map_or(f64::MAX, f64::from));
                    return Ok(ids);
                }
                Err(DatabaseError::Conflict(error)) if retries < CONFLICT_RETRIES => {
                    retries += 1;
                    tracing::debug!(%error, retries, "transaction conflicted with another one, retrying");
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

    async fn appender(&mut self) -> Result<&mut Box<dyn Appender>, DatabaseError> {
        // Nothing was sent over a connection that is already broken, so writing over a new one writes nothing twice.
        let appender = match self.appender.take().filter(|appender| !appender.is_broken()) {
            Some(appender) => appender,
            None => self.context.store.appender().await?,
        };
        Ok(self.appender.insert(appender))
    }
}

/// Decides what became of a vehicle that was not inserted. The key decides before the vin: with the same key, the same
/// vehicle is a repetition.
fn judge(new: &NewVehicle, existing: &Existing) -> Result<Insertion, DatabaseError> {
    match new.idempotency_key.as_ref().and_then(|key| existing.by_key.get(key.as_str())) {
        Some(Ok(first)) if first.vehicle == new.vehicle => return Ok(Insertion::Stocked(first.clone())),
        // Also when another program has changed the vehicle since.
        Some(_) => return Ok(Insertion::KeyReused),
        None => {}
    }
    existing.by_vin.get(new.vin()).map(|id| Insertion::Exists(*id)).ok_or_else(|| {
        DatabaseError::Refused(anyhow!(
            "the vehicle was not inserted, though neither its vin nor its key exists: a trigger or an index that was \
             added refuses it, or the vehicle with the same vin was removed in the meantime"
        ))
    })
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::database::Access;
    use crate::stock::committer::Waiter;
    use crate::stock::vehicle_store::SqliteVehicles;

    /// A connection on which every transaction with the vehicle `vin` fails, and all other vehicles already exist.
    struct Failing {
        vin: &'static str,
        fail: fn(anyhow::Error) -> DatabaseError,
    }

    #[async_trait]
    impl Appender for Failing {
        async fn append(&mut self, vehicles: &[&NewVehicle]) -> Result<IdsByVin, DatabaseError> {
            match vehicles {
                [new] if new.vin() == self.vin => Err((self.fail)(anyhow!("the failure"))),
                [_] => Ok(IdsByVin::new()),
                _ => Err(DatabaseError::Refused(anyhow!("too many at once"))),
            }
        }

        fn is_broken(&self) -> bool {
            false
        }

        async fn existing(&mut self, _: Vec<String>, _: Vec<String>) -> Result<Existing, DatabaseError> {
            Err(DatabaseError::Internal(anyhow!("a lookup on the closed connection")))
        }
    }

    #[tokio::test]
    async fn an_existing_vehicle_is_named_although_another_vehicle_of_its_batch_closed_the_connection() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("stock.db");
        let store: Arc<dyn VehicleStore> = Arc::new(SqliteVehicles::open(file, Access::Owner).await.unwrap());
        let (known, failing) = (NewVehicle::sample("known"), NewVehicle::sample("failing"));
        let ids = store.appender().await.unwrap().append(&[&known]).await.unwrap();
        for fail in [DatabaseError::Conflict, DatabaseError::Internal, DatabaseError::Unavailable] {
            let context = WriterContext::new(Arc::clone(&store), Arc::default(), &mut Registry::default());
            let mut writer = BatchWriter::new(context);
            writer.appender = Some(Box::new(Failing { vin: "failing", fail }));
            let (submissions, answers): (Vec<_>, Vec<_>) = [&known, &failing]
                .map(|new| {
                    let (waiter, answered) = Waiter::new();
                    (Submission { new: new.clone(), waiter }, answered)
                })
                .into_iter()
                .unzip();
            writer.write(submissions).await;
            let mut outcomes = Vec::new();
            for answer in answers {
                outcomes.push(answer.await.unwrap());
            }
            assert_eq!(outcomes[0].as_ref().unwrap(), &Insertion::Exists(ids["known"]));
            let failure = outcomes[1].as_ref().unwrap_err().to_string();
            assert!(failure.contains("the failure"), "{failure}");
        }
    }
}
