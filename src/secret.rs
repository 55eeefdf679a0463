//! Parses command-line values that may contain a secret.

use std::ffi::OsStr;
use std::marker::PhantomData;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

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
        let text = value.to_str().ok_or_else(|| "must be UTF-8".to_owned());
        text.and_then(self.parse).map_err(|reason| {
            let name = argument.map(ToString::to_string).unwrap_or_default();
            Error::raw(ErrorKind::ValueValidation, format!("the value of '{name}' {reason}\n"))
                .with_cmd(command)
        })
    }
}
