//! Parses the address of a database.

use std::fmt;
use std::str::FromStr;

/// The address of a database. It may contain a password, so `Debug` shows only the scheme.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the part before the first colon.
    pub fn scheme(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// Returns the path in `sqlite:PATH`.
    pub fn sqlite_path(&self) -> Option<&str> {
        self.0.strip_prefix("sqlite:")
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        match scheme {
            Some("sqlite") if text.len() == "sqlite:".len() => {
                Err("must name a file: sqlite:PATH".to_owned())
            }
            Some("postgres" | "postgresql" | "mongodb" | "mongodb+srv" | "sqlite") => {
                Ok(Self(text.to_owned()))
            }
            _ => Err("must begin with postgres://, mongodb:// or sqlite:".to_owned()),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:***", self.scheme())
    }
}
