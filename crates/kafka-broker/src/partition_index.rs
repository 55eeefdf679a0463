//! Finds the batches of a partition in the journal.
//!
//! The batches in the active segment are in memory. When the next segment begins, they are written to an index file, and
//! memory holds one entry for each block of them. So memory grows neither with the records nor with the batches.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};

use crate::entry::codec::{Malformed, Payload};
use crate::journal::{IndexFile, Used};

/// Number of batches in a block.
const BLOCK: usize = 256;
/// Size of a batch in an index file: last offset, maximum timestamp, position, length.
const INDEXED_SIZE: usize = 28;

#[derive(Debug, Default)]
pub struct PartitionIndex {
    blocks: Vec<Block>,
    recent: Vec<Indexed>,
}

/// Locates a batch in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub position: u64,
    pub length: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indexed {
    pub last_offset: i64,
    pub max_timestamp: i64,
    pub stored: Stored,
}

/// Summarizes consecutive batches: a block, or a recent batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub last_offset: i64,
    pub max_timestamp: i64,
    pub bytes: u64,
    first_position: u64,
    last_position: u64,
}

/// Locates a block in its index file.
#[derive(Debug)]
struct Block {
    span: Span,
    index: Arc<IndexFile>,
    at: u64,
    count: u32,
    crc: u32,
}

impl PartitionIndex {
    pub fn push(&mut self, indexed: Indexed) {
        self.recent.push(indexed);
    }

    /// Returns the batches from the one with `offset` on.
    pub fn from(&self, offset: i64) -> impl Iterator<Item = io::Result<Indexed>> {
        let block = self.blocks.partition_point(|block| block.span.last_offset < offset);
        let recent = self.recent.partition_point(|indexed| indexed.last_offset < offset);
        let blocks = self.blocks.get(block..).unwrap_or_default().iter();
        let recent = self.recent.get(recent..).unwrap_or_default().iter();
        blocks
            .flat_map(Block::read)
            .skip_while(move |found| found.as_ref().is_ok_and(|indexed| indexed.last_offset < offset))
            .chain(recent.copied().map(Ok))
    }

    /// Returns the batches from `offset` on with a record whose timestamp is at least `timestamp`.
    pub fn at_or_after(&self, timestamp: i64, offset: i64) -> impl Iterator<Item = io::Result<Indexed>> {
        let blocks = self.blocks.iter().filter(move |block| block.span.max_timestamp >= timestamp);
        let indexed = blocks.flat_map(Block::read).chain(self.recent.iter().copied().map(Ok));
        indexed.filter(move |found| match found {
            Ok(indexed) => indexed.max_timestamp >= timestamp && indexed.last_offset >= offset,
            Err(_) => true,
        })
    }

    /// Returns the largest timestamp of the batches from `offset` on.
    pub fn max_timestamp(&self, offset: i64) -> io::Result<Option<i64>> {
        // Only the first block may also have batches before the offset.
        let first = self.blocks.first().into_iter().flat_map(Block::read);
        let mut max = self.blocks.iter().skip(1).map(|block| block.span.max_timestamp).max();
        for found in first.chain(self.recent.iter().copied().map(Ok)) {
            let indexed = found?;
            if indexed.last_offset >= offset {
                max = max.max(Some(indexed.max_timestamp));
            }
        }
        Ok(max)
    }

