//! Opens a stream to one server, encrypted or not.

use std::sync::Arc;

use super::address::{Host, Server, Settings};
use super::postgres_error::PostgresError;
use super::socket::{Endpoint, Stream, connect_unix};
use super::tls::{self, Answer, server_name};

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Never,
    IfOffered,
    Always,
}

/// The path to one server: an endpoint and its encryption.
#[derive(Clone)]
pub(super) struct Route {
    pub settings: Arc<Settings>,
    pub server: Server,
    pub endpoint: Endpoint,
    pub encryption: Encryption,
}

/// The reason why an attempt failed.
pub(super) struct Failure {
    pub error: PostgresError,
    /// Whether the server may accept a connection with the other encryption.
    pub depends_on_encryption: bool,
}

impl Failure {
    fn new(text: String) -> Self {
        Self { error: PostgresError::unavailable(text), depends_on_encryption: false }
    }

    fn of_encryption(text: String) -> Self {
        Self { error: PostgresError::unavailable(text), depends_on_encryption: true }
    }
}

impl Route {
    /// Connects and returns the stream and whether it is encrypted.
    pub async fn stream(&self) -> Result<(Box<dyn Stream>, bool), PostgresError> {
        self.stream_or_failure().await.map_err(|failure| failure.error)
    }

    pub async fn stream_or_failure(&self) -> Result<(Box<dyn Stream>, bool), Failure> {
        let network = |error| Failure::new(format!("cannot connect: {error}"));
        let address = match &self.endpoint {
            Endpoint::Unix(path) => {
                let stream = connect_unix(path).await.map_err(network)?;
                return Ok((Box::new(stream), false));
            }
            Endpoint::Tcp(address) => *address,
        };
        let mut stream = self.settings.socket.connect_tcp(address).await.map_err(network)?;
        if self.encryption == Encryption::Never {
            return Ok((Box::new(stream), false));
        }
        match tls::request(&mut stream).await.map_err(network)? {
            Answer::Agreed => {}
            Answer::Refused if self.encryption == Encryption::IfOffered => {
                return Ok((Box::new(stream), false));
            }
            Answer::Refused => {
                return Err(Failure::new(
                    "the server does not support TLS, which sslmode requires".to_owned(),
                ));
            }
            Answer::Failed => {
                return Err(Failure::of_encryption(
                    "the server failed to answer the request for TLS".to_owned(),
                ));
            }
        }
        let name = match &self.server.host {
            Host::Tcp { name, .. } => server_name(name).unwrap_or_else(|_| address.ip().into()),
            Host::Unix(_) => address.ip().into(),
        };
        let encrypted = self.settings.tls.encrypt(name, stream).await;
        let encrypted = encrypted.map_err(|error| Failure::of_encryption(error.to_string()))?;
        Ok((Box::new(encrypted), true))
    }
}
