//! Inserts many vehicles in a single statement: one round trip and one flush of the write-ahead log for all of them.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Double, Integer, Nullable, Text, Timestamptz};
use diesel_async::RunQueryDsl;

use super::vehicle_queries;
use crate::database::DatabaseError;
use crate::database::postgres::{PostgresConnection, PostgresError, SqlState};
use crate::stock::IdempotencyKey;
use crate::stock::vehicle_store::{Appender, Existing, INSERTED_COLUMNS, IdsByVin, NewVehicle};
use crate::vehicle::VehicleId;

pub(super) struct PostgresAppender(pub(super) PostgresConnection);

#[async_trait]
impl Appender for PostgresAppender {
    async fn append(&mut self, vehicles: &[&NewVehicle]) -> Result<IdsByVin, DatabaseError> {
        let statement = Append::new(vehicles);
        // `load` returns after the server has committed; a stream of results would not wait.
        let loaded: Result<Vec<(i64, String)>, _> =
            self.0.call(async |connection| statement.load(connection).await).await;
        let rows = loaded.map_err(|error| match error {
            // A conflict in `vehicles` raises no error, so this is the id of an event, which the client did not cause.
            DatabaseError::Refused(error) if is_duplicate(&error) => DatabaseError::Internal(error),
            error => error,
        })?;
        Ok(rows.into_iter().map(|(id, vin)| (vin, VehicleId(id))).collect())
    }

    fn is_broken(&self) -> bool {
        self.0.is_broken()
    }

    async fn existing(&mut self, vins: Vec<String>, keys: Vec<String>) -> Result<Existing, DatabaseError> {
        let existing =
            self.0.call(async |connection| vehicle_queries::existing(connection, vins, keys).await).await?;
        if !existing.by_key.is_empty() {
            // A request whose wait for a synchronous standby was cancelled leaves its vehicle visible, but perhaps not
            // replicated. This transaction writes to the log, so its commit waits until the standby has everything before it.
            let write = "SELECT pg_logical_emit_message(true, 'stock', '')";
            self.0.call(async |connection| sql_query(write).execute(connection).await).await?;
        }
        Ok(existing)
    }
}

fn is_duplicate(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<PostgresError>().and_then(PostgresError::code);
    code == Some(SqlState::UNIQUE_VIOLATION)
}

/// Inserts vehicles and the events of the new ones in one implicit transaction. The server never waits for its client
/// while it holds the log's lock.
///
/// A query type, because diesel would prepare a `sql_query` every time.
#[derive(Default)]
struct Append<'a> {
    vins: Vec<&'a str>,
    models: Vec<&'a str>,
    manufacturers: Vec<&'a str>,
    years: Vec<i32>,
    odometers: Vec<f64>,
    odometer_units: Vec<&'a str>,
    created_ats: Vec<DateTime<Utc>>,
    idempotency_keys: Vec<Option<&'a str>>,
    events: Vec<&'a str>,
    traceparents: Vec<&'a str>,
    tracestates: Vec<Option<&'a str>>,
}

impl<'a> Append<'a> {
    fn new(new: &[&'a NewVehicle]) -> Self {
        let mut columns = Self::default();
        for NewVehicle { vehicle, created_at, event, trace, idempotency_key } in new {
            columns.vins.push(vehicle.vin.as_str());
            columns.models.push(vehicle.model.as_str());
            columns.manufacturers.push(vehicle.manufacturer.as_str());
            columns.years.push(vehicle.year.get());
            columns.odometers.push(vehicle.odometer.get());
            columns.odometer_units.push(vehicle.odometer_unit.as_str());
            columns.created_ats.push(*created_at);
            columns.idempotency_keys.push(idempotency_key.as_ref().map(IdempotencyKey::as_str));
            columns.events.push(event);
            columns.traceparents.push(&trace.parent);
            columns.tracestates.push(Some(&*trace.state).filter(|state| !state.is_empty()));
        }
        columns
    }
}

impl QueryFragment<Pg> for Append<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("WITH input AS (SELECT * FROM unnest(");
        out.push_bind_param::<Array<Text>, _>(&self.vins)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Text>, _>(&self.models)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Text>, _>(&self.manufacturers)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Integer>, _>(&self.years)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Double>, _>(&self.odometers)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Text>, _>(&self.odometer_units)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Timestamptz>, _>(&self.created_ats)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Text>>, _>(&self.idempotency_keys)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Text>, _>(&self.events)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Text>, _>(&self.traceparents)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Text>>, _>(&self.tracestates)?;
        out.push_sql(") AS input (");
        out.push_sql(INSERTED_COLUMNS);
        out.push_sql(", event, traceparent, tracestate)), stocked AS (INSERT INTO vehicles (");
        out.push_sql(INSERTED_COLUMNS);
        out.push_sql(") SELECT ");
        out.push_sql(INSERTED_COLUMNS);
        out.push_sql(
            " FROM input
                ON CONFLICT DO NOTHING
                RETURNING id, vin
            ), logged AS (
                INSERT INTO event_log (vin, event, traceparent, tracestate)
                SELECT vin, '{\"id\":' || stocked.id || ',' || substr(event, 2), traceparent, tracestate
                FROM stocked JOIN input USING (vin) ORDER BY stocked.id
            )
            SELECT id, vin FROM stocked",
        );
        Ok(())
    }
}

impl QueryId for Append<'_> {
    type QueryId = Append<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Append<'_> {
    type SqlType = (BigInt, Text);
}
