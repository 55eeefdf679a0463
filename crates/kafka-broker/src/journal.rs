//! Appends to the journal, one file of checksummed frames, and replays it. The broker keeps nothing else on disk.
//!
//! ```text
//! file  = MAGIC, frame*
//! frame = u32 length, u32 crc32c(length, payload), payload     (big-endian, length >= 1)
//! ```
//!
//! An appended frame is in the page cache: it survives the death of the process, but not a power cut, as no append calls
//! fsync.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Identifies the format and its version. A change that older code would misread changes the last byte.
const MAGIC: &[u8; 8] = b"VPKJRNL\x01";
const FRAME_HEADER: usize = 8;
/// More than the largest request (100 MiB), since every entry comes from one request.
const MAX_PAYLOAD: usize = 128 * 1024 * 1024;

/// Reports why a journal cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Opening, reading or truncating the file failed.
    #[error("cannot use the journal {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// Another broker has the journal open.
    #[error("the journal {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The file has another format or version. It is unchanged.
    #[error("{} is not a journal of this version", .0.display())]
    Format(PathBuf),
    /// Acknowledged data are damaged. The file is unchanged.
    #[error("the journal {} is damaged at byte {position}: {reason}", .path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Offset of the damage in the file, in bytes.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
}

/// Holds the open journal. Writing takes `&mut self`; a [`Reader`] reads without a lock.
pub struct Journal {
    file: Arc<File>,
    /// Position of the next frame. Bytes beyond it were never acknowledged.
    end: u64,
    /// Whether a failed write left bytes beyond `end` that could not be truncated yet.
    dirty: bool,
}

impl Journal {
    /// Opens or creates the journal, and passes each payload with its position in the file to `apply`.
    ///
    /// An incomplete last frame is truncated: a killed process leaves one that it had not yet acknowledged. An invalid
    /// frame with a valid one after it is damage to acknowledged data, and an error. A power cut can leave that, too.
    pub fn open(
        path: &Path,
        mut apply: impl FnMut(Bytes, u64) -> anyhow::Result<()>,
    ) -> Result<Self, JournalError> {
        let io = |error| JournalError::Io(path.to_owned(), error);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }

        let length = file.metadata().map_err(io)?.len();
        if length < MAGIC.len() as u64 {
            let mut start = vec![0; length as usize];
            file.read_exact_at(&mut start, 0).map_err(io)?;
            if !MAGIC.starts_with(&start) {
                return Err(JournalError::Format(path.to_owned()));
            }
            file.write_all_at(MAGIC, 0).map_err(io)?;
        } else {
            let mut magic = [0; MAGIC.len()];
            file.read_exact_at(&mut magic, 0).map_err(io)?;
            if &magic != MAGIC {
                return Err(JournalError::Format(path.to_owned()));
            }
        }

        let length = length.max(MAGIC.len() as u64);
        let mut end = MAGIC.len() as u64;
        while let Some(payload) = read_frame(&file, end, length).map_err(io)? {
            let position = end + FRAME_HEADER as u64;
            let next = position + payload.len() as u64;
            apply(payload, position).map_err(|error| JournalError::Damaged {
                path: path.to_owned(),
                position,
                reason: format!("{error:#}"),
            })?;
            end = next;
        }
        if end < length {
            if let Some(good) = find_frame(&file, end + 1, length).map_err(io)? {
                return Err(JournalError::Damaged {
                    path: path.to_owned(),
                    position: end,
                    reason: format!("a valid frame follows at byte {good}"),
                });
            }
            tracing::warn!(
                journal = %path.display(),
                dropped_bytes = length - end,
                "truncating the incomplete end of the journal"
            );
            file.set_len(end).map_err(io)?;
        }
        Ok(Self { file: Arc::new(file), end, dirty: false })
    }

    /// Creates an empty journal in a file without a name, which the system deletes with its last handle.
    pub fn temporary() -> io::Result<Self> {
        let file = tempfile::tempfile()?;
        file.write_all_at(MAGIC, 0)?;
        Ok(Self { file: Arc::new(file), end: MAGIC.len() as u64, dirty: false })
    }

    /// Appends one frame and returns the position of its payload. After an error the file ends where it ended before, so
    /// that memory and disk stay the same.
    pub fn append(&mut self, payload: &[u8]) -> io::Result<u64> {
        if payload.is_empty() || payload.len() > MAX_PAYLOAD {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a journal entry is empty or too large"));
        }
        if self.dirty {
            self.file.set_len(self.end)?;
            self.dirty = false;
        }
        let mut frame = BytesMut::with_capacity(FRAME_HEADER + payload.len());
        let length = payload.len() as u32;
        frame.put_u32(length);
        frame.put_u32(checksum(length, payload));
        frame.put_slice(payload);
        if let Err(error) = self.file.write_all_at(&frame, self.end) {
            self.dirty = self.file.set_len(self.end).is_err();
            return Err(error);
        }
        let position = self.end + FRAME_HEADER as u64;
        self.end += frame.len() as u64;
        Ok(position)
    }

    /// Flushes the file to the device. Called only at shutdown.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub fn reader(&self) -> Reader {
        Reader(self.file.clone())
    }
}

