//! Implements the queries on vehicles and their unpublished events for both engines.
//!
//! Each engine compiles this file as its own module, next to a `dialect` module with the differences.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Double, Nullable, Text};
use diesel_async::RunQueryDsl;

use super::dialect::{AGE, Backend, Connection, CreatedAt, sql};
use crate::database::{Readable, Unreadable};
use crate::page::{PageRequest, Rows};
use crate::stock::vehicle_store::{Backlog, Existing, UnpublishedEvent};
use crate::vehicle::{
    Manufacturer, Model, Odometer, OdometerUnit, StockedVehicle, Vehicle, VehicleId, Vin, Year,
};

diesel::table! {
    use diesel::sql_types::{BigInt, Double, Integer, Nullable, Text};
    use super::CreatedAt;

    vehicles (id) {
        id -> BigInt,
        vin -> Text,
        model -> Text,
        manufacturer -> Text,
        year -> Integer,
        odometer -> Double,
        odometer_unit -> Text,
        created_at -> CreatedAt,
        idempotency_key -> Nullable<Text>,
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = vehicles)]
struct VehicleRow {
    id: i64,
    vin: String,
    model: String,
    manufacturer: String,
    year: i32,
    odometer: f64,
    odometer_unit: String,
    created_at: DateTime<Utc>,
}

/// Fails only for rows that another program wrote or changed, as rows are validated when they are written.
impl TryFrom<VehicleRow> for StockedVehicle {
    type Error = Unreadable<VehicleId>;

    fn try_from(row: VehicleRow) -> Result<Self, Self::Error> {
        let id = VehicleId(row.id);
        let odometer = Odometer::parse(row.odometer)
            .map_err(|error| Unreadable { id, reason: format!("odometer {error}") })?;
        let vehicle = Vehicle {
            vin: Vin::from_stored(row.vin),
            model: Model::from_stored(row.model),
            manufacturer: Manufacturer::from_stored(row.manufacturer),
            year: Year::from_stored(row.year),
            odometer,
            odometer_unit: OdometerUnit::from_stored(row.odometer_unit),
        };
        Ok(Self { id, created_at: row.created_at, vehicle })
    }
}

