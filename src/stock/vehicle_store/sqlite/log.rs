//! Implements the event log in SQLite. The owner of the file is the only writer, so ids become visible in ascending
//! order.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};

use super::{SharedFile, lease_queries, lock, log_queries};
use crate::database::DatabaseError;
use crate::database::sqlite::transaction;
use crate::stock::vehicle_store::{
    ClaimedEvents, EventLog, LastPublished, Lease, LogEntry, LogRead, PositionKey,
};

pub(super) struct SqliteLog(pub(super) SharedFile);

#[async_trait]
impl EventLog for SqliteLog {
    async fn prove_order(&mut self) -> Result<(), DatabaseError> {
        Ok(())
    }

    async fn lease(&mut self) -> Result<Lease, DatabaseError> {
        Ok(lease_queries::lease(&mut lock(&self.0).await?.connection).await?)
    }

    async fn take(&mut self, seen: &Lease, holder: &str) -> Result<Option<Lease>, DatabaseError> {
        Ok(lease_queries::take(&mut lock(&self.0).await?.connection, seen, holder).await?)
    }

    async fn renew(
        &mut self,
        lease: &Lease,
        position: Option<(&PositionKey, &LastPublished)>,
    ) -> Result<bool, DatabaseError> {
        let mut file = lock(&self.0).await?;
        if let Some((key, last)) = position {
            log_queries::move_position(&mut file.connection, lease, key, last).await?;
        }
        Ok(lease_queries::renew(&mut file.connection, lease).await?)
    }

    async fn release(&mut self, lease: &Lease) -> Result<(), DatabaseError> {
        Ok(lease_queries::release(&mut lock(&self.0).await?.connection, lease).await?)
    }

    async fn replace_identity(&mut self, lease: &Lease) -> Result<bool, DatabaseError> {
        Ok(lease_queries::replace_identity(&mut lock(&self.0).await?.connection, lease).await?)
    }

    async fn position(&mut self, key: &PositionKey) -> Result<LastPublished, DatabaseError> {
        Ok(log_queries::position(&mut lock(&self.0).await?.connection, key).await?)
    }

    async fn holds(&mut self, last: &LastPublished) -> Result<bool, DatabaseError> {
        Ok(log_queries::holds(&mut lock(&self.0).await?.connection, last).await?)
    }

    async fn read(
        &mut self,
        lease: &Lease,
        last: &LastPublished,
        limit: i64,
        max_bytes: i64,
    ) -> Result<LogRead, DatabaseError> {
        Ok(log_queries::read(&mut lock(&self.0).await?.connection, lease, last, limit, max_bytes).await?)
    }

    async fn record_failures(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        last: &LastPublished,
        failures: &[(i64, String)],
    ) -> Result<Option<String>, DatabaseError> {
        let connection = &mut lock(&self.0).await?.connection;
        Ok(log_queries::record_failures(connection, lease, key, last, failures).await?)
    }

    async fn forget_failures_after(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        last: i64,
    ) -> Result<(), DatabaseError> {
        Ok(log_queries::forget_failures_after(&mut lock(&self.0).await?.connection, lease, key, last).await?)
    }

    async fn failures(
        &mut self,
        key: &PositionKey,
        after: i64,
        limit: i64,
    ) -> Result<Vec<LogEntry>, DatabaseError> {
        Ok(log_queries::failures(&mut lock(&self.0).await?.connection, key, after, limit).await?)
    }

    async fn retry_failures(&mut self, lease: &Lease, ids: &[i64]) -> Result<usize, DatabaseError> {
        let (lease, ids) = (lease.clone(), ids.to_vec());
        let retry = move |connection: &mut SqliteConnection| {
            transaction(connection, |connection| {
                let mut appended = 0;
                for id in ids {
                    let requeued = diesel::sql_query(
                        "UPDATE relay_failure SET requeued = true WHERE log_id = $1 AND NOT requeued
                            AND EXISTS (SELECT 1 FROM relay_lease WHERE holder = $2 AND epoch = $3)",
                    )
                    .bind::<BigInt, _>(id)
                    .bind::<Nullable<Text>, _>(&lease.holder)
                    .bind::<BigInt, _>(lease.epoch)
                    .execute(connection)?;
                    if requeued > 0 {
                        appended += diesel::sql_query(
                            "INSERT INTO event_log (vin, event, traceparent, tracestate, reannounced)
                             SELECT vin, event, traceparent, tracestate, reannounced FROM event_log WHERE id = $1",
                        )
                        .bind::<BigInt, _>(id)
                        .execute(connection)?;
                    }
                }
                Ok(appended)
            })
        };
        Ok(lock(&self.0).await?.connection.spawn_blocking(retry).await?)
    }

    async fn prune(
        &mut self,
        lease: &Lease,
        after: i64,
        last: &LastPublished,
        seconds: f64,
        limit: i64,
    ) -> Result<Vec<i64>, DatabaseError> {
        Ok(log_queries::prune(&mut lock(&self.0).await?.connection, lease, after, last, seconds, limit)
            .await?)
    }

    async fn claimed(&mut self) -> Result<Option<ClaimedEvents>, DatabaseError> {
        Ok(log_queries::claimed(&mut lock(&self.0).await?.connection).await?)
    }

    async fn resolve_claimed(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        published: i64,
    ) -> Result<bool, DatabaseError> {
        let last = log_queries::at(&mut lock(&self.0).await?.connection, published).await?;
        let held = self.renew(lease, Some((key, &last))).await?;
        log_queries::forget_claimed(&mut lock(&self.0).await?.connection, lease).await?;
        Ok(held)
    }
}
