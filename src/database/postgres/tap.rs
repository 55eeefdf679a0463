//! Reads the SQLSTATE of each error from the wire.
//!
//! diesel-async drops the code of an error for which diesel has no kind, and tokio-postgres drops the error with
//! which a server ends an idle session. Both are part of the connection's bytes. [`Tap`] therefore follows their
//! framing: one byte for the type and four for the length
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::sqlstate::SqlState;

/// The maximum length of a server message in characters; longer ones are truncated.
const LONGEST_MESSAGE: usize = 500;

/// The maximum number of bytes retained per frame. The code is among the first fields of an error.
const KEPT: usize = 1024;

/// An error reported by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerReport {
    pub code: SqlState,
    /// Whether the error ends the session.
    pub fatal: bool,
    /// The message: at most [`KEPT`] bytes, without control characters.
    pub message: String,
}

impl ServerReport {
    /// Parses the body of an `ErrorResponse`, which may be truncated.
    fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = body.split(|byte| *byte == 0).filter_map(<[u8]>::split_first);
        let (mut code, mut fatal, mut message) = (None, false, String::new());
        for (name, value) in &mut fields {
            match name {
                b'C' => code = SqlState::parse(value),
                // The severity, in the server's language (S) and in English (V).
                b'S' | b'V' => fatal |= matches!(value, b"FATAL" | b"PANIC"),
                b'M' => message = printable(&String::from_utf8_lossy(value)),
                _ => {}
            }
        }
        Some(Self { code: code?, fatal, message })
    }
}

/// The reports of the server on one connection.
#[derive(Default)]
pub(super) struct ServerReports(Mutex<Reports>);

#[derive(Default)]
struct Reports {
    last: Option<ServerReport>,
    fatal: Option<ServerReport>,
    process_id: Option<i32>,
}

impl ServerReports {
    fn lock(&self) -> MutexGuard<'_, Reports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clears the last report. A fatal one remains available from [`Self::fatal`].
    pub fn clear(&self) {
        self.lock().last = None;
    }

    /// Returns the last report since [`Self::clear`].
    pub fn last(&self) -> Option<ServerReport> {
        self.lock().last.clone()
    }

    /// Returns the report with which the server ended the session.
    pub fn fatal(&self) -> Option<ServerReport> {
        self.lock().fatal.clone()
    }

    /// Returns the process id of `BackendKeyData`: that of the server process, or an invented one from a pooler.
    pub fn process_id(&self) -> Option<i32> {
        self.lock().process_id
    }

    fn note(&self, kind: u8, body: &[u8]) {
        match kind {
            b'E' => {
                let Some(report) = ServerReport::parse(body) else { return };
                let mut reports = self.lock();
                if report.fatal {
                    reports.fatal = Some(report.clone());
                }
                reports.last = Some(report);
            }
            b'K' => self.lock().process_id = body.first_chunk().copied().map(i32::from_be_bytes),
            _ => {}
        }
    }
}

/// Follows the framing of the bytes that a server sends, using at most [`KEPT`] bytes of memory.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    body: Option<Body>,
    /// Whether an invalid length made the position of the next frame unknown.
    lost: bool,
}

struct Body {
    kind: u8,
    left: usize,
    kept: Vec<u8>,
}

impl Frames {
    const HEADER: usize = 5;

    /// Calls `note` with the type and the first bytes of each error and key frame that ends in `bytes`.
    fn follow(&mut self, mut bytes: &[u8], mut note: impl FnMut(u8, &[u8])) {
        while !bytes.is_empty() && !self.lost {
            let Some(body) = &mut self.body else {
                let (taken, rest) = bytes.split_at(bytes.len().min(Self::HEADER - self.header.len()));
                self.header.extend_from_slice(taken);
                bytes = rest;
                self.begin();
                self.end(&mut note);
                continue;
            };
            let (taken, rest) = bytes.split_at(bytes.len().min(body.left));
            bytes = rest;
            body.left -= taken.len();
            if matches!(body.kind, b'E' | b'K') {
                let kept = taken.len().min(KEPT - body.kept.len());
                body.kept.extend(taken.iter().take(kept));
            }
            self.end(&mut note);
        }
    }

    fn begin(&mut self) {
        let [kind, length @ ..] = self.header.as_slice() else { return };
        let Some(length) = length.first_chunk().copied().map(i32::from_be_bytes) else { return };
        // The length includes its own four bytes.
        match length.checked_sub(4).map(usize::try_from) {
            Some(Ok(left)) => self.body = Some(Body { kind: *kind, left, kept: Vec::new() }),
            _ => self.lost = true,
        }
        self.header.clear();
    }

