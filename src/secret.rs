//! Parses and reads values that may contain a secret.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::marker::PhantomData;
use std::path::Path;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

/// The maximum size of a file with a secret.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A parser that does not repeat an invalid value in its error, unlike clap's own parsers.
#[derive(Clone, Debug)]
pub struct SecretParser<T> {
    parse: fn(&str) -> Result<T, String>,
    of: PhantomData<T>,
}

impl<T> SecretParser<T> {
    pub fn new(parse: fn(&str) -> Result<T, String>) -> Self {
        Self { parse, of: PhantomData }
    }
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for SecretParser<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        let text = value.to_str().ok_or_else(|| "not UTF-8".to_owned());
        text.and_then(self.parse).map_err(|reason| {
            let name = argument.map(ToString::to_string).unwrap_or_default();
            Error::raw(ErrorKind::ValueValidation, format!("invalid value for '{name}': {reason}\n"))
                .with_cmd(command)
        })
    }
}

/// Returns the trimmed text of a file.
///
/// # Errors
/// Returns a reason that continues the name of the file: the file cannot be read, is empty, or is not a text of at
/// most 1 MiB.
pub fn read_secret(path: &Path) -> Result<String, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("has more than 1 MiB".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    // Some editors begin a file with a byte order mark.
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}
