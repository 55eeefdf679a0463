//! Classifies database errors by what the caller can do about them.

/// The reason why a database call failed.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The same call may succeed later: the database is unreachable, starting, stopping, overloaded or full, or it
    /// did not answer in time.
    #[error("the database is unavailable: {0:#}")]
    Unavailable(anyhow::Error),
    /// The database responds but accepts no writes, for example a standby after a failover.
    #[error("the database is read-only: {0:#}")]
    ReadOnly(anyhow::Error),
    /// A concurrent transaction conflicted and nothing was written. The same call can be retried immediately.
    #[error("the database could not serialize a transaction: {0:#}")]
    Conflict(anyhow::Error),
    /// The database refuses the values of the call and would refuse them again.
    #[error("the database refuses the values: {0:#}")]
    Refused(anyhow::Error),
    /// The requested data exists, but another program wrote or changed it.
    #[error("the database contains unreadable data: {0:#}")]
    Unreadable(anyhow::Error),
    /// A defect of this program or of the database.
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

    /// Returns an error whose outermost message leaves out the cause, which may name hosts and users.
    pub fn with_separate_cause(self) -> anyhow::Error {
        match self {
            Self::Unavailable(cause) => cause.context("the database is unavailable"),
            Self::ReadOnly(cause) => cause.context("the database is read-only"),
            Self::Conflict(cause) => cause.context("the database could not serialize a transaction"),
            Self::Refused(cause) => cause.context("the database refuses the values"),
            Self::Unreadable(cause) => cause.context("the database contains unreadable data"),
            Self::Internal(cause) => cause.context("the database failed"),
        }
    }
}
