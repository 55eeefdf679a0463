//! Why a journal cannot be opened.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Reports why a journal cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Opening, reading or truncating a file failed.
    #[error("cannot use the journal {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// Another broker has the journal open.
    #[error("the journal {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The file has another format or version. It is unchanged.
    #[error("{} is not a journal of this version", .0.display())]
    Format(PathBuf),
    /// Acknowledged data are damaged or missing. The files are unchanged.
    #[error("the journal {} is damaged at byte {position}: {reason}", .path.display())]
    Damaged {
        /// A file of the journal.
        path: PathBuf,
        /// Offset of the damage in the file, in bytes.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
}
