//! Checks that inserts succeed and identifies the transactions that block them.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::log::LOG_LOCK;
use crate::database::DatabaseError;
use crate::database::postgres::{PostgresError, PostgresPool, SqlState};
use crate::stock::vehicle_store::INSERTED_COLUMNS;

/// Returns a statement that acquires the locks of an insert and fires its triggers without writing a row.
fn insert_nothing() -> String {
    format!(
        "WITH vehicle AS (
            INSERT INTO vehicles ({INSERTED_COLUMNS}) SELECT {INSERTED_COLUMNS} FROM vehicles WHERE false
        ) INSERT INTO event_log (vin, event, traceparent) SELECT '', '', '' WHERE false"
    )
}

/// Checks that the server accepts inserts.
///
/// # Errors
/// Returns the error of the server. When another transaction blocks all inserts, the error describes that
/// transaction.
pub(super) async fn check(readers: &PostgresPool) -> Result<(), DatabaseError> {
    let inserted =
        readers.call(async |connection| sql_query(insert_nothing()).execute(connection).await).await;
    let error = match inserted {
        Err(DatabaseError::Unavailable(error)) => error,
        inserted => return inserted.map(drop),
    };
    let code = error.downcast_ref::<PostgresError>().and_then(PostgresError::code);
    if code != Some(SqlState::LOCK_NOT_AVAILABLE) {
        return Err(DatabaseError::Unavailable(error));
    }
    let holders = readers.call(async |connection| lock_holders(connection).await).await?;
    Err(DatabaseError::Unavailable(match holders {
        Some(holders) => error.context(format!("all inserts are waiting for {holders}")),
        None => error,
    }))
}

#[derive(QueryableByName)]
struct HoldersRow {
    #[diesel(sql_type = Nullable<Text>)]
    holders: Option<String>,
}

/// Describes at most three transactions that hold the locks an insert waits for.
async fn lock_holders(connection: &mut AsyncPgConnection) -> QueryResult<Option<String>> {
    // A prepared transaction has no process id, so it is found through another lock of the same virtual transaction.
    // The activity of another user's session is visible only to members of pg_read_all_stats.
    let row: HoldersRow = sql_query(format!(
        "WITH locks AS MATERIALIZED (SELECT * FROM pg_locks), holders AS (
            SELECT DISTINCT pid, virtualtransaction FROM locks
            WHERE granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (locktype = 'advisory' AND (classid::bigint << 32 | objid::bigint) = {LOG_LOCK}
                    OR locktype = 'relation' AND relation IN ('vehicles'::regclass, 'event_log'::regclass)
                        AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
            LIMIT 3
         )
         SELECT string_agg(CASE
            WHEN h.pid IS NULL THEN (
                SELECT format('the prepared transaction %L, which COMMIT PREPARED or ROLLBACK PREPARED ends',
                    regexp_replace(gid, '[[:cntrl:]]', ' ', 'g'))
                FROM locks JOIN pg_prepared_xacts ON transaction = transactionid
                WHERE pid IS NULL AND locks.virtualtransaction = h.virtualtransaction)
            ELSE format('process %s (%s)', h.pid, concat_ws(', ', nullif(application_name, ''),
                COALESCE(state, 'its state is visible to members of pg_read_all_stats')))
            END, ' and ') AS holders
         FROM holders h LEFT JOIN pg_stat_activity a ON a.pid = h.pid"
    ))
    .get_result(connection)
    .await?;
    Ok(row.holders)
}