    /// Returns the blocks and the recent batches.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        let blocks = self.blocks.iter().map(|block| block.span);
        blocks.chain(self.recent.iter().map(Indexed::span))
    }

    /// Forgets batches that end before this offset. A block goes as a whole.
    pub fn delete_before(&mut self, offset: i64) {
        self.blocks.drain(..self.blocks.partition_point(|block| block.span.last_offset < offset));
        self.recent.drain(..self.recent.partition_point(|indexed| indexed.last_offset < offset));
    }

    /// Adds the positions and files that the blocks refer to. The segments of recent batches are those that a start
    /// replays, and remain in any case.
    pub fn add_used(&self, used: &mut Used) {
        for Block { span, index, .. } in &self.blocks {
            used.ranges.push((span.first_position, span.last_position));
            used.indexes.insert(index.position);
        }
    }

    /// Writes the recent batches, and returns the blocks that [`PartitionIndex::seal`] replaces them with.
    pub fn write_recent(&self, writer: &mut IndexWriter) -> io::Result<Blocks> {
        let blocks = self.recent.chunks(BLOCK).map(|chunk| writer.write(chunk));
        blocks.collect::<Result<_, _>>().map(Blocks)
    }

    pub fn seal(&mut self, written: Blocks) {
        self.blocks.extend(written.0);
        self.recent = Vec::new();
    }

    /// Encodes the blocks. An index without recent batches is the same after [`PartitionIndex::decode`].
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.blocks.len() as u32);
        for Block { span, index, at, count, crc } in &self.blocks {
            let Span { last_offset, max_timestamp, bytes, first_position, last_position } = *span;
            out.put_i64(last_offset);
            out.put_i64(max_timestamp);
            for number in [bytes, first_position, last_position, index.position, *at] {
                out.put_u64(number);
            }
            out.put_u32(*count);
            out.put_u32(*crc);
        }
    }

    pub fn decode(
        from: &mut Payload,
        open: &mut impl FnMut(u64) -> io::Result<Arc<IndexFile>>,
    ) -> anyhow::Result<Self> {
        let mut blocks = Vec::new();
        for _ in 0..from.rest.try_get_u32()? {
            let span = Span {
                last_offset: from.rest.try_get_i64()?,
                max_timestamp: from.rest.try_get_i64()?,
                bytes: from.rest.try_get_u64()?,
                first_position: from.rest.try_get_u64()?,
                last_position: from.rest.try_get_u64()?,
            };
            blocks.push(Block {
                span,
                index: open(from.rest.try_get_u64()?)?,
                at: from.rest.try_get_u64()?,
                count: from.rest.try_get_u32()?,
                crc: from.rest.try_get_u32()?,
            });
        }
        Ok(Self { blocks, recent: Vec::new() })
    }
}

/// Holds the blocks that a checkpoint adds to one index.
pub struct Blocks(Vec<Block>);

impl Block {
    fn read(&self) -> Vec<io::Result<Indexed>> {
        let mut bytes = vec![0; self.count as usize * INDEXED_SIZE];
        if let Err(error) = self.index.file.read_exact_at(&mut bytes, self.at) {
            return vec![Err(error)];
        }
        if crc32c::crc32c(&bytes) != self.crc {
            return vec![Err(io::Error::new(io::ErrorKind::InvalidData, "an index file is damaged"))];
        }
        let batches = bytes.chunks_exact(INDEXED_SIZE).map(Indexed::decode);
        batches.map(|indexed| indexed.map_err(|_| io::ErrorKind::InvalidData.into())).collect()
    }
}

impl Indexed {
    fn span(&self) -> Span {
        let position = self.stored.position;
        Span {
            last_offset: self.last_offset,
            max_timestamp: self.max_timestamp,
            bytes: self.stored.length.into(),
            first_position: position,
            last_position: position,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_i64(self.last_offset);
        out.put_i64(self.max_timestamp);
        out.put_u64(self.stored.position);
        out.put_u32(self.stored.length);
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(Self {
            last_offset: bytes.try_get_i64()?,
            max_timestamp: bytes.try_get_i64()?,
            stored: Stored { position: bytes.try_get_u64()?, length: bytes.try_get_u32()? },
        })
    }
}

/// Writes the blocks of all partitions to an index file.
pub struct IndexWriter {
    index: Arc<IndexFile>,
    out: BufWriter<File>,
    at: u64,
}

impl IndexWriter {
    pub fn new(index: IndexFile) -> io::Result<Self> {
        let out = BufWriter::new(index.file.try_clone()?);
        Ok(Self { index: Arc::new(index), out, at: 0 })
    }

