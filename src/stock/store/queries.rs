//! The queries on vehicles and outbox, which read the same for both engines.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

use super::OutboxEntry;
use crate::vehicle::{
    Manufacturer, Model, Odometer, OdometerUnit, StockedVehicle, Vehicle, VehicleId, Vin, Year,
};

/// A row of `vehicles`.
pub(super) type VehicleRow = (i64, String, String, String, i32, f64, String, DateTime<Utc>);

/// The time, to the millisecond: all that every engine keeps.
pub(super) fn now() -> DateTime<Utc> {
    let now = Utc::now();
    now.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(now)
}

/// What a row holds was parsed when it was written; a row that no longer parses was changed by someone else.
pub(super) fn stocked(row: VehicleRow) -> Result<StockedVehicle, String> {
    let (id, vin, model, manufacturer, year, odometer, odometer_unit, created_at) = row;
    let vehicle = Vehicle {
        vin: Vin::parse(&vin)?,
        model: Model::parse(&model)?,
        manufacturer: Manufacturer::parse(&manufacturer)?,
        year: Year::from_stored(year),
        odometer: Odometer::parse(odometer)?,
        odometer_unit: OdometerUnit::parse(&odometer_unit)?,
    };
    Ok(StockedVehicle { id: VehicleId(id), created_at, vehicle })
}

pub(super) fn entry((vin, event, traceparent): (String, String, String)) -> OutboxEntry {
    OutboxEntry { vin, event, traceparent }
}

