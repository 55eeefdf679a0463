//! Implements the event log in PostgreSQL and verifies that its ids are in commit order.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable, Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection as _};

use super::{lease_queries, log_queries};
use crate::database::DatabaseError;
use crate::database::postgres::PostgresConnection;
use crate::stock::vehicle_store::{
    ClaimedEvents, EventLog, LastPublished, Lease, LogEntry, LogRead, PositionKey,
};

/// The key of the advisory lock that the migration's triggers acquire.
pub(super) const LOG_LOCK: i64 = 508_692_295_527;

pub(super) struct PostgresLog(pub(super) PostgresConnection);

#[derive(QueryableByName)]
struct OrderRow {
    #[diesel(sql_type = BigInt)]
    triggers: i64,
    #[diesel(sql_type = BigInt)]
    disabled: i64,
    #[diesel(sql_type = BigInt)]
    sequences: i64,
}

const REPAIR_TRIGGERS: &str = "ALTER TABLE vehicles ENABLE ALWAYS TRIGGER insert_in_commit_order;
    ALTER TABLE event_log ENABLE ALWAYS TRIGGER insert_in_commit_order;
    ALTER TABLE outbox ENABLE ALWAYS TRIGGER append_to_event_log;
    WITH missed AS (DELETE FROM outbox RETURNING id, vin, event, traceparent)
        INSERT INTO event_log (vin, event, traceparent) SELECT vin, event, traceparent FROM missed ORDER BY id;";
const REPAIR_SEQUENCES: &str =
    "ALTER TABLE vehicles ALTER COLUMN id SET INCREMENT 1 SET CACHE 1 SET NO CYCLE;
    ALTER TABLE event_log ALTER COLUMN id SET INCREMENT 1 SET CACHE 1 SET NO CYCLE;";

#[async_trait]
impl EventLog for PostgresLog {
    async fn prove_order(&mut self) -> Result<(), DatabaseError> {
        let row: OrderRow = self
            .0
            .call(async |connection| {
                sql_query(
                    "SELECT count(*) AS triggers, count(*) FILTER (WHERE tgenabled <> 'A') AS disabled,
                        (SELECT count(*) FROM pg_sequence
                         WHERE seqrelid IN ('vehicles_id_seq'::regclass, 'event_log_id_seq'::regclass)
                            AND (seqincrement <> 1 OR seqcache <> 1 OR seqcycle)) AS sequences
                     FROM pg_trigger
                     WHERE (tgrelid, tgname) IN (('vehicles'::regclass, 'insert_in_commit_order'),
                        ('event_log'::regclass, 'insert_in_commit_order'), ('outbox'::regclass, 'append_to_event_log'))",
                )
                .get_result(connection)
                .await
            })
            .await?;
        if row.triggers != 3 {
            return Err(DatabaseError::Internal(anyhow::anyhow!(
                "a trigger insert_in_commit_order or append_to_event_log is missing, without which events could be \
                 lost; restore it from the migration event_log"
            )));
        }
        if row.disabled > 0 {
            tracing::warn!("triggers that keep ids in commit order were disabled, enabling them");
            self.0.call(async |connection| connection.batch_execute(REPAIR_TRIGGERS).await).await?;
        }
        if row.sequences > 0 {
            tracing::warn!(
                "sequences of ids had an increment or a cache that breaks commit order, resetting them"
            );
            self.0.call(async |connection| connection.batch_execute(REPAIR_SEQUENCES).await).await?;
        }
        Ok(())
    }

    async fn lease(&mut self) -> Result<Lease, DatabaseError> {
        self.0.call(async |connection| lease_queries::lease(connection).await).await
    }

    async fn take(&mut self, seen: &Lease, holder: &str) -> Result<Option<Lease>, DatabaseError> {
        self.0.call(async |connection| lease_queries::take(connection, seen, holder).await).await
    }

