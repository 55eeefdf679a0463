//! Classifies database errors by what the caller can do about them.

/// The reason why a database call failed.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The same call may succeed later: the database is unreachable, starting, stopping, overloaded or full, or it
    /// did not answer in time.
    #[error("the database is unavailable")]
    Unavailable(#[source] anyhow::Error),
    /// The database responds but accepts no writes, for example a standby after a failover.
    #[error("the database is read-only")]
    ReadOnly(#[source] anyhow::Error),
    /// A concurrent transaction conflicted and nothing was written. The same call can be retried immediately.
    #[error("the database could not serialize a transaction")]
    Conflict(#[source] anyhow::Error),
    /// The database refuses the values of the call and would refuse them again.
    #[error("the database refuses the values")]
    Refused(#[source] anyhow::Error),
    /// The requested data exists, but another program wrote or changed it.
    #[error("the database contains unreadable data")]
    Unreadable(#[source] anyhow::Error),
    /// A defect of this program or of the database.
    #[error("the database failed")]
    Internal(#[source] anyhow::Error),
}

impl DatabaseError {
    pub fn unavailable(error: impl Into<anyhow::Error>) -> Self {
        Self::Unavailable(error.into())
    }

    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self::Internal(error.into())
    }
}