/// Defines the tables and the queries for one engine; diesel's types differ by engine, its query language does not.
macro_rules! queries {
    ($connection:ty, $timestamp:ty) => {
        use diesel::dsl::count_star;
        use diesel::prelude::*;
        use diesel_async::RunQueryDsl;

        use $crate::event::VehicleCreated;
        use $crate::http::PageRequest;
        use $crate::stock::store::queries::{VehicleRow, entry, now, stocked};
        use $crate::stock::store::{Insertion, OutboxEntry};
        use $crate::database::DatabaseError;
        use $crate::trace::TraceContext;
        use $crate::vehicle::{StockedVehicle, Vehicle, VehicleId};

        diesel::table! {
            vehicles (id) {
                id -> BigInt,
                vin -> Text,
                model -> Text,
                manufacturer -> Text,
                year -> Integer,
                odometer -> Double,
                odometer_unit -> Text,
                created_at -> $timestamp,
            }
        }

        diesel::table! {
            outbox (id) {
                id -> BigInt,
                vin -> Text,
                event -> Text,
                traceparent -> Text,
                batch -> Nullable<BigInt>,
            }
        }

        diesel::table! {
            outbox_identity (id) {
                id -> Integer,
                identity -> Text,
            }
        }

        fn read(row: VehicleRow) -> Result<StockedVehicle, DatabaseError> {
            stocked(row).map_err(|error| DatabaseError::internal(anyhow::anyhow!("a row of vehicles {error}")))
        }

        /// Part of the transaction that is open on `connection`.
        pub(super) async fn insert(
            connection: &mut $connection,
            vehicle: &Vehicle,
            trace: TraceContext,
        ) -> Result<Insertion, DatabaseError> {
            let created_at = now();
            let inserted: Option<i64> = diesel::insert_into(vehicles::table)
                .values((
                    vehicles::vin.eq(vehicle.vin.as_str()),
                    vehicles::model.eq(vehicle.model.as_str()),
                    vehicles::manufacturer.eq(vehicle.manufacturer.as_str()),
                    vehicles::year.eq(vehicle.year.get()),
                    vehicles::odometer.eq(vehicle.odometer.get()),
                    vehicles::odometer_unit.eq(vehicle.odometer_unit.as_str()),
                    vehicles::created_at.eq(created_at),
                ))
                .on_conflict(vehicles::vin)
                .do_nothing()
                .returning(vehicles::id)
                .get_result(connection)
                .await
                .optional()?;
            let Some(id) = inserted else {
                let existing = vehicles::table
                    .filter(vehicles::vin.eq(vehicle.vin.as_str()))
                    .select(vehicles::id)
                    .first(connection)
                    .await?;
                return Ok(Insertion::Exists(VehicleId(existing)));
            };
            let stocked = StockedVehicle { id: VehicleId(id), created_at, vehicle: vehicle.clone() };
            let event =
                serde_json::to_string(&VehicleCreated::from(&stocked)).map_err(DatabaseError::internal)?;
            diesel::insert_into(outbox::table)
                .values((
                    outbox::vin.eq(vehicle.vin.as_str()),
                    outbox::event.eq(event),
                    outbox::traceparent.eq(trace.to_string()),
                ))
                .execute(connection)
                .await?;
            Ok(Insertion::Stocked(stocked))
        }

        pub(super) async fn page(
            connection: &mut $connection,
            request: &PageRequest<VehicleId>,
        ) -> Result<Vec<StockedVehicle>, DatabaseError> {
            let after = request.after.map_or(i64::MIN, |id| id.0);
            let rows: Vec<VehicleRow> = vehicles::table
                .filter(vehicles::id.gt(after))
                .order(vehicles::id)
                .limit(i64::try_from(request.fetch_limit()).unwrap_or(i64::MAX))
                .load(connection)
                .await?;
            rows.into_iter().map(read).collect()
        }

        pub(super) async fn get(
            connection: &mut $connection,
            id: VehicleId,
        ) -> Result<Option<StockedVehicle>, DatabaseError> {
            let row: Option<VehicleRow> = vehicles::table.find(id.0).first(connection).await.optional()?;
            row.map(read).transpose()
        }

        pub(super) async fn find(
            connection: &mut $connection,
            vin: &str,
        ) -> Result<Option<StockedVehicle>, DatabaseError> {
            let row: Option<VehicleRow> =
                vehicles::table.filter(vehicles::vin.eq(vin)).first(connection).await.optional()?;
            row.map(read).transpose()
        }

        pub(super) async fn unpublished(
            connection: &mut $connection,
            after: Option<i64>,
            limit: i64,
        ) -> Result<Vec<(i64, String)>, DatabaseError> {
            Ok(outbox::table
                .filter(outbox::id.gt(after.unwrap_or(i64::MIN)))
                .order(outbox::id)
                .limit(limit)
                .select((outbox::id, outbox::vin))
                .load(connection)
                .await?)
        }

        pub(super) async fn ping(connection: &mut $connection) -> Result<(), DatabaseError> {
            diesel::select(1_i32.into_sql::<diesel::sql_types::Integer>())
                .get_result::<i32>(connection)
                .await?;
            Ok(())
        }

        pub(super) async fn identity(connection: &mut $connection) -> Result<String, DatabaseError> {
            Ok(outbox_identity::table.select(outbox_identity::identity).first(connection).await?)
        }

        pub(super) async fn recover(connection: &mut $connection, next: i64) -> Result<(), DatabaseError> {
            diesel::delete(outbox::table.filter(outbox::batch.lt(next))).execute(connection).await?;
            diesel::update(outbox::table.filter(outbox::batch.ge(next)))
                .set(outbox::batch.eq(None::<i64>))
                .execute(connection)
                .await?;
            Ok(())
        }

        pub(super) async fn claim(
            connection: &mut $connection,
            batch: i64,
            limit: i64,
        ) -> Result<Vec<OutboxEntry>, DatabaseError> {
            let oldest = diesel::alias!(outbox as oldest);
            let claimed = outbox::id.eq_any(
                oldest
                    .filter(oldest.field(outbox::batch).is_null())
                    .order(oldest.field(outbox::id))
                    .limit(limit)
                    .select(oldest.field(outbox::id)),
            );
            let count = diesel::update(outbox::table.filter(claimed))
                .set(outbox::batch.eq(batch))
                .execute(connection)
                .await?;
            if count == 0 {
                return Ok(Vec::new());
            }
            let rows = outbox::table
                .filter(outbox::batch.eq(batch))
                .order(outbox::id)
                .select((outbox::vin, outbox::event, outbox::traceparent))
                .load(connection)
                .await?;
            Ok(rows.into_iter().map(entry).collect())
        }

        pub(super) async fn remove(connection: &mut $connection, batch: i64) -> Result<(), DatabaseError> {
            diesel::delete(outbox::table.filter(outbox::batch.eq(batch))).execute(connection).await?;
            Ok(())
        }

        pub(super) async fn depth(connection: &mut $connection) -> Result<i64, DatabaseError> {
            Ok(outbox::table.select(count_star()).first(connection).await?)
        }
    };
}
pub(super) use queries;
