//! Implements the relay's queries for both engines: see `vehicle_queries.rs`.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Double, Nullable, Text};
use diesel_async::RunQueryDsl;

use super::dialect::{Connection, ELEMENTS, IN_RECOVERY, IN_USE, NOW, OLDER_THAN, ORDERED, sql};
use crate::stock::vehicle_store::{ClaimedEvents, LastPublished, Lease, LogEntry, LogRead, PositionKey};
use crate::trace::TraceHeaders;

diesel::table! {
    outbox_identity (id) {
        id -> Integer,
        identity -> Text,
    }
}

/// A condition: the log contains the event with the id `$3` and the record of the failure.
const PROOF: &str = "EXISTS (SELECT 1 FROM event_log WHERE id = $3 AND event_id = $4)
    AND ($5 = '' OR EXISTS (SELECT 1 FROM relay_failure WHERE token = $5))";

/// Moves the position, but never backwards. Always updates the time: the newest one is that of the cluster in use.
pub(super) async fn move_position(
    connection: &mut Connection,
    lease: &Lease,
    key: &PositionKey,
    last: &LastPublished,
) -> QueryResult<()> {
    sql(format!(
        "INSERT INTO relay_position (cluster, topic, last_id)
         SELECT $1, $2, $3 FROM relay_lease WHERE {PROOF} AND holder = $6 AND epoch = $7
         ON CONFLICT (cluster, topic) DO UPDATE SET moved_at = {NOW}, last_id =
            CASE WHEN relay_position.last_id < excluded.last_id THEN excluded.last_id ELSE relay_position.last_id END"
    ))
    .bind::<Text, _>(&key.cluster)
    .bind::<Text, _>(&key.topic)
    .bind::<BigInt, _>(last.id)
    .bind::<Nullable<Text>, _>(&last.event_id)
    .bind::<Text, _>(&last.failure)
    .bind::<Nullable<Text>, _>(&lease.holder)
    .bind::<BigInt, _>(lease.epoch)
    .execute(connection)
    .await?;
    Ok(())
}

#[derive(QueryableByName)]
struct PositionRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Nullable<Text>)]
    event_id: Option<String>,
}

