//! Appends to the journal, a sequence of checksummed frames in segment files, and replays it.
//!
//! ```text
//! <position>.log    segment: MAGIC, frame*
//! <position>.index  where batches are in the segments before this position (partition_index)
//! checkpoint        the state at the beginning of a segment, from where a start replays the journal
//! journal           marks and locks the directory
//! ```
//!
//! A position counts the bytes of all segments, so a segment ends where the next one begins. An appended frame is in the
//! page cache: it survives the death of the process, but not a power cut, as fsync is called only when a segment is full.

mod directory;
mod error;
mod frame;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use directory::{Directory, Kind, SEGMENT_MAGIC};
pub use error::JournalError;

const MAGIC_LENGTH: u64 = SEGMENT_MAGIC.len() as u64;
const READ_BUFFER: usize = 1024 * 1024;
const CHECKPOINT: &str = "checkpoint";
const CHECKPOINT_MAGIC: &[u8] = b"VPKCKPT\x01";
/// Size of the journal at which a warning is logged, and again at each multiple of it.
const LARGE: u64 = 10 * 1024 * 1024 * 1024;

/// Holds the open journal. Writing takes `&mut self`; a [`Reader`] reads without a lock.
pub struct Journal {
    directory: Directory,
    /// Files of the segments by their first positions. The last one is written.
    segments: Arc<BTreeMap<u64, Arc<File>>>,
    active: Arc<File>,
    active_start: u64,
    /// Position of the next frame. Bytes beyond it were never acknowledged.
    end: u64,
    /// Position from which a start replays.
    replayed_from: u64,
    /// Whether a failed write left bytes beyond `end`, or a segment that begins there, that could not be removed yet.
    dirty: bool,
    segment_bytes: u64,
    /// Position at which the next segment begins.
    full_at: u64,
}

/// Holds an open index file.
#[derive(Debug)]
pub struct IndexFile {
    /// Position in the journal that the file is named after.
    pub position: u64,
    pub file: File,
}

impl Journal {
    /// Opens or creates the journal in a directory. Must be followed by [`Journal::replay`].
    pub fn open(path: &Path, segment_bytes: u64) -> Result<Self, JournalError> {
        let directory = Directory::open(path)?;
        let io = |error| JournalError::Io(path.to_owned(), error);
        let mut segments = BTreeMap::new();
        for position in directory.positions(Kind::Segment).map_err(io)? {
            let file = directory.open_file(Kind::Segment, position).map_err(io)?;
            segments.insert(position, Arc::new(file));
        }
        if segments.is_empty() {
            segments.insert(0, Arc::new(directory.create(Kind::Segment, 0).map_err(io)?));
        }
        Self::new(directory, segments, segment_bytes).map_err(io)
    }

    /// Creates an empty journal in files without names, which the system deletes with their last handles.
    pub fn temporary(segment_bytes: u64) -> io::Result<Self> {
        let file = Directory::Temporary.create(Kind::Segment, 0)?;
        file.write_all_at(SEGMENT_MAGIC, 0)?;
        Self::new(Directory::Temporary, BTreeMap::from([(0, Arc::new(file))]), segment_bytes)
    }

    fn new(directory: Directory, segments: BTreeMap<u64, Arc<File>>, segment_bytes: u64) -> io::Result<Self> {
        let (active_start, active) = segments.last_key_value().ok_or(io::ErrorKind::NotFound)?;
        let (active_start, active) = (*active_start, active.clone());
        Ok(Self {
            directory,
            segments: Arc::new(segments),
            active,
            active_start,
            end: active_start + MAGIC_LENGTH,
            replayed_from: 0,
            dirty: false,
            segment_bytes,
            full_at: active_start.saturating_add(segment_bytes),
        })
    }

    /// Returns the frames of the last checkpoint.
    pub fn read_checkpoint(&self) -> Result<Option<Vec<Bytes>>, JournalError> {
        let path = self.directory.path(CHECKPOINT);
        let content = self.directory.read(CHECKPOINT);
        let Some(content) = content.map_err(|error| JournalError::Io(path.clone(), error))? else {
            return Ok(None);
        };
        let mut rest = content.strip_prefix(CHECKPOINT_MAGIC).ok_or(JournalError::Format(path.clone()))?;
        let mut payloads = Vec::new();
        while !rest.is_empty() {
            let position = (content.len() - rest.len()) as u64;
            let available = rest.len() as u64;
            match frame::next(&mut rest, available) {
                Ok(Some(payload)) => payloads.push(payload),
                _ => return Err(damaged(path, position, "a frame is invalid")),
            }
        }
        Ok(Some(payloads))
    }

    pub fn damaged_checkpoint(&self, error: &anyhow::Error) -> JournalError {
        damaged(self.directory.path(CHECKPOINT), 0, format!("{error:#}"))
    }

