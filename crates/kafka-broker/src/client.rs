//! Holds what the broker knows about the client of a connection.

use std::net::IpAddr;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

/// Longest text that is kept of what a client says about itself, in characters.
const MAX_TEXT: usize = 100;

/// Identifies the client of one connection.
#[derive(Debug)]
pub struct Client {
    pub address: IpAddr,
    /// Cancelled when the client closes the connection while a request is handled.
    pub closed: CancellationToken,
    software: OnceLock<Software>,
}

/// Names the library of a client, as ApiVersions does since version 3 (KIP-511).
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Software {
    pub name: String,
    pub version: String,
}

impl Client {
    pub fn new(address: IpAddr) -> Self {
        Self { address, closed: CancellationToken::new(), software: OnceLock::new() }
    }

    /// Waits for what only delays the response, so that a client that is gone does not keep its connection meanwhile.
    ///
    /// # Errors
    /// When the client closes the connection before.
    pub async fn wait<T>(&self, waited: impl Future<Output = T>) -> Result<T> {
        let waited = self.closed.run_until_cancelled(waited).await;
        waited.context("the client closed the connection before its response")
    }

    /// Remembers the library that the client names first.
    pub fn introduce(&self, name: &str, version: &str) {
        self.software.get_or_init(|| Software { name: shortened(name), version: shortened(version) });
    }

    /// Returns the library, with empty texts while the client has not named it.
    pub fn software(&self) -> &Software {
        static UNKNOWN: Software = Software { name: String::new(), version: String::new() };
        self.software.get().unwrap_or(&UNKNOWN)
    }
}

/// Returns the beginning of a text that a client chose.
pub fn shortened(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
