//! A minimal HTTP/1.1 client. It shares the processor with the measured processes, so it must use little of it.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    /// The last response.
    buffer: Vec<u8>,
}

/// The parts of a response that the bench uses.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub status: u16,
    pub has_retry_after: bool,
    /// Whether the server closes the connection after this response.
    pub closes: bool,
    body_at: usize,
    body_length: usize,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4 * 1024) })
    }

    /// Sends a request and reads the response.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut head = None;
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if head.is_none() {
                head = parse_head(&self.buffer)?;
            }
            if let Some(answer) = head
                && self.buffer.len() >= answer.body_at + answer.body_length
            {
                return Ok(answer);
            }
        }
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes()).await
    }

    /// Returns the body of the last response.
    pub fn body(&self, answer: Answer) -> &[u8] {
        &self.buffer[answer.body_at..answer.body_at + answer.body_length]
    }
}

/// Parses the status line and headers. Returns `None` while they are incomplete.
fn parse_head(read: &[u8]) -> Result<Option<Answer>> {
    let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let malformed = || Error::from(ErrorKind::InvalidData);
    let mut lines = read[..end].split(|&byte| byte == b'\n');
    let status = lines.next().and_then(|line| line.get(9..12)).ok_or_else(malformed)?;
    let mut answer = Answer {
        status: number(status).ok_or_else(malformed)?,
        has_retry_after: false,
        closes: false,
        body_at: end + 4,
        body_length: 0,
    };
    for line in lines {
        let line = line.trim_ascii_end();
        if let Some(length) = value_of(line, b"content-length:") {
            answer.body_length = number(length).ok_or_else(malformed)?;
        } else if value_of(line, b"retry-after:").is_some() {
            answer.has_retry_after = true;
        } else if let Some(value) = value_of(line, b"connection:") {
            answer.closes = value.eq_ignore_ascii_case(b"close");
        } else if value_of(line, b"transfer-encoding:").is_some() {
            // The platform never sends chunked responses.
            return Err(malformed());
        }
    }
    Ok(Some(answer))
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