    /// Passes each payload from the segment that begins at `from` on, with its position, to `apply`.
    ///
    /// An incomplete last frame is truncated: a killed process leaves one that it had not yet acknowledged. An invalid
    /// frame with a valid one after it is damage to acknowledged data, and an error. A power cut can leave that, too.
    pub fn replay(
        &mut self,
        from: u64,
        mut apply: impl FnMut(Bytes, u64) -> anyhow::Result<()>,
    ) -> Result<(), JournalError> {
        let segments = self.segments.clone();
        let mut expected = from;
        for (&start, file) in segments.range(from..) {
            if start != expected {
                return Err(self.damaged(start, 0, format!("it begins at {start} instead of {expected}")));
            }
            expected = self.replay_segment(start, file, &mut apply)?;
        }
        if expected == from {
            return Err(self.damaged(from, 0, "the segment is missing"));
        }
        self.end = expected;
        self.replayed_from = from;
        Ok(())
    }

    /// Replays one segment and returns its end.
    fn replay_segment(
        &self,
        start: u64,
        file: &File,
        apply: &mut impl FnMut(Bytes, u64) -> anyhow::Result<()>,
    ) -> Result<u64, JournalError> {
        let path = || self.directory.path(&Kind::Segment.name(start));
        let io = |error| JournalError::Io(path(), error);
        let length = file.metadata().map_err(io)?.len();
        let is_last = start == self.active_start;
        let mut magic = vec![0; length.min(MAGIC_LENGTH) as usize];
        file.read_exact_at(&mut magic, 0).map_err(io)?;
        if magic != SEGMENT_MAGIC {
            if !is_last || !SEGMENT_MAGIC.starts_with(&magic) {
                return Err(JournalError::Format(path()));
            }
            file.write_all_at(SEGMENT_MAGIC, 0).map_err(io)?;
        }
        let length = length.max(MAGIC_LENGTH);
        let mut end = MAGIC_LENGTH;
        let mut reader = BufReader::with_capacity(READ_BUFFER, file);
        reader.seek(SeekFrom::Start(end)).map_err(io)?;
        while let Some(payload) = frame::next(&mut reader, length - end).map_err(io)? {
            let position = end + frame::HEADER as u64;
            let next = position + payload.len() as u64;
            apply(payload, start + position)
                .map_err(|error| self.damaged(start, position, format!("{error:#}")))?;
            end = next;
        }
        if end < length {
            if let Some(good) = frame::find(file, end + 1, length).map_err(io)? {
                return Err(self.damaged(start, end, format!("a valid frame follows at byte {good}")));
            }
            if !is_last {
                return Err(self.damaged(start, end, "the segment is incomplete"));
            }
            tracing::warn!(
                journal = %path().display(),
                dropped_bytes = length - end,
                "truncating the incomplete end of the journal"
            );
            file.set_len(end).map_err(io)?;
        }
        Ok(start + end)
    }

    fn damaged(&self, segment: u64, position: u64, reason: impl Into<String>) -> JournalError {
        damaged(self.directory.path(&Kind::Segment.name(segment)), position, reason)
    }

    /// Appends one frame and returns the position of its payload. After an error the file ends where it ended before, so
    /// that memory and disk stay the same.
    pub fn append(&mut self, payload: &[u8]) -> io::Result<u64> {
        self.clean()?;
        let mut frame = BytesMut::new();
        frame::encode(payload, &mut frame)?;
        if let Err(error) = self.active.write_all_at(&frame, self.end - self.active_start) {
            self.dirty = true;
            let _ = self.clean();
            return Err(error);
        }
        let position = self.end + frame::HEADER as u64;
        self.end += frame.len() as u64;
        Ok(position)
    }

