//! Writes text to standard output and standard error so that it can neither drive a terminal nor end the process.
//!
//! Text from outside (a vin, a header, the message of a driver) reaches a terminal through this module only. A macro such as
//! `println!` panics when its stream fails, which the lints of this crate rule out.

use std::fmt::{Arguments, Display, Write as _};
use std::io::{self, ErrorKind, Stdout, Write};

use serde::Serialize;

/// Whether a terminal may act on `character`, or a reader may be misled by it: control characters (Unicode's Cc), characters that
/// reorder text or separate lines, and characters without a width.
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Escapes what is unprintable in `text`, line breaks too, as Rust does: `\n`, `\u{1b}`.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unprintable(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Escapes what is unprintable in a JSON document as JSON does: `\u001b`. The line breaks and blanks between its tokens stay.
pub fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if is_unprintable(character) && !matches!(character, '\n' | '\r' | '\t') {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Standard output of a tool.
///
/// Writing never stops the tool: the first error is kept for [`Self::finish`], and from then on nothing is written.
pub struct Output<W = Stdout> {
    stream: W,
    failure: Option<io::Error>,
}

impl Output {
    pub fn stdout() -> Self {
        Self::new(io::stdout())
    }
}

impl<W: Write> Output<W> {
    pub fn new(stream: W) -> Self {
        Self { stream, failure: None }
    }

    /// Writes `text` as one line, whatever is in it.
    pub fn line(&mut self, text: Arguments<'_>) {
        self.raw(format!("{}\n", escape(&text.to_string())).as_bytes());
    }

    /// Writes text of several lines.
    pub fn lines(&mut self, text: &str) {
        for line in text.split('\n') {
            self.line(format_args!("{line}"));
        }
    }

    /// Writes `value` as JSON on a line of its own.
    pub fn json(&mut self, value: &impl Serialize) {
        self.document(serde_json::to_string(value));
    }

    /// Writes `value` as indented JSON.
    pub fn pretty_json(&mut self, value: &impl Serialize) {
        self.document(serde_json::to_string_pretty(value));
    }

    fn document(&mut self, json: serde_json::Result<String>) {
        match json {
            Ok(json) => self.raw(format!("{}\n", escape_json(&json)).as_bytes()),
            Err(error) => self.failure = self.failure.take().or(Some(error.into())),
        }
    }

    /// Writes bytes as they are: for a program that reads them.
    pub fn raw(&mut self, bytes: &[u8]) {
        if self.failure.is_none() {
            self.failure = self.stream.write_all(bytes).and_then(|()| self.stream.flush()).err();
        }
    }

    /// Whether nothing that follows will be read.
    pub fn is_closed(&self) -> bool {
        self.failure.is_some()
    }

    /// Says whether all was written.
    ///
    /// # Errors
    /// The first error of the stream, unless its reader has closed it, who has read enough.
    pub fn finish(self) -> io::Result<()> {
        match self.failure {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(io::Error::new(error.kind(), format!("cannot write to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }
}

/// Reports why the command failed to `stream`.
pub fn report_error(mut stream: impl Write, error: impl Display) {
    let line = format!("{}\n", escape(&format!("error: {error}")));
    let _ = stream.write_all(line.as_bytes());
}

/// Writes a line about a failure to standard error; the exit code says so too when nothing can be written there.
pub fn report(text: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{}", escape(&text.to_string()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NASTY: &str = "a\u{1b}[31m\u{7}\n\u{9b}0m\u{7f}\u{202e}\u{2066}\u{61c}\u{200f}\u{2028}\u{e0041}b";

    fn written(write: impl FnOnce(&mut Output<&mut Vec<u8>>)) -> String {
        let mut bytes = Vec::new();
        let mut output = Output::new(&mut bytes);
        write(&mut output);
        output.finish().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_one_line_that_shows_what_it_hides() {
        let line = written(|output| output.line(format_args!("{NASTY}")));
        let shown =
            "a\\u{1b}[31m\\u{7}\\n\\u{9b}0m\\u{7f}\\u{202e}\\u{2066}\\u{61c}\\u{200f}\\u{2028}\\u{e0041}b\n";
        assert_eq!(line, shown);
    }

    #[test]
    fn what_cannot_be_written_is_known_at_the_end_unless_the_reader_has_gone() {
        struct Broken(ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for (kind, fails) in [(ErrorKind::StorageFull, true), (ErrorKind::BrokenPipe, false)] {
            let mut output = Output::new(Broken(kind));
            output.line(format_args!("text"));
            assert!(output.is_closed());
            assert_eq!(output.finish().is_err(), fails, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn nothing_unprintable_is_written_and_json_stays_what_it_was(text in any::<String>()) {
            let text = text + NASTY;
            let line = written(|output| output.line(format_args!("{text}")));
            prop_assert!(!line.trim_end_matches('\n').contains(is_unprintable), "{line:?}");
            prop_assert_eq!(line.matches('\n').count(), 1);
            let json = written(|output| output.json(&text));
            prop_assert!(!json.trim_end_matches('\n').contains(is_unprintable), "{json:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
