//! What the stores share: their address, and how their errors are told apart.

pub mod sqlite;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::anyhow;
use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// A database that takes longer to answer counts as away.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It may work later.
    #[error("the database is unavailable: {0:#}")]
    Unavailable(anyhow::Error),
    /// It will not work: a defect of ours, or of the database.
    #[error("the database failed: {0:#}")]
    Internal(anyhow::Error),
}

impl StoreError {
    pub fn unavailable(error: impl Into<anyhow::Error>) -> Self {
        Self::Unavailable(error.into())
    }

    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self::Internal(error.into())
    }
}

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> Self {
        let passes = match &error {
            DieselError::BrokenTransactionManager => true,
            DieselError::DatabaseError(kind, information) => match kind {
                DatabaseErrorKind::ClosedConnection
                | DatabaseErrorKind::UnableToSendCommand
                | DatabaseErrorKind::SerializationFailure
                | DatabaseErrorKind::ReadOnlyTransaction => true,
                // diesel has no kind for PostgreSQL's 57P0x, in which a server says that it stops or starts, nor
                // for SQLite's SQLITE_BUSY.
                _ => {
                    let message = information.message();
                    ["terminating connection", "the database system is", "database is locked"]
                        .iter()
                        .any(|known| message.contains(known))
                }
            },
            _ => false,
        };
        if passes { Self::unavailable(error) } else { Self::internal(error) }
    }
}

/// As what a process opens a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It keeps its data there, and creates what is missing.
    Owner,
    /// It looks into what is another's, and leaves it as it is.
    Observer,
}

/// Does `work`, within [`STORE_TIMEOUT`].
///
/// # Errors
/// Those of `work`; [`StoreError::Unavailable`] when it takes too long.
pub async fn in_time<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STORE_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::unavailable(anyhow!("no answer within {STORE_TIMEOUT:?}"))),
    }
}

/// The address of a database. It may hold a password: it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first colon.
    pub fn scheme(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// The path in `sqlite:<path>`.
    pub fn sqlite_path(&self) -> Option<&str> {
        self.0.strip_prefix("sqlite:")
    }

    /// Where the address stands: in the file when one is named, otherwise in `url`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn resolve(url: &Self, file: Option<&PathBuf>) -> anyhow::Result<Self> {
        let Some(file) = file else { return Ok(url.clone()) };
        let text = std::fs::read_to_string(file)
            .map_err(|error| anyhow!("--database-url-file {}: {error}", file.display()))?;
        text.trim().parse().map_err(|error| anyhow!("--database-url-file {}: {error}", file.display()))
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        match scheme {
            Some("sqlite") if text.len() == "sqlite:".len() => {
                Err("must name a file: sqlite:<path>".to_owned())
            }
            Some("postgres" | "postgresql" | "mongodb" | "mongodb+srv" | "sqlite") => {
                Ok(Self(text.to_owned()))
            }
            _ => Err("must begin with postgres://, mongodb:// or sqlite:".to_owned()),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:***", self.scheme())
    }
}
