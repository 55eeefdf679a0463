//! The parts that all databases share: addresses, errors and time limits.

mod error;
pub mod postgres;
pub mod sqlite;
mod unreadable;
mod url;

use std::time::Duration;

use anyhow::anyhow;

pub use error::DatabaseError;
pub use unreadable::{Readable, Unreadable};
pub use url::DatabaseUrl;

/// The time after which a database that does not answer is unavailable.
pub const DATABASE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a process uses a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Stores its data in the database and creates the missing schema.
    Owner,
    /// Works on the data of another process and does not change the schema.
    Observer,
}

/// Runs `work` within [`DATABASE_TIMEOUT`].
///
/// # Errors
/// Returns the errors of `work`, or [`DatabaseError::Unavailable`] on a timeout.
pub async fn in_time<T>(work: impl Future<Output = Result<T, DatabaseError>>) -> Result<T, DatabaseError> {
    match tokio::time::timeout(DATABASE_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(DatabaseError::unavailable(anyhow!("no answer within {DATABASE_TIMEOUT:?}"))),
    }
}
