//! Sets up the log, as text for people or as JSON for programs.

use std::io::{self, IsTerminal as _, Write};
use std::{fmt, panic};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

use crate::expected_panic::is_expected;
use crate::log_queue::LogQueue;
use crate::output::{escape, escape_json};

/// The directives of targets that log an error for each malformed request, or what the platform logs itself. The
/// filter may override them.
const QUIET: &str = "actix_http=off,actix_server=warn";

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// Filter of the log: a level, or tracing directives such as info,librdkafka=debug
    #[arg(long, env = "LOG", value_name = "FILTER", default_value = "info", value_parser = parse_filter, global = true)]
    pub log: String,

    /// Format of the log
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

fn parse_filter(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("must be a level, or directives; off disables the log".to_owned());
    }
    text.parse::<EnvFilter>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Sends the log of the whole process, including panics, to standard error. Returns the queue that the lines pass
/// through. Lines that cannot be written are dropped.
///
/// # Errors
/// Fails when the thread that writes the lines cannot be started.
pub fn init(args: &LogArgs) -> io::Result<LogQueue> {
    let queue = LogQueue::start(io::stderr(), |dropped| {
        tracing::warn!(dropped, "dropped log lines because the reader of the log was too slow");
    })?;
    let writer = queue.clone();
    let filter = EnvFilter::new(format!("{QUIET},{}", args.log));
    // By default, tracing reports a failing stream with `eprintln!`, which panics when standard error fails.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    match args.log_format {
        LogFormat::Text => builder
            .with_writer(move || writer.clone())
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .fmt_fields(PrintableFields)
            .init(),
        LogFormat::Json => builder.json().with_writer(move || PrintableJson(writer.clone())).init(),
    }
    panic::set_hook(Box::new(|info| {
        if is_expected() {
            return;
        }
        let location = info.location().map(ToString::to_string);
        tracing::error!(location, message = info.payload_as_str().unwrap_or("panicked"));
    }));
    Ok(queue)
}

/// A formatter that writes the fields of an event or a span, which may contain external text, on one line and without
/// control characters.
struct PrintableFields;

impl<'writer> FormatFields<'writer> for PrintableFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        writer.write_str(&escape(&text))
    }
}

/// A writer that escapes the control characters in lines of JSON.
struct PrintableJson<W>(W);

impl<W: Write> Write for PrintableJson<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(escape_json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::output::is_unprintable;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_nasty_text() {
        let nasty = "a\u{1b}[31m\n\u{9b}\u{202e}\u{2028}b";
        let _span = tracing::info_span!("span", text = %nasty).entered();
        tracing::info!(text = nasty, shown = %nasty, debugged = ?nasty, "{nasty}");
    }

    #[test]
    fn no_field_message_or_span_can_forge_a_line_or_control_a_terminal() {
        let text = Buffer::default();
        let writer = text.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).fmt_fields(PrintableFields);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, log_nasty_text);
        let json = Buffer::default();
        let writer = json.clone();
        let subscriber = tracing_subscriber::fmt().json();
        let subscriber = subscriber.with_writer(move || PrintableJson(writer.clone())).finish();
        tracing::subscriber::with_default(subscriber, log_nasty_text);
        for buffer in [&text, &json] {
            let log = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
            assert_eq!(log.matches('\n').count(), 1, "{log}");
            assert!(!log.trim_end().contains(is_unprintable), "{log:?}");
        }
        let line: serde_json::Value = serde_json::from_slice(&json.0.lock().unwrap()).unwrap();
        assert_eq!(line["fields"]["text"], "a\u{1b}[31m\n\u{9b}\u{202e}\u{2028}b");
    }
}
