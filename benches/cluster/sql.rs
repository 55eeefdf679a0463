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

    /// Runs statements, separated by semicolons, in one transaction.
    pub async fn run(&mut self, statements: &str) {
        self.0.batch_execute(statements).await.unwrap();
    }

    /// Vacuums and analyzes tables and writes a checkpoint, so that none of this happens during a measure.
    pub async fn vacuum(&mut self, tables: &[&str]) {
        for table in tables {
            self.run(&format!("VACUUM ANALYZE {table}")).await;
        }
        self.run("CHECKPOINT").await;
    }

    /// Returns the bigint column `value` of the first row of a query.
    pub async fn number(&mut self, query: &str) -> i64 {
        sql_query(query).load::<Number>(&mut self.0).await.unwrap()[0].value
    }
}
