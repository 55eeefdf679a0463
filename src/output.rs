//! Writes text to standard output and standard error. The text cannot control a terminal, and a failing stream does not
//! end the process.
//!
//! External text, such as a vin, a header or the error message of a driver, reaches a terminal only through this
//! module. Macros such as `println!` panic when their stream fails, so the lints of this crate forbid them.

use std::fmt::{Arguments, Display, Write as _};
use std::io::{self, ErrorKind, Stdout, Write};

use serde::Serialize;

/// Returns whether a terminal may act on `character` or a reader may be misled by it. These are control characters
/// (Unicode's Cc), characters that reorder text or separate lines, and characters without a width.
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Escapes the unprintable characters in `text`, including line breaks, in Rust's notation: `\n`, `\u{1b}`.
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

/// Escapes the unprintable characters in a JSON document in JSON's notation: `\u001b`. Preserves line breaks and tabs,
/// which occur only between tokens.
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

/// The standard output of a tool.
///
/// A failing stream does not interrupt the tool. [`Self::finish`] returns the first error, and nothing is written after
/// it.
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

    /// Writes `text` as exactly one line and escapes line breaks in it.
    pub fn line(&mut self, text: Arguments<'_>) {
        self.raw(format!("{}\n", escape(&text.to_string())).as_bytes());
    }

    /// Writes `text`, which may have several lines.
    pub fn lines(&mut self, text: &str) {
        for line in text.split('\n') {
            self.line(format_args!("{line}"));
        }
    }

    /// Writes `value` as one line of JSON.
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

    /// Writes `bytes` without escaping, for a program that reads them.
    pub fn raw(&mut self, bytes: &[u8]) {
        if self.failure.is_none() {
            self.failure = self.stream.write_all(bytes).and_then(|()| self.stream.flush()).err();
        }
    }

    /// Returns whether the stream has failed, so that further text would be discarded.
    pub fn is_closed(&self) -> bool {
        self.failure.is_some()
    }

    /// Ends the output and returns whether everything was written.
    ///
    /// # Errors
    /// Returns the first error of the stream. A stream closed by its reader is not an error.
    pub fn finish(self) -> io::Result<()> {
        match self.failure {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(io::Error::new(error.kind(), format!("cannot write to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }
}

/// Writes the reason why a command failed to `stream`.
pub fn report_error(mut stream: impl Write, error: impl Display) {
    let line = format!("{}\n", escape(&format!("error: {error}")));
    let _ = stream.write_all(line.as_bytes());
}

/// Writes one line about a failure to standard error. Ignores errors, because the exit code also reports the failure.
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
    fn a_line_stays_one_line_with_its_unprintable_characters_escaped() {
        let line = written(|output| output.line(format_args!("{NASTY}")));
        let shown =
            "a\\u{1b}[31m\\u{7}\\n\\u{9b}0m\\u{7f}\\u{202e}\\u{2066}\\u{61c}\\u{200f}\\u{2028}\\u{e0041}b\n";
        assert_eq!(line, shown);
    }

    #[test]
    fn a_write_error_is_reported_at_the_end_unless_the_reader_closed_the_stream() {
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
        fn unprintable_characters_are_escaped_and_json_keeps_its_value(text in any::<String>()) {
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
