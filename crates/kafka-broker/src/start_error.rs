//! Why a broker does not start.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::journal::JournalError;

/// Reports why a broker did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("cannot listen on 127.0.0.1")]
    Listen(#[source] io::Error),
    #[error("cannot create the data directory {}", .0.display())]
    DataDir(PathBuf, #[source] io::Error),
    #[error("cannot create a temporary file")]
    TemporaryFile(#[source] io::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The log carries the cause.
    #[error("cannot write the journal")]
    Write,
    #[error("the task that opens the journal ended early")]
    Task(#[from] tokio::task::JoinError),
}