    fn end(&mut self, note: &mut impl FnMut(u8, &[u8])) {
        if let Some(body) = self.body.take_if(|body| body.left == 0) {
            note(body.kind, &body.kept);
        }
    }
}

/// A stream to a server that records the server's reports in [`ServerReports`].
pub(super) struct Tap<S> {
    stream: S,
    frames: Frames,
    reports: Arc<ServerReports>,
}

impl<S> Tap<S> {
    pub fn new(stream: S, reports: Arc<ServerReports>) -> Self {
        Self { stream, frames: Frames::default(), reports }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, frames, reports } = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(stream).poll_read(cx, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        frames.follow(new, |kind, body| reports.note(kind, body));
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Returns at most [`LONGEST_MESSAGE`] characters of `text`, with control characters replaced by spaces.
pub(super) fn printable(text: &str) -> String {
    let printable = |character: char| if character.is_control() { ' ' } else { character };
    text.chars().take(LONGEST_MESSAGE).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = i32::try_from(body.len() + 4).unwrap();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    fn error(severity: &str, code: &str, message: &str) -> Vec<u8> {
        let body = format!("S{severity}\0V{severity}\0C{code}\0M{message}\0\0");
        frame(b'E', body.as_bytes())
    }

    /// Returns the types and bodies noted when `bytes` arrive in chunks of the given sizes.
    fn noted(bytes: &[u8], chunks: &[usize]) -> Vec<(u8, Vec<u8>)> {
        let (mut frames, mut noted, mut rest) = (Frames::default(), Vec::new(), bytes);
        for size in chunks.iter().copied().chain([bytes.len()]) {
            let (chunk, next) = rest.split_at(size.min(rest.len()));
            frames.follow(chunk, |kind, body| noted.push((kind, body.to_vec())));
            rest = next;
        }
        assert!(frames.header.len() <= Frames::HEADER);
        assert!(frames.body.is_none_or(|body| body.kept.len() <= KEPT));
        noted
    }

    fn reports(bytes: &[u8]) -> ServerReports {
        let reports = ServerReports::default();
        Frames::default().follow(bytes, |kind, body| reports.note(kind, body));
        reports
    }

    #[test]
    fn an_error_is_noted_with_its_code() {
        let reports = reports(&[frame(b'Z', b"I"), error("ERROR", "23505", "dupli\x1b[1mcate")].concat());
        let report = reports.last().unwrap();
        assert_eq!((report.code.as_str(), report.fatal), ("23505", false));
        assert_eq!(report.message, "dupli [1mcate");
        reports.clear();
        assert_eq!(reports.last(), None);
        assert_eq!(reports.fatal(), None);
    }

    #[test]
    fn the_error_that_ends_the_session_is_retained() {
        let reports = reports(&error("FATAL", "57P01", "terminating"));
        reports.clear();
        assert_eq!(reports.fatal().unwrap().code.as_str(), "57P01");
    }

    #[test]
    fn the_process_id_is_noted() {
        assert_eq!(reports(&frame(b'K', &[0, 0, 1, 2, 9, 9, 9, 9])).process_id(), Some(258));
    }

    #[test]
    fn a_long_error_is_truncated_and_retains_its_code() {
        let long = error("ERROR", "22001", &"x".repeat(100_000));
        let reports = reports(&[long, error("ERROR", "40001", "next")].concat());
        assert_eq!(reports.last().unwrap().code.as_str(), "40001");
        assert_eq!(noted(&error("ERROR", "22001", &"x".repeat(100_000)), &[])[0].1.len(), KEPT);
    }

    #[test]
    fn an_invalid_length_stops_the_parser() {
        let bytes = [&[b'E', 0, 0, 0, 3][..], &error("ERROR", "22001", "late")].concat();
        assert_eq!(reports(&bytes).last(), None);
    }

    proptest! {
        #[test]
        fn the_chunking_does_not_change_the_reports(
            bodies in prop::collection::vec(("[EKZDT]", prop::collection::vec(any::<u8>(), 0..2000)), 0..8),
            chunks in prop::collection::vec(0_usize..700, 0..40),
        ) {
            let frames = bodies.iter().map(|(kind, body)| frame(kind.as_bytes()[0], body));
            let bytes = frames.collect::<Vec<_>>().concat();
            prop_assert_eq!(noted(&bytes, &chunks), noted(&bytes, &[]));
            prop_assert_eq!(noted(&bytes, &[]).len(), bodies.len());
        }

        #[test]
        fn random_bytes_do_no_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..4000),
            chunks in prop::collection::vec(0_usize..100, 0..40),
        ) {
            prop_assert_eq!(noted(&bytes, &chunks), noted(&bytes, &[]));
            reports(&bytes);
        }
    }
}
