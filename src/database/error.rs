//! What went wrong in a database, by what its caller can do about it.

/// Why a database did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The same call may succeed later: the database cannot be reached, starts or stops, is overloaded or full, or
    /// did not answer in time.
    #[error("the database is unavailable: {0:#}")]
    Unavailable(anyhow::Error),
    /// The database answers but takes no writes, such as a standby after a failover.
    #[error("the database is read-only: {0:#}")]
    ReadOnly(anyhow::Error),
    /// Another transaction was in the way, and nothing was written: the same call can be made again at once.
    #[error("the database could not serialize a transaction: {0:#}")]
    Conflict(anyhow::Error),
    /// The database refuses the values of the call, and would refuse them again.
    #[error("the database refuses the values: {0:#}")]
    Refused(anyhow::Error),
    /// What was asked for is there, but something else than this program wrote or changed it.
    #[error("the database holds what cannot be read: {0:#}")]
    Unreadable(anyhow::Error),
    /// A defect of ours, or of the database.
    #[error("the database failed: {0:#}")]
    Internal(anyhow::Error),
}

impl DatabaseError {
    pub fn unavailable(error: impl Into<anyhow::Error>) -> Self {
        Self::Unavailable(error.into())
    }

    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self::Internal(error.into())
    }
}