pub(super) async fn position(connection: &mut Connection, key: &PositionKey) -> QueryResult<LastPublished> {
    // The token comes first: a failover in between then changes the position, or leaves a token that the next read of the
    // log refutes.
    let failure = last_failure(connection, key).await?;
    let rows: Vec<PositionRow> =
        sql("SELECT last_id AS id, event_id FROM relay_position LEFT JOIN event_log ON id = last_id
         WHERE cluster = $1 AND topic = $2")
        .bind::<Text, _>(&key.cluster)
        .bind::<Text, _>(&key.topic)
        .load(connection)
        .await?;
    let (id, event_id) = rows.into_iter().next().map(|row| (row.id, row.event_id)).unwrap_or_default();
    Ok(LastPublished { id, event_id, failure })
}

#[derive(QueryableByName)]
struct HeldRow {
    #[diesel(sql_type = Bool)]
    held: bool,
}

/// Returns the event with the id `id` as if it were the last published one.
pub(super) async fn at(connection: &mut Connection, id: i64) -> QueryResult<LastPublished> {
    let rows: Vec<PositionRow> = sql("SELECT id, event_id FROM event_log WHERE id = $1")
        .bind::<BigInt, _>(id)
        .load(connection)
        .await?;
    let event_id = rows.into_iter().next().and_then(|row| row.event_id);
    Ok(LastPublished { id, event_id, failure: String::new() })
}

pub(super) async fn holds(connection: &mut Connection, last: &LastPublished) -> QueryResult<bool> {
    let row: HeldRow = sql("SELECT EXISTS (SELECT 1 FROM event_log WHERE id = $1 AND event_id = $2)
            AND ($3 = '' OR EXISTS (SELECT 1 FROM relay_failure WHERE token = $3)) AS held")
    .bind::<BigInt, _>(last.id)
    .bind::<Nullable<Text>, _>(&last.event_id)
    .bind::<Text, _>(&last.failure)
    .get_result(connection)
    .await?;
    Ok(row.held)
}

#[derive(QueryableByName)]
struct TokenRow {
    #[diesel(sql_type = Text)]
    token: String,
}

#[derive(QueryableByName)]
struct RecordedRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    token: String,
    #[diesel(sql_type = Bool)]
    requeued: bool,
}

async fn last_failure(connection: &mut Connection, key: &PositionKey) -> QueryResult<String> {
    let rows: Vec<TokenRow> =
        sql("SELECT token FROM relay_failure WHERE cluster = $1 AND topic = $2 ORDER BY id DESC LIMIT 1")
            .bind::<Text, _>(&key.cluster)
            .bind::<Text, _>(&key.topic)
            .load(connection)
            .await?;
    Ok(rows.into_iter().next().map(|row| row.token).unwrap_or_default())
}

#[derive(QueryableByName)]
struct ReadRow {
    #[diesel(sql_type = Bool)]
    held: bool,
    #[diesel(sql_type = Bool)]
    recovering: bool,
    #[diesel(sql_type = Bool)]
    ordered: bool,
    #[diesel(sql_type = Bool)]
    failure_known: bool,
    #[diesel(embed)]
    entry: MaybeEntryRow,
}

#[derive(QueryableByName)]
struct MaybeEntryRow {
    #[diesel(sql_type = Nullable<BigInt>)]
    id: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    event_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    vin: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    event: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    traceparent: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    tracestate: Option<String>,
    #[diesel(sql_type = Nullable<Bool>)]
    reannounced: Option<bool>,
}

impl MaybeEntryRow {
    /// Returns `None` for the row of an empty page, whose columns are all null.
    fn into_entry(self) -> Option<LogEntry> {
        Some(LogEntry {
            id: self.id?,
            event_id: self.event_id?,
            vin: self.vin?,
            event: self.event?,
            trace: TraceHeaders {
                parent: self.traceparent?.into(),
                state: self.tracestate.unwrap_or_default().into(),
            },
            reannounced: self.reannounced?,
        })
    }
}

pub(super) async fn read(
    connection: &mut Connection,
    lease: &Lease,
    last: &LastPublished,
    limit: i64,
    max_bytes: i64,
) -> QueryResult<LogRead> {
    // The page begins with the last published event, if the log contains it, and has at least one more if possible.
    let proof = i64::from(last.event_id.is_some());
    let rows: Vec<ReadRow> = sql(format!(
        "SELECT (SELECT count(*) = 1 FROM relay_lease WHERE holder = $1 AND epoch = $2) AS held,
            {IN_RECOVERY} AS recovering, {ORDERED} AS ordered,
            $3 = '' OR EXISTS (SELECT 1 FROM relay_failure WHERE token = $3) AS failure_known,
            id, event_id, vin, event, traceparent, tracestate, reannounced
         FROM (SELECT 1 AS one) AS always LEFT JOIN (
            SELECT id, event_id, vin, event, traceparent, tracestate, reannounced,
                sum(octet_length(event)) OVER (ORDER BY id) AS bytes, row_number() OVER (ORDER BY id) AS place
            FROM (SELECT * FROM event_log WHERE id >= $4 ORDER BY id LIMIT $5) AS next
         ) AS page ON bytes <= $6 OR place <= 2
         ORDER BY id"
    ))
    .bind::<Nullable<Text>, _>(&lease.holder)
    .bind::<BigInt, _>(lease.epoch)
    .bind::<Text, _>(&last.failure)
    .bind::<BigInt, _>(last.id)
    .bind::<BigInt, _>(limit.saturating_add(proof))
    .bind::<BigInt, _>(max_bytes)
    .load(connection)
    .await?;
    if rows.iter().any(|row| row.recovering) {
        return Ok(LogRead::Recovering);
    }
    if rows.iter().any(|row| !row.held) {
        return Ok(LogRead::LeaseLost);
    }
    if rows.iter().any(|row| !row.ordered) {
        return Ok(LogRead::Unordered);
    }
    let failure_known = rows.iter().all(|row| row.failure_known);
    let mut entries = rows.into_iter().filter_map(|row| row.entry.into_entry()).peekable();
    let found = entries.next_if(|entry| entry.id == last.id).map(|entry| entry.event_id);
    if found == last.event_id && failure_known {
        Ok(LogRead::Entries(entries.collect()))
    } else {
        Ok(LogRead::Parted)
    }
}

pub(super) async fn record_failures(
    connection: &mut Connection,
    lease: &Lease,
    key: &PositionKey,
    last: &LastPublished,
    failures: &[(i64, String)],
) -> QueryResult<Option<String>> {
    let rows: Vec<RecordedRow> = sql(format!(
        "INSERT INTO relay_failure (log_id, reason, cluster, topic)
         SELECT CAST(value ->> 0 AS BIGINT), value ->> 1, $2, $3 FROM {ELEMENTS}
         WHERE EXISTS (SELECT 1 FROM relay_lease WHERE holder = $4 AND epoch = $5)
            AND ($6 = '' OR EXISTS (SELECT 1 FROM relay_failure WHERE token = $6))
         ON CONFLICT (log_id, cluster, topic) DO UPDATE SET reason = excluded.reason
         RETURNING id, token, requeued"
    ))
    .bind::<Text, _>(serde_json::json!(failures).to_string())
    .bind::<Text, _>(&key.cluster)
    .bind::<Text, _>(&key.topic)
    .bind::<Nullable<Text>, _>(&lease.holder)
    .bind::<BigInt, _>(lease.epoch)
    .bind::<Text, _>(&last.failure)
    // `get_result` would return before the statement is committed.
    .load(connection)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    // A requeued failure is one of another history, and its event is in the log again.
    let newest = rows.into_iter().filter(|row| !row.requeued).max_by_key(|row| row.id);
    Ok(Some(newest.map_or_else(|| last.failure.clone(), |row| row.token)))
}

pub(super) async fn forget_failures_after(
    connection: &mut Connection,
    lease: &Lease,
    key: &PositionKey,
    last: i64,
) -> QueryResult<()> {
    sql("DELETE FROM relay_failure WHERE log_id > $1 AND cluster = $2 AND topic = $3 AND NOT requeued
            AND EXISTS (SELECT 1 FROM relay_lease WHERE holder = $4 AND epoch = $5)")
    .bind::<BigInt, _>(last)
    .bind::<Text, _>(&key.cluster)
    .bind::<Text, _>(&key.topic)
    .bind::<Nullable<Text>, _>(&lease.holder)
    .bind::<BigInt, _>(lease.epoch)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn failures(
    connection: &mut Connection,
    key: &PositionKey,
    after: i64,
    limit: i64,
) -> QueryResult<Vec<LogEntry>> {
    let rows: Vec<MaybeEntryRow> =
        sql("SELECT l.id, event_id, vin, event, traceparent, tracestate, reannounced
         FROM relay_failure f JOIN event_log l ON l.id = f.log_id
         WHERE f.log_id > $1 AND cluster = $2 AND topic = $3 AND NOT requeued ORDER BY f.log_id LIMIT $4")
        .bind::<BigInt, _>(after)
        .bind::<Text, _>(&key.cluster)
        .bind::<Text, _>(&key.topic)
        .bind::<BigInt, _>(limit)
        .load(connection)
        .await?;
    Ok(rows.into_iter().filter_map(MaybeEntryRow::into_entry).collect())
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

pub(super) async fn prune(
    connection: &mut Connection,
    lease: &Lease,
    after: i64,
    last: &LastPublished,
    seconds: f64,
    limit: i64,
) -> QueryResult<Vec<i64>> {
    // Looks at `limit` events at most, and only after those that were removed, whose dead index entries still exist.
    let rows: Vec<IdRow> = sql(format!(
        "DELETE FROM event_log WHERE id IN (
            SELECT id FROM (
                SELECT id, created_at FROM event_log
                WHERE id > $1 AND id < $3
                    AND id < COALESCE((SELECT min(last_id) FROM relay_position WHERE {IN_USE}), $3)
                    AND NOT EXISTS (SELECT 1 FROM relay_failure WHERE log_id = event_log.id AND NOT requeued)
                ORDER BY id LIMIT $2
            ) AS oldest WHERE {OLDER_THAN}
         ) AND {PROOF} AND EXISTS (SELECT 1 FROM relay_lease WHERE holder = $7 AND epoch = $8)
         RETURNING id"
    ))
    .bind::<BigInt, _>(after)
    .bind::<BigInt, _>(limit)
    .bind::<BigInt, _>(last.id)
    .bind::<Nullable<Text>, _>(&last.event_id)
    .bind::<Text, _>(&last.failure)
    .bind::<Double, _>(seconds)
    .bind::<Nullable<Text>, _>(&lease.holder)
    .bind::<BigInt, _>(lease.epoch)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

#[derive(QueryableByName)]
struct ClaimRow {
    #[diesel(sql_type = BigInt)]
    batch: i64,
    #[diesel(sql_type = BigInt)]
    last_id: i64,
}

pub(super) async fn claimed(connection: &mut Connection) -> QueryResult<Option<ClaimedEvents>> {
    let rows: Vec<ClaimRow> =
        sql("SELECT batch, max(log_id) AS last_id FROM outbox_claim GROUP BY batch ORDER BY batch")
            .load(connection)
            .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let identity = outbox_identity::table.select(outbox_identity::identity).first(connection).await?;
    let batches = rows.into_iter().map(|row| (row.batch, row.last_id)).collect();
    Ok(Some(ClaimedEvents { identity, batches }))
}

pub(super) async fn forget_claimed(connection: &mut Connection, lease: &Lease) -> QueryResult<()> {
    sql("DELETE FROM outbox_claim
         WHERE EXISTS (SELECT 1 FROM relay_lease WHERE holder = $1 AND epoch = $2)")
    .bind::<Nullable<Text>, _>(&lease.holder)
    .bind::<BigInt, _>(lease.epoch)
    .execute(connection)
    .await?;
    Ok(())
}
