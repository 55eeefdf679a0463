//! Names, creates and removes the files of a journal, in a directory or without names.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::JournalError;

/// Marks a directory of segments. Older versions of the broker refuse it. They had one file with this name, a segment.
const MARKER: &[u8; 8] = b"VPKJRNL\x02";
const MARKER_NAME: &str = "journal";

/// Begins each segment. A change that older code would misread changes the last byte.
pub const SEGMENT_MAGIC: &[u8; 8] = b"VPKJRNL\x01";

pub enum Directory {
    Named {
        path: PathBuf,
        /// Locked as long as the journal is open.
        _locks: Vec<File>,
    },
    /// The system deletes its files when the process ends.
    Temporary,
}

/// Distinguishes files that are named after a position in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Segment,
    Index,
}

impl Kind {
    pub fn name(self, position: u64) -> String {
        let extension = match self {
            Self::Segment => "log",
            Self::Index => "index",
        };
        format!("{position:020}.{extension}")
    }
}

impl Directory {
    /// Locks the directory. Turns the single file of an older version into the first segment.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let marker = path.join(MARKER_NAME);
        let io = |error| JournalError::Io(marker.clone(), error);
        let lock = |file: &File| match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(JournalError::Locked(marker.clone())),
            Err(TryLockError::Error(error)) => Err(io(error)),
        };
        let create =
            |path: &Path| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = create(&marker).map_err(io)?;
        lock(&file)?;
        let content = read_start(&file).map_err(io)?;
        if content == MARKER {
            return Ok(Self::Named { path: path.to_owned(), _locks: vec![file] });
        }
        if content == SEGMENT_MAGIC {
            match fs::hard_link(&marker, path.join(Kind::Segment.name(0))) {
                // A crash interrupted an earlier attempt.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => linked.map_err(io)?,
            }
            let new = path.join("journal.new");
            let mut replacement = create(&new).map_err(io)?;
            lock(&replacement)?;
            replacement.write_all(MARKER).map_err(io)?;
            fs::rename(new, &marker).map_err(io)?;
            return Ok(Self::Named { path: path.to_owned(), _locks: vec![file, replacement] });
        }
        if !MARKER.starts_with(&content) {
            return Err(JournalError::Format(marker));
        }
        file.write_all(MARKER.get(content.len()..).unwrap_or_default()).map_err(io)?;
        Ok(Self::Named { path: path.to_owned(), _locks: vec![file] })
    }

    /// Returns the path of a file, for messages.
    pub fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Named { path, .. } => path.join(name),
            Self::Temporary => PathBuf::from(name),
        }
    }

    pub fn is_named(&self) -> bool {
        matches!(self, Self::Named { .. })
    }

    /// Creates a file, or empties the one that an interrupted attempt left.
    pub fn create(&self, kind: Kind, position: u64) -> io::Result<File> {
        match self {
            Self::Named { path, .. } => {
                let mut options = OpenOptions::new();
                options
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(path.join(kind.name(position)))
            }
            Self::Temporary => tempfile::tempfile(),
        }
    }

    pub fn open_file(&self, kind: Kind, position: u64) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path(&kind.name(position)))
    }

    /// Returns the positions that files of this kind are named after.
    pub fn positions(&self, kind: Kind) -> io::Result<BTreeSet<u64>> {
        let Self::Named { path, .. } = self else { return Ok(BTreeSet::new()) };
        let mut positions = BTreeSet::new();
        for file in fs::read_dir(path)? {
            let name = file?.file_name();
            let position = name.to_str().and_then(|name| name.split('.').next()?.parse().ok());
            positions.extend(position.filter(|position| name.to_str() == Some(&kind.name(*position))));
        }
        Ok(positions)
    }

    /// Removes a file, if it exists.
    pub fn remove(&self, kind: Kind, position: u64) -> io::Result<()> {
        let Self::Named { path, .. } = self else { return Ok(()) };
        match fs::remove_file(path.join(kind.name(position))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Flushes all files and their names to the device.
    pub fn sync(&self) -> io::Result<()> {
        let Self::Named { path, .. } = self else { return Ok(()) };
        for file in fs::read_dir(path)? {
            File::open(file?.path())?.sync_all()?;
        }
        File::open(path)?.sync_all()
    }

    /// Returns the content of a file, or `None` when it does not exist.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Self::Named { path, .. } = self else { return Ok(None) };
        match fs::read(path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            content => content.map(Some),
        }
    }

    /// Replaces a file as a whole, also for a start after a power cut. Does nothing for a temporary journal, which no
    /// process reads again.
    pub fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let Self::Named { path, .. } = self else { return Ok(()) };
        let new = path.join(format!("{name}.new"));
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_data()?;
        fs::rename(new, path.join(name))?;
        File::open(path)?.sync_all()
    }
}

/// Returns the first eight bytes, or all when there are fewer.
fn read_start(file: &File) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::new();
    file.take(MARKER.len() as u64).read_to_end(&mut content)?;
    Ok(content)
}