    /// Removes what a failed write left.
    fn clean(&mut self) -> io::Result<()> {
        if self.dirty {
            self.directory.remove(Kind::Segment, self.end)?;
            self.active.set_len(self.end - self.active_start)?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Returns whether it is time for the next segment.
    pub fn is_full(&self) -> bool {
        self.end >= self.full_at
    }

    /// Begins the next segment. When that fails, it is tried again after some more entries.
    pub fn begin_segment(&mut self) -> io::Result<()> {
        self.full_at = self.end.saturating_add(self.segment_bytes / 8);
        self.clean()?;
        self.dirty = true;
        let file = self.directory.create(Kind::Segment, self.end)?;
        file.write_all_at(SEGMENT_MAGIC, 0)?;
        self.dirty = false;
        self.active = Arc::new(file);
        self.active_start = self.end;
        Arc::make_mut(&mut self.segments).insert(self.end, self.active.clone());
        let before = self.size();
        self.end += MAGIC_LENGTH;
        self.full_at = self.active_start.saturating_add(self.segment_bytes);
        if before / LARGE > before.saturating_sub(self.segment_bytes) / LARGE {
            tracing::warn!(
                bytes = before,
                "the journal is large, limit it by retention.ms or retention.bytes of the topics"
            );
        }
        Ok(())
    }

    /// Returns the bytes of all segments.
    fn size(&self) -> u64 {
        let lengths = self.segments.values().filter_map(|file| file.metadata().ok());
        lengths.map(|metadata| metadata.len()).sum()
    }

    /// Creates the index file of the batches before the active segment.
    pub fn create_index(&self) -> io::Result<IndexFile> {
        let position = self.active_start;
        Ok(IndexFile { position, file: self.directory.create(Kind::Index, position)? })
    }

    pub fn open_index(&self, position: u64) -> io::Result<IndexFile> {
        Ok(IndexFile { position, file: self.directory.open_file(Kind::Index, position)? })
    }

    /// Makes the next start begin with these payloads, and replay from the active segment, which must be empty. The index
    /// file of that segment must be complete and flushed. Flushes the rest of it to the device.
    pub fn write_checkpoint(&mut self, payloads: impl Iterator<Item = Bytes>) -> io::Result<()> {
        if self.directory.is_named() {
            let mut content = BytesMut::from(CHECKPOINT_MAGIC);
            for payload in payloads {
                frame::encode(&payload, &mut content)?;
            }
            // After a power cut, a start must find all that the checkpoint refers to.
            self.sync_replayed()?;
            self.directory.replace(CHECKPOINT, &content)?;
        }
        self.replayed_from = self.active_start;
        Ok(())
    }

    /// Returns the position at which the active segment begins.
    pub fn active_start(&self) -> u64 {
        self.active_start
    }

    /// Checks that all used segments exist.
    pub fn check_used(&self, used: &Used) -> Result<(), JournalError> {
        let ends = self.segments.iter().map(|(start, file)| Ok((*start, start + file.metadata()?.len())));
        let ends: io::Result<BTreeMap<u64, u64>> = ends.collect();
        let ends = ends.map_err(|error| JournalError::Io(self.directory.path(""), error))?;
        for position in used.ranges.iter().flat_map(|(first, last)| [first, last]) {
            if ends.range(..=position).next_back().is_none_or(|(_, end)| position >= end) {
                return Err(self.damaged(*position, 0, "the segment with this position is missing"));
            }
        }
        Ok(())
    }

    /// Removes segments without used positions, except those that a start replays.
    pub fn remove_unused_segments(&mut self, used: &Used) -> io::Result<()> {
        let replayed = self.segments.range(..self.replayed_from);
        let mut unused: BTreeSet<u64> = replayed.map(|(start, _)| *start).collect();
        for (first, last) in &used.ranges {
            let holder = self.segments.range(..=first).next_back().map_or(0, |(start, _)| *start);
            for start in unused.range(holder..=*last).copied().collect::<Vec<_>>() {
                unused.remove(&start);
            }
        }
        if !unused.is_empty() {
            // After a power cut, a start must not miss the deletion of records whose segment is removed.
            self.sync_replayed()?;
            Arc::make_mut(&mut self.segments).retain(|start, _| !unused.contains(start));
        }
        unused.into_iter().try_for_each(|start| self.directory.remove(Kind::Segment, start))
    }

    /// Removes index files to which the last checkpoint does not refer.
    pub fn remove_unused_indexes(&self, used: &Used) -> io::Result<()> {
        let present = self.directory.positions(Kind::Index)?;
        present.difference(&used.indexes).try_for_each(|index| self.directory.remove(Kind::Index, *index))
    }

    /// Flushes the segments that a start replays.
    fn sync_replayed(&self) -> io::Result<()> {
        let mut replayed = self.segments.range(self.replayed_from..);
        if self.directory.is_named() { replayed.try_for_each(|(_, file)| file.sync_data()) } else { Ok(()) }
    }

    /// Flushes all files to the device, at shutdown.
    pub fn sync(&self) -> io::Result<()> {
        self.directory.sync()
    }

    pub fn reader(&self) -> Reader {
        Reader(self.segments.clone())
    }
}

/// Lists what the state refers to: first and last positions of batches, and index files.
#[derive(Debug, Default)]
pub struct Used {
    pub ranges: Vec<(u64, u64)>,
    pub indexes: BTreeSet<u64>,
}

/// Reads stored bytes by position, concurrently with the writer.
#[derive(Clone)]
pub struct Reader(Arc<BTreeMap<u64, Arc<File>>>);

impl Reader {
    pub fn read_into(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let found = self.0.range(..=position).next_back();
        let (start, file) = found.ok_or(io::ErrorKind::NotFound)?;
        file.read_exact_at(buffer, position - start)
    }
}

fn damaged(path: std::path::PathBuf, position: u64, reason: impl Into<String>) -> JournalError {
    JournalError::Damaged { path, position, reason: reason.into() }
}

#[cfg(test)]
mod tests;