/// Reads stored bytes by position, concurrently with the writer.
#[derive(Clone)]
pub struct Reader(Arc<File>);

impl Reader {
    pub fn read_into(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, position)
    }
}

/// Returns the checksum of a frame. It covers the length too, so that zeros are not a valid frame.
fn checksum(length: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_be_bytes()), payload)
}

/// Returns the payload of the frame at `position`, or `None` when no complete, valid frame begins there.
fn read_frame(file: &File, position: u64, file_length: u64) -> io::Result<Option<Bytes>> {
    let available = file_length.saturating_sub(position);
    if available < FRAME_HEADER as u64 {
        return Ok(None);
    }
    let mut length = [0; 4];
    let mut crc = [0; 4];
    file.read_exact_at(&mut length, position)?;
    file.read_exact_at(&mut crc, position + 4)?;
    let length = u32::from_be_bytes(length);
    let fits = u64::from(length) <= available - FRAME_HEADER as u64;
    if length == 0 || length as usize > MAX_PAYLOAD || !fits {
        return Ok(None);
    }
    let mut payload = vec![0; length as usize];
    file.read_exact_at(&mut payload, position + FRAME_HEADER as u64)?;
    let valid = checksum(length, &payload) == u32::from_be_bytes(crc);
    Ok(valid.then(|| payload.into()))
}

/// Returns the position of the first valid frame that begins at `from` or at any byte after it.
fn find_frame(file: &File, from: u64, file_length: u64) -> io::Result<Option<u64>> {
    // A crash leaves at most one incomplete write. A remainder longer than one frame is certainly damage.
    let largest = (FRAME_HEADER + MAX_PAYLOAD) as u64;
    if file_length.saturating_sub(from) > largest {
        return Ok(Some(from));
    }
    let mut rest = vec![0; file_length.saturating_sub(from) as usize];
    file.read_exact_at(&mut rest, from)?;
    let found = rest.windows(FRAME_HEADER).enumerate().find(|(at, header)| {
        let Some((&length, tail)) = header.split_first_chunk::<4>() else {
            return false;
        };
        let length = u32::from_be_bytes(length);
        let start = at + FRAME_HEADER;
        length > 0
            && rest
                .get(start..start.saturating_add(length as usize))
                .is_some_and(|payload| checksum(length, payload).to_be_bytes() == *tail)
    });
    Ok(found.map(|(at, _)| from + at as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replay(path: &Path) -> Result<(Journal, Vec<Bytes>), JournalError> {
        let mut payloads = Vec::new();
        let journal = Journal::open(path, |payload, _| {
            payloads.push(payload);
            Ok(())
        })?;
        Ok((journal, payloads))
    }

    fn written(path: &Path, payloads: &[Vec<u8>]) -> Vec<u64> {
        let (mut journal, _) = replay(path).unwrap();
        payloads.iter().map(|payload| journal.append(payload).unwrap() + payload.len() as u64).collect()
    }

    #[test]
    fn a_journal_cut_at_any_byte_recovers_exactly_the_frames_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let payloads = vec![vec![1; 3], vec![0; 40], b"a third".to_vec()];
        let ends = written(&path, &payloads);
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut as u64).count();
            let (mut journal, found) = replay(&path).unwrap();
            assert_eq!(found, payloads[..whole], "cut at byte {cut}");
            journal.append(b"next").unwrap();
            drop(journal);
            let (_, found) = replay(&path).unwrap();
            assert_eq!(found.len(), whole + 1);
            assert_eq!(found[whole], "next");
        }
    }

    #[test]
    fn zeros_at_the_end_are_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        written(&path, &[b"kept".to_vec()]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend([0; 100]);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(replay(&path).unwrap().1, ["kept"]);
    }

    #[test]
    fn a_file_of_another_format_is_refused_and_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        for content in ["short", "something else entirely"] {
            std::fs::write(&path, content).unwrap();
            assert!(matches!(replay(&path), Err(JournalError::Format(_))));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_journal_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let _first = replay(&path).unwrap();
        assert!(matches!(replay(&path), Err(JournalError::Locked(_))));
    }

    proptest! {
        #[test]
        fn what_is_appended_is_replayed(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("journal");
            written(&path, &payloads);
            let (_, found) = replay(&path).unwrap();
            prop_assert_eq!(found, payloads);
        }

        #[test]
        fn an_invalid_frame_before_a_valid_one_is_an_error(flaw in 8_usize..60, bit in 0_u8..8) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("journal");
            written(&path, &[vec![7; 44], vec![9; 100]]);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[flaw] ^= 1_u8 << bit;
            std::fs::write(&path, &bytes).unwrap();
            let damaged = matches!(replay(&path), Err(JournalError::Damaged { position: 8, .. }));
            prop_assert!(damaged);
            prop_assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }
}
