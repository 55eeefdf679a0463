//! Why a broker does not start.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::journal::JournalError;

/// Reports why a broker did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Binding a port of 127.0.0.1 failed, or the listener has no local address.
    #[error("cannot listen on 127.0.0.1")]
    Listen(#[source] io::Error),
    /// Creating the data directory failed.
    #[error("cannot create the data directory {}", .0.display())]
    DataDir(PathBuf, #[source] io::Error),
    /// Creating the file of a broker without a data directory failed.
    #[error("cannot create a temporary file")]
    TemporaryFile(#[source] io::Error),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Writing the first journal entry failed. The cause is logged.
    #[error("cannot write the journal")]
    Write,
    /// The task that opens the journal panicked, or the runtime shut down.
    #[error("the task that opens the journal ended early")]
    Task(#[from] tokio::task::JoinError),
}