    async fn renew(
        &mut self,
        lease: &Lease,
        position: Option<(&PositionKey, &LastPublished)>,
    ) -> Result<bool, DatabaseError> {
        if let Some((key, last)) = position {
            self.0
                .call(async |connection| log_queries::move_position(connection, lease, key, last).await)
                .await?;
        }
        self.0.call(async |connection| lease_queries::renew(connection, lease).await).await
    }

    async fn release(&mut self, lease: &Lease) -> Result<(), DatabaseError> {
        self.0.call(async |connection| lease_queries::release(connection, lease).await).await
    }

    async fn replace_identity(&mut self, lease: &Lease) -> Result<bool, DatabaseError> {
        self.0.call(async |connection| lease_queries::replace_identity(connection, lease).await).await
    }

    async fn position(&mut self, key: &PositionKey) -> Result<LastPublished, DatabaseError> {
        self.0.call(async |connection| log_queries::position(connection, key).await).await
    }

    async fn holds(&mut self, last: &LastPublished) -> Result<bool, DatabaseError> {
        self.0.call(async |connection| log_queries::holds(connection, last).await).await
    }

    async fn read(
        &mut self,
        lease: &Lease,
        last: &LastPublished,
        limit: i64,
        max_bytes: i64,
    ) -> Result<LogRead, DatabaseError> {
        self.0
            .call(async |connection| log_queries::read(connection, lease, last, limit, max_bytes).await)
            .await
    }

    async fn record_failures(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        last: &LastPublished,
        failures: &[(i64, String)],
    ) -> Result<Option<String>, DatabaseError> {
        self.0
            .call(async |connection| {
                log_queries::record_failures(connection, lease, key, last, failures).await
            })
            .await
    }

    async fn forget_failures_after(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        last: i64,
    ) -> Result<(), DatabaseError> {
        self.0
            .call(async |connection| log_queries::forget_failures_after(connection, lease, key, last).await)
            .await
    }

    async fn failures(
        &mut self,
        key: &PositionKey,
        after: i64,
        limit: i64,
    ) -> Result<Vec<LogEntry>, DatabaseError> {
        self.0.call(async |connection| log_queries::failures(connection, key, after, limit).await).await
    }

    async fn retry_failures(&mut self, lease: &Lease, ids: &[i64]) -> Result<usize, DatabaseError> {
        self.0
            .call(async |connection| {
                sql_query(
                    "WITH failed AS (
                        UPDATE relay_failure SET requeued = true WHERE log_id = ANY($1) AND NOT requeued
                            AND EXISTS (SELECT FROM relay_lease WHERE holder = $2 AND epoch = $3)
                        RETURNING log_id
                     )
                     INSERT INTO event_log (vin, event, traceparent, tracestate, reannounced)
                     SELECT vin, event, traceparent, tracestate, reannounced
                     FROM event_log WHERE id IN (SELECT log_id FROM failed) ORDER BY id",
                )
                .bind::<Array<BigInt>, _>(ids)
                .bind::<Nullable<Text>, _>(&lease.holder)
                .bind::<BigInt, _>(lease.epoch)
                .execute(connection)
                .await
            })
            .await
    }

    async fn prune(
        &mut self,
        lease: &Lease,
        after: i64,
        last: &LastPublished,
        seconds: f64,
        limit: i64,
    ) -> Result<Vec<i64>, DatabaseError> {
        self.0
            .call(async |connection| log_queries::prune(connection, lease, after, last, seconds, limit).await)
            .await
    }

    async fn claimed(&mut self) -> Result<Option<ClaimedEvents>, DatabaseError> {
        self.0.call(async |connection| log_queries::claimed(connection).await).await
    }

    async fn resolve_claimed(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        published: i64,
    ) -> Result<bool, DatabaseError> {
        let last = self.0.call(async |connection| log_queries::at(connection, published).await).await?;
        let held = self.renew(lease, Some((key, &last))).await?;
        self.0.call(async |connection| log_queries::forget_claimed(connection, lease).await).await?;
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_the_one_that_the_migration_acquires() {
        let migration = include_str!("../../migrations/postgres/0002_event_log/up.sql");
        assert!(migration.contains(&format!("pg_advisory_xact_lock({LOG_LOCK})")));
    }
}