/// Loads the vehicles that a query selects. An unreadable one does not fail the others.
async fn load<'a>(
    connection: &mut Connection,
    query: impl Fn() -> vehicles::BoxedQuery<'a, Backend>,
) -> QueryResult<Vec<Readable<StockedVehicle, VehicleId>>> {
    match query().select(VehicleRow::as_select()).load(connection).await {
        Ok(rows) => Ok(rows.into_iter().map(TryInto::try_into).collect()),
        // A column of some row does not have its type, so each row is read separately.
        Err(Error::DeserializationError(_)) => {
            let ids: Vec<i64> = query().select(vehicles::id).load(connection).await?;
            let mut vehicles = Vec::with_capacity(ids.len());
            for id in ids.into_iter().map(VehicleId) {
                let one = vehicles::table.find(id.0).select(VehicleRow::as_select());
                match one.first(connection).await {
                    Ok(row) => vehicles.push(row.try_into()),
                    Err(Error::DeserializationError(error)) => {
                        vehicles.push(Err(Unreadable { id, reason: error.to_string() }));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(vehicles)
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn page(
    connection: &mut Connection,
    request: &PageRequest<VehicleId>,
) -> QueryResult<Rows<StockedVehicle, VehicleId>> {
    let page = || {
        let page = vehicles::table
            .filter(vehicles::id.gt(request.after.map_or(i64::MIN, |id| id.0)))
            .order(vehicles::id)
            .limit(i64::try_from(request.fetch_limit()).unwrap_or(i64::MAX))
            .into_boxed();
        match &request.vin {
            Some(vin) => page.filter(vehicles::vin.eq(vin.as_str())),
            None => page,
        }
    };
    Ok(Rows::of(request, load(connection, page).await?))
}

fn readable(row: VehicleRow) -> QueryResult<StockedVehicle> {
    row.try_into().map_err(|error: Unreadable<_>| Error::DeserializationError(Box::new(error)))
}

pub(super) async fn get(connection: &mut Connection, id: VehicleId) -> QueryResult<Option<StockedVehicle>> {
    let find = vehicles::table.find(id.0).select(VehicleRow::as_select());
    find.first(connection).await.optional()?.map(readable).transpose()
}

pub(super) async fn find(connection: &mut Connection, vin: &str) -> QueryResult<Option<StockedVehicle>> {
    let find = vehicles::table.filter(vehicles::vin.eq(vin)).select(VehicleRow::as_select());
    find.first(connection).await.optional()?.map(readable).transpose()
}

pub(super) async fn existing(
    connection: &mut Connection,
    vins: Vec<String>,
    keys: Vec<String>,
) -> QueryResult<Existing> {
    let of_vins: Vec<(String, i64)> = vehicles::table
        .filter(vehicles::vin.eq_any(vins))
        .select((vehicles::vin, vehicles::id))
        .load(connection)
        .await?;
    let by_vin = of_vins.into_iter().map(|(vin, id)| (vin, VehicleId(id))).collect();
    if keys.is_empty() {
        return Ok(Existing { by_vin, by_key: HashMap::new() });
    }
    let of_keys: Vec<(i64, Option<String>)> = vehicles::table
        .filter(vehicles::idempotency_key.eq_any(keys))
        .select((vehicles::id, vehicles::idempotency_key))
        .load(connection)
        .await?;
    let ids: Vec<i64> = of_keys.iter().map(|(id, _)| *id).collect();
    let accepted = load(connection, || vehicles::table.filter(vehicles::id.eq_any(ids.clone())).into_boxed());
    let mut keys: HashMap<i64, Option<String>> = of_keys.into_iter().collect();
    let by_key = accepted.await?.into_iter().filter_map(|vehicle| {
        let id = vehicle.as_ref().map_or_else(|unreadable| unreadable.id, |stocked| stocked.id);
        Some((keys.remove(&id.0).flatten()?, vehicle))
    });
    Ok(Existing { by_vin, by_key: by_key.collect() })
}

#[derive(QueryableByName)]
struct BacklogRow {
    #[diesel(sql_type = BigInt)]
    events: i64,
    #[diesel(sql_type = Double)]
    oldest_seconds: f64,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = BigInt)]
    failed: i64,
}

/// The position on the cluster that the relay used last.
const POSITION: &str = "COALESCE((SELECT last_id FROM relay_position ORDER BY moved_at DESC LIMIT 1), 0)";

pub(super) async fn backlog(connection: &mut Connection) -> QueryResult<Backlog> {
    let limit = Backlog::MAX_EVENTS;
    let row: BacklogRow = sql(format!(
        "SELECT
            (SELECT count(*) FROM (SELECT 1 FROM event_log WHERE id > published.id LIMIT {limit}) AS waiting) AS events,
            COALESCE((SELECT {AGE} FROM event_log WHERE id > published.id ORDER BY id LIMIT 1), 0.0) AS oldest_seconds,
            published.id AS position,
            (SELECT count(*) FROM relay_failure WHERE NOT requeued) AS failed
         FROM (SELECT {POSITION} AS id) AS published"
    ))
    .get_result(connection)
    .await?;
    Ok(Backlog {
        events: row.events,
        oldest_seconds: row.oldest_seconds.max(0.0),
        position: row.position,
        failed: row.failed,
    })
}

#[derive(QueryableByName)]
struct UnpublishedRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    vin: String,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
}

pub(super) async fn unpublished(
    connection: &mut Connection,
    after: i64,
    limit: i64,
) -> QueryResult<Vec<UnpublishedEvent>> {
    let rows: Vec<UnpublishedRow> = sql(format!(
        "SELECT * FROM (
            SELECT l.id, vin, reason FROM event_log l LEFT JOIN relay_failure f ON f.log_id = l.id
            WHERE l.id > $1 AND l.id > {POSITION} ORDER BY l.id LIMIT $2
         ) AS waiting
         UNION ALL SELECT * FROM (
            SELECT l.id, vin, reason FROM relay_failure f JOIN event_log l ON l.id = f.log_id
            WHERE f.log_id > $1 AND f.log_id <= {POSITION} AND NOT requeued ORDER BY f.log_id LIMIT $2
         ) AS failed
         ORDER BY id LIMIT $2"
    ))
    .bind::<BigInt, _>(after)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| UnpublishedEvent { id: row.id, vin: row.vin, failure: row.reason })
        .collect())
}

pub(super) async fn reannounce(
    connection: &mut Connection,
    vin: &str,
    event: &str,
    traceparent: &str,
) -> QueryResult<usize> {
    // Another audit may have appended the event, which is then still to be published.
    sql(format!(
        "INSERT INTO event_log (vin, event, traceparent, reannounced) SELECT $1, $2, $3, true
         WHERE NOT EXISTS (SELECT 1 FROM event_log WHERE id > {POSITION} AND vin = $1)"
    ))
    .bind::<Text, _>(vin)
    .bind::<Text, _>(event)
    .bind::<Text, _>(traceparent)
    .execute(connection)
    .await
}
