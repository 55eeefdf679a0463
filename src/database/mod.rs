//! What all databases share: their address, their errors, and how long a call to one may take.

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

/// A database that takes longer than this to answer is unavailable.
pub const DATABASE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a process uses a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Keeps its data there and creates what is missing.
    Owner,
    /// Works on what another process owns and leaves the schema as it is.
    Observer,
}

/// Does `work` within [`DATABASE_TIMEOUT`].
///
/// # Errors
/// Those of `work`; [`DatabaseError::Unavailable`] when it takes too long.
pub async fn in_time<T>(work: impl Future<Output = Result<T, DatabaseError>>) -> Result<T, DatabaseError> {
    match tokio::time::timeout(DATABASE_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(DatabaseError::unavailable(anyhow!("no answer within {DATABASE_TIMEOUT:?}"))),
    }
}
