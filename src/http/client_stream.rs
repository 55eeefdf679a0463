//! The connection to a client. Explains the errors in the head of a request, which the server answers by itself and
//! without a body.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::rt::net::TcpStream;
use actix_web::web::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::problem::{PROBLEM_JSON, Problem};
use super::problem_type::ProblemType;

const STATUS_LINE: &[u8] = b"HTTP/1.1 ";
const NO_BODY: &[u8] = b"\r\ncontent-length: 0\r\n";

pub(super) struct ClientStream {
    stream: TcpStream,
    /// What remains to be sent of a response that replaces the server's.
    replacement: Bytes,
}

impl ClientStream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, replacement: Bytes::new() }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    fn poll_send_replacement(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.replacement.has_remaining() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.replacement))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.replacement.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        output: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send_replacement(context))?;
        match split_bare_error(output) {
            None => Pin::new(&mut self.stream).poll_write(context, output),
            Some(([], explained)) => {
                self.replacement = explained.into();
                // The rest is sent before the next output, or when the stream is flushed.
                if let Poll::Ready(Err(error)) = self.poll_send_replacement(context) {
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(output.len()))
            }
            Some((earlier, _)) => Pin::new(&mut self.stream).poll_write(context, earlier),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_replacement(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_replacement(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Splits off an error response without a body, which ends `output`, and returns the same response with a body. Only
/// the server itself writes such responses; after one it closes the connection.
fn split_bare_error(output: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    if !output.ends_with(b"\r\n\r\n") {
        return None;
    }
    let start = output.windows(STATUS_LINE.len()).rposition(|window| window == STATUS_LINE)?;
    let (earlier, response) = output.split_at_checked(start)?;
    let problem = match response.get(STATUS_LINE.len()..)?.first_chunk()? {
        b"400" => {
            Problem::new(&ProblemType::MALFORMED_REQUEST, "cannot read the request line or the headers")
        }
        b"408" => Problem::new(&ProblemType::HEAD_TIMEOUT, ""),
        b"431" => Problem::new(&ProblemType::HEAD_TOO_LARGE, ""),
        _ => return None,
    };
    let length = response.windows(NO_BODY.len()).position(|window| window == NO_BODY)?;
    let (status_line, rest) = response.split_at_checked(length)?;
    let rest = rest.strip_prefix(NO_BODY)?;
    let body = problem.to_json();
    let headers = format!("\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\n", body.len());
    Some((earlier, [status_line, headers.as_bytes(), rest, body.as_bytes()].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str =
        "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    #[test]
    fn a_bare_error_gets_a_body_and_what_was_written_before_stays() {
        let before = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
        let output = format!("{before}{BARE}");
        let (earlier, explained) = split_bare_error(output.as_bytes()).unwrap();
        assert_eq!(earlier, before.as_bytes());
        let explained = String::from_utf8(explained).unwrap();
        let (head, body) = explained.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
        assert!(head.contains("\r\ncontent-type: application/problem+json\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert!(head.ends_with("\r\nconnection: close"), "{head}");
        assert!(body.contains("/problems/head-too-large"), "{body}");
    }

    #[test]
    fn other_output_stays() {
        for output in [
            "",
            "\r\n\r\n",
            "HTTP/1.1 400",
            "HTTP/1.1 \r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 7\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 7\r\n\r\nproblem",
        ] {
            assert!(split_bare_error(output.as_bytes()).is_none(), "{output}");
        }
    }
}
