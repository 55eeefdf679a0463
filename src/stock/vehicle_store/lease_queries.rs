//! Queries of the lease, which are the same for both engines: see `vehicle_queries.rs`.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::RunQueryDsl;

use super::dialect::{Connection, sql};
use crate::stock::vehicle_store::Lease;

#[derive(QueryableByName)]
struct LeaseRow {
    #[diesel(sql_type = Text)]
    identity: String,
    #[diesel(sql_type = Nullable<Text>)]
    holder: Option<String>,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    beat: i64,
}

impl From<LeaseRow> for Lease {
    fn from(LeaseRow { identity, holder, epoch, beat }: LeaseRow) -> Self {
        Self { identity, holder, epoch, beat }
    }
}

pub(super) async fn lease(connection: &mut Connection) -> QueryResult<Lease> {
    let row: LeaseRow =
        sql("SELECT identity, holder, epoch, beat FROM relay_lease").get_result(connection).await?;
    Ok(row.into())
}

pub(super) async fn take(
    connection: &mut Connection,
    seen: &Lease,
    holder: &str,
) -> QueryResult<Option<Lease>> {
    let rows: Vec<LeaseRow> = sql("UPDATE relay_lease SET holder = $1, epoch = epoch + 1, beat = 0
         WHERE holder IS NOT DISTINCT FROM $2 AND epoch = $3 AND beat = $4
         RETURNING identity, holder, epoch, beat")
    .bind::<Text, _>(holder)
    .bind::<Nullable<Text>, _>(&seen.holder)
    .bind::<BigInt, _>(seen.epoch)
    .bind::<BigInt, _>(seen.beat)
    // `get_result` would return before the statement is committed.
    .load(connection)
    .await?;
    Ok(rows.into_iter().next().map(Lease::from))
}

pub(super) async fn renew(connection: &mut Connection, lease: &Lease) -> QueryResult<bool> {
    let moved = sql("UPDATE relay_lease SET beat = beat + 1 WHERE holder = $1 AND epoch = $2")
        .bind::<Nullable<Text>, _>(&lease.holder)
        .bind::<BigInt, _>(lease.epoch)
        .execute(connection)
        .await?;
    Ok(moved == 1)
}

pub(super) async fn release(connection: &mut Connection, lease: &Lease) -> QueryResult<()> {
    sql("UPDATE relay_lease SET holder = NULL WHERE holder = $1 AND epoch = $2")
        .bind::<Nullable<Text>, _>(&lease.holder)
        .bind::<BigInt, _>(lease.epoch)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn replace_identity(connection: &mut Connection, lease: &Lease) -> QueryResult<bool> {
    let identity = format!("{:032x}", rand::random::<u128>());
    let replaced =
        sql("UPDATE relay_lease SET identity = $1 WHERE identity = $2 AND holder = $3 AND epoch = $4")
            .bind::<Text, _>(identity)
            .bind::<Text, _>(&lease.identity)
            .bind::<Nullable<Text>, _>(&lease.holder)
            .bind::<BigInt, _>(lease.epoch)
            .execute(connection)
            .await?;
    Ok(replaced == 1)
}
