//! Implements the queries on vehicles and their unpublished events for both engines.
//!
//! Each engine compiles this file as its own module, next to a `dialect` module with the differences.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Double, Nullable, Text};
use diesel_async::RunQueryDsl;

use super::dialect::{AGE, Connection, CreatedAt, sql};
use crate::database::{Readable, Unreadable};
use crate::http::PageRequest;
use crate::stock::store::{Backlog, IdsByVin, UnpublishedEvent};
use crate::vehicle::{
    Manufacturer, Model, Odometer, OdometerUnit, StockedVehicle, Vehicle, VehicleId, Vin, Year,
};

diesel::table! {
    use diesel::sql_types::{BigInt, Double, Integer, Text};
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
    }
}

#[derive(Queryable)]
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

pub(super) async fn page(
    connection: &mut Connection,
    request: &PageRequest<VehicleId>,
) -> QueryResult<Vec<Readable<StockedVehicle, VehicleId>>> {
    let after = request.after.map_or(i64::MIN, |id| id.0);
    let page = vehicles::table
        .filter(vehicles::id.gt(after))
        .order(vehicles::id)
        .limit(i64::try_from(request.fetch_limit()).unwrap_or(i64::MAX));
    match page.load::<VehicleRow>(connection).await {
        Ok(rows) => Ok(rows.into_iter().map(TryInto::try_into).collect()),
        // A column of some row does not have its type, so each row is read separately.
        Err(Error::DeserializationError(_)) => {
            let ids: Vec<i64> = page.select(vehicles::id).load(connection).await?;
            let mut vehicles = Vec::with_capacity(ids.len());
            for id in ids.into_iter().map(VehicleId) {
                match vehicles::table.find(id.0).first::<VehicleRow>(connection).await {
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

fn readable(row: VehicleRow) -> QueryResult<StockedVehicle> {
    row.try_into().map_err(|error: Unreadable<_>| Error::DeserializationError(Box::new(error)))
}

pub(super) async fn get(connection: &mut Connection, id: VehicleId) -> QueryResult<Option<StockedVehicle>> {
    let row: Option<VehicleRow> = vehicles::table.find(id.0).first(connection).await.optional()?;
    row.map(readable).transpose()
}

pub(super) async fn find(connection: &mut Connection, vin: &str) -> QueryResult<Option<StockedVehicle>> {
    let row: Option<VehicleRow> =
        vehicles::table.filter(vehicles::vin.eq(vin)).first(connection).await.optional()?;
    row.map(readable).transpose()
}

pub(super) async fn ids_of(connection: &mut Connection, vins: Vec<String>) -> QueryResult<IdsByVin> {
    let rows: Vec<(String, i64)> = vehicles::table
        .filter(vehicles::vin.eq_any(vins))
        .select((vehicles::vin, vehicles::id))
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(|(vin, id)| (vin, VehicleId(id))).collect())
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