    fn write(&mut self, batches: &[Indexed]) -> io::Result<Block> {
        let mut bytes = BytesMut::with_capacity(batches.len() * INDEXED_SIZE);
        batches.iter().for_each(|indexed| indexed.encode(&mut bytes));
        self.out.write_all(&bytes)?;
        let at = self.at;
        self.at += bytes.len() as u64;
        let spans = batches.iter().map(Indexed::span);
        let span = spans.reduce(|before, next| Span {
            last_offset: next.last_offset,
            max_timestamp: before.max_timestamp.max(next.max_timestamp),
            bytes: before.bytes + next.bytes,
            first_position: before.first_position,
            last_position: next.last_position,
        });
        Ok(Block {
            span: span.ok_or(io::ErrorKind::InvalidInput)?,
            index: self.index.clone(),
            at,
            count: batches.len() as u32,
            crc: crc32c::crc32c(&bytes),
        })
    }

    /// Completes the file on the device. If the checkpoint of this segment fails, a later one refers to the file too.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()?;
        self.index.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seal(index: &mut PartitionIndex) {
        let file = IndexFile { position: 0, file: tempfile::tempfile().unwrap() };
        let mut writer = IndexWriter::new(file).unwrap();
        let blocks = index.write_recent(&mut writer).unwrap();
        writer.finish().unwrap();
        index.seal(blocks);
    }

    fn indexed(offset: i64, max_timestamp: i64) -> Indexed {
        let stored = Stored { position: offset.cast_unsigned() * 10, length: 10 };
        Indexed { last_offset: offset + 1, max_timestamp, stored }
    }

    #[test]
    fn a_damaged_index_file_is_an_error() {
        let mut index = PartitionIndex::default();
        index.push(indexed(0, 0));
        seal(&mut index);
        index.blocks[0].index.file.write_all_at(&[1], 5).unwrap();
        assert!(index.from(0).next().unwrap().is_err());
        index.blocks[0].index.file.set_len(3).unwrap();
        assert!(index.at_or_after(0, 0).next().unwrap().is_err());
    }

    #[test]
    fn an_index_file_that_cannot_be_flushed_to_the_device_is_an_error() {
        // A pipe has no device.
        let (_reader, writer) = io::pipe().unwrap();
        let file = IndexFile { position: 0, file: std::os::fd::OwnedFd::from(writer).into() };
        let mut index = PartitionIndex::default();
        index.push(indexed(0, 0));
        let mut writer = IndexWriter::new(file).unwrap();
        index.write_recent(&mut writer).unwrap();
        assert!(writer.finish().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn batches_are_found_in_files_as_in_memory(
            times in prop::collection::vec(0..1000_i64, 1..1500),
            seals in prop::collection::vec(0..1500_usize, 0..4),
            deleted in 0..1000_i64,
            wanted in 0..3000_i64,
        ) {
            let mut index = PartitionIndex::default();
            let mut model = Vec::new();
            for (at, time) in times.iter().enumerate() {
                if seals.contains(&at) {
                    seal(&mut index);
                }
                let batch = indexed(at as i64 * 2, *time);
                index.push(batch);
                model.push(batch);
            }
            index.delete_before(deleted);
            model.retain(|batch| batch.last_offset >= deleted);
            let from = wanted.max(deleted);
            let expected: Vec<_> = model.iter().filter(|batch| batch.last_offset >= from).copied().collect();
            let found: Result<Vec<_>, _> = index.from(from).collect();
            prop_assert_eq!(found.unwrap(), expected);
            let expected = model.iter().filter(|batch| batch.max_timestamp >= wanted / 3);
            let found: Result<Vec<_>, _> = index.at_or_after(wanted / 3, deleted).collect();
            prop_assert_eq!(found.unwrap(), expected.copied().collect::<Vec<_>>());
            let oldest = model.first().map(|batch| batch.last_offset);
            let first_span = index.spans().next().map(|span| span.last_offset);
            prop_assert!(first_span >= oldest);
        }
    }
}
