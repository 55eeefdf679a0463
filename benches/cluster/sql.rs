//! A connection to PostgreSQL.

use diesel::sql_types::BigInt;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};

pub struct Sql(AsyncPgConnection);

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

impl Sql {
    pub async fn connect(url: &str) -> Self {
        Self(AsyncPgConnection::establish(url).await.unwrap())
    }

    /// Runs statements, separated by semicolons: all or nothing.
    pub async fn run(&mut self, statements: &str) {
        self.0.batch_execute(statements).await.unwrap();
    }

    /// Leaves tables as they are after a while: with statistics, and nothing left to be written.
    pub async fn settle(&mut self, tables: &[&str]) {
        for table in tables {
            self.run(&format!("VACUUM ANALYZE {table}")).await;
        }
        self.run("CHECKPOINT").await;
    }

    /// Returns the bigint that a query selects as `value`.
    pub async fn number(&mut self, query: &str) -> i64 {
        sql_query(query).load::<Number>(&mut self.0).await.unwrap()[0].value
    }
}
