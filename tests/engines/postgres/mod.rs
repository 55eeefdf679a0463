//! Tests the connections to PostgreSQL with servers and poolers that the tests start themselves.

mod errors;
mod failures;
mod poolers;
mod tls;

use diesel::result::Error as DieselError;
use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use vehicle_platform::database::DatabaseError;
use vehicle_platform::database::postgres::{PostgresConnection, PostgresError};

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Text)]
    answer: String,
}

/// Returns the text in the column `answer` of the result.
async fn ask(connection: &mut PostgresConnection, sql: &str) -> Result<String, DatabaseError> {
    connection.call(async |connection| Ok(first(connection, sql).await?.answer)).await
}

async fn first(connection: &mut AsyncPgConnection, sql: &str) -> Result<Answer, DieselError> {
    sql_query(sql).get_result(connection).await
}

async fn execute(connection: &mut PostgresConnection, sql: &str) -> Result<(), DatabaseError> {
    connection.call(async |connection| connection.batch_execute(sql).await).await
}

/// Returns the SQLSTATE of an error.
fn code(error: &DatabaseError) -> String {
    let (DatabaseError::Unavailable(inner)
    | DatabaseError::ReadOnly(inner)
    | DatabaseError::Conflict(inner)
    | DatabaseError::Refused(inner)
    | DatabaseError::Unreadable(inner)
    | DatabaseError::Internal(inner)) = error;
    let code = inner.downcast_ref::<PostgresError>().and_then(PostgresError::code);
    code.map_or_else(String::new, |code| code.as_str().to_owned())
}

/// Returns the variant of an error.
fn kind(error: &DatabaseError) -> &'static str {
    match error {
        DatabaseError::Unavailable(_) => "unavailable",
        DatabaseError::ReadOnly(_) => "read-only",
        DatabaseError::Conflict(_) => "conflict",
        DatabaseError::Refused(_) => "refused",
        DatabaseError::Unreadable(_) => "unreadable",
        DatabaseError::Internal(_) => "internal",
    }
}
