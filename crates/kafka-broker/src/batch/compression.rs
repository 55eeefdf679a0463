//! Decompresses the records of a batch as a stream, with a bound on what comes out, and compresses them.

use std::io::{self, BufReader, ErrorKind, Read};

use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{FrameDecoder, FrameEncoder};

use super::Codec;

/// Limits what a batch inflates to, in bytes, and thus the time that its validation takes. Apache Kafka has no limit.
pub const MAX_INFLATED: usize = 128 * 1024 * 1024;
const BUFFER: usize = 64 * 1024;

/// Returns a reader of the decompressed bytes. It fails with [`ErrorKind::FileTooLarge`] beyond [`MAX_INFLATED`].
pub fn inflate<'a>(codec: Codec, bytes: &'a [u8]) -> io::Result<BufReader<Bounded<'a>>> {
    let inflated: Box<dyn Read + 'a> = match codec {
        Codec::None => Box::new(bytes),
        Codec::Gzip => Box::new(GzipReader(GzDecoder::new(bytes))),
        Codec::Snappy => Box::new(SnappyReader::new(bytes)?),
        Codec::Lz4 => Box::new(FrameDecoder::new(lz4_frame(bytes)?)),
        Codec::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(bytes)?),
    };
    Ok(BufReader::with_capacity(BUFFER, Bounded { inflated, left: MAX_INFLATED }))
}

/// Compresses the bytes. Fails with [`ErrorKind::FileTooLarge`] when the result is certainly larger than `max_bytes`.
pub fn deflate(codec: Codec, mut bytes: impl Read, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    match codec {
        Codec::None => {
            let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
            if bytes.take(limit).read_to_end(&mut out)? > max_bytes {
                return Err(ErrorKind::FileTooLarge.into());
            }
        }
        Codec::Gzip => {
            let mut encoder = GzEncoder::new(&mut out, flate2::Compression::default());
            io::copy(&mut bytes, &mut encoder)?;
            encoder.finish()?;
        }
        Codec::Snappy => write_snappy(bytes, &mut out)?,
        Codec::Lz4 => {
            let mut encoder = FrameEncoder::new(&mut out);
            io::copy(&mut bytes, &mut encoder)?;
            encoder.finish()?;
        }
        Codec::Zstd => zstd::stream::copy_encode(bytes, &mut out, zstd::DEFAULT_COMPRESSION_LEVEL)?,
    }
    Ok(out)
}

/// Writes blocks with lengths behind a header, as snappy-java does.
fn write_snappy(mut bytes: impl Read, out: &mut Vec<u8>) -> io::Result<()> {
    const VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
    const BLOCK: u64 = 32 * 1024;
    out.extend(SnappyReader::MAGIC);
    out.extend(VERSIONS);
    let mut encoder = snap::raw::Encoder::new();
    loop {
        let mut block = Vec::new();
        if bytes.by_ref().take(BLOCK).read_to_end(&mut block)? == 0 {
            return Ok(());
        }
        let compressed = encoder.compress_vec(&block)?;
        out.extend((compressed.len() as u32).to_be_bytes());
        out.extend(compressed);
    }
}

/// Reads at most a number of bytes, and fails when there are more.
pub struct Bounded<'a> {
    inflated: Box<dyn Read + 'a>,
    left: usize,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inflated.read(buffer)?;
        self.left = self.left.checked_sub(read).ok_or(ErrorKind::FileTooLarge)?;
        Ok(read)
    }
}

/// Reads gzip members up to bytes that are none, as `GZIPInputStream` of Java does.
struct GzipReader<'a>(GzDecoder<&'a [u8]>);

impl Read for GzipReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.0.read(buffer)?;
            let rest = *self.0.get_ref();
            if read > 0 || buffer.is_empty() || !rest.starts_with(&[0x1f, 0x8b]) {
                return Ok(read);
            }
            self.0 = GzDecoder::new(rest);
        }
    }
}

/// Returns the first frame in the bytes, which must be complete. Refuses a frame whose blocks depend on each other: the
/// Java client cannot read it (`Lz4BlockInputStream`).
fn lz4_frame(bytes: &[u8]) -> io::Result<&[u8]> {
    const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
    const UNCOMPRESSED: u32 = 1 << 31;
    let flags = *bytes.get(MAGIC.len()).ok_or(ErrorKind::UnexpectedEof)?;
    let optional = |bit: u8, size: usize| if flags & (1 << bit) == 0 { 0 } else { size };
    let (dictionary, content_checksum, content_size) = (optional(0, 4), optional(2, 4), optional(3, 8));
    let (block_checksum, independent) = (optional(4, 4), optional(5, 1) > 0);
    if !bytes.starts_with(&MAGIC) || !independent {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut end = MAGIC.len() + 3 + content_size + dictionary;
    loop {
        let rest = bytes.get(end..).ok_or(ErrorKind::UnexpectedEof)?;
        let size = u32::from_le_bytes(*rest.first_chunk().ok_or(ErrorKind::UnexpectedEof)?);
        end += size_of::<u32>();
        if size == 0 {
            break;
        }
        end += (size & !UNCOMPRESSED) as usize + block_checksum;
    }
    bytes.get(..end + content_checksum).ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

/// Reads snappy as Kafka's clients write it: blocks with lengths behind a header (snappy-java), or one block alone
/// (librdkafka).
struct SnappyReader<'a> {
    rest: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    read: usize,
}

impl<'a> SnappyReader<'a> {
    const MAGIC: &'static [u8] = b"\x82SNAPPY\x00";
    /// Exceeds what snappy can reach: three bytes inflate to at most 64. A block that announces more is wrong, and no
    /// memory is allocated for it.
    const MAX_RATIO: usize = 32;
    /// Two version numbers follow the magic bytes.
    const HEADER: usize = 16;

    fn new(bytes: &'a [u8]) -> io::Result<Self> {
        let mut reader =
            Self { rest: bytes, framed: bytes.starts_with(Self::MAGIC), block: Vec::new(), read: 0 };
        reader.skip_header();
        // One block is never empty.
        if bytes.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(reader) }
    }

    /// Skips a header. Streams may follow each other.
    fn skip_header(&mut self) {
        if self.rest.starts_with(Self::MAGIC) {
            self.rest = self.rest.get(Self::HEADER..).unwrap_or_default();
        }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let length = if self.framed {
            let (length, rest) = self.rest.split_first_chunk().ok_or(ErrorKind::UnexpectedEof)?;
            self.rest = rest;
            u32::from_be_bytes(*length) as usize
        } else {
            self.rest.len()
        };
        let (block, rest) = self.rest.split_at_checked(length).ok_or(ErrorKind::UnexpectedEof)?;
        self.rest = rest;
        let inflated = snap::raw::decompress_len(block)?;
        if inflated > MAX_INFLATED {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if inflated > block.len().saturating_mul(Self::MAX_RATIO) {
            return Err(ErrorKind::InvalidData.into());
        }
        self.block.resize(inflated, 0);
        let written = snap::raw::Decoder::new().decompress(block, &mut self.block)?;
        self.block.truncate(written);
        self.read = 0;
        if self.framed {
            self.skip_header();
        }
        Ok(())
    }
}

impl Read for SnappyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.block.len() && !self.rest.is_empty() {
            self.next_block()?;
        }
        let mut unread = self.block.get(self.read..).unwrap_or_default();
        let count = unread.read(buffer)?;
        self.read += count;
        Ok(count)
    }
}
