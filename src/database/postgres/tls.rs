//! Encrypts connections as libpq's `sslmode` and `sslrootcert` specify
//! (<https://www.postgresql.org/docs/current/libpq-ssl.html>).

use std::io;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The values of `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    /// No TLS.
    Disable,
    /// TLS only when the server refuses an unencrypted connection.
    Allow,
    /// TLS when the server supports it.
    Prefer,
    /// TLS without verifying the server's identity; with `sslrootcert` the same as [`Self::VerifyCa`].
    Require,
    /// TLS with a server whose certificate is signed by a trusted authority.
    VerifyCa,
    /// TLS with a server whose certificate is signed by a trusted authority for its host name.
    VerifyFull,
}

impl FromStr for SslMode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => bail!("sslmode must be disable, allow, prefer, require, verify-ca or verify-full"),
        })
    }
}

/// The TLS settings of an address.
pub(super) struct Tls {
    pub mode: SslMode,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the certificates that `mode` and `root_certificates` (a path, or `system`) require.
    ///
    /// # Errors
    /// Fails when the settings exclude each other or no certificate is found.
    pub fn new(mode: Option<SslMode>, root_certificates: Option<&str>) -> anyhow::Result<Self> {
        let system = root_certificates == Some("system");
        let mode = mode.unwrap_or(if system { SslMode::VerifyFull } else { SslMode::Prefer });
        let verifies = matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull);
        ensure!(!system || verifies, "sslrootcert=system needs sslmode=verify-full");
        let roots = match root_certificates {
            Some(path) if !system && mode != SslMode::Disable => certificates_in(path)?,
            _ if verifies => certificates_of_the_system()?,
            _ => Vec::new(),
        };
        let provider = Arc::new(ring::default_provider());
        let verifier = ServerIdentity::new(&provider, roots, mode == SslMode::VerifyFull)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self { mode, client: Arc::new(client) })
    }

    /// Encrypts `stream` after the server has agreed to TLS.
    ///
    /// # Errors
    /// Fails when the handshake fails. The error explains when the certificate is not accepted.
    pub async fn encrypt(
        &self,
        name: ServerName<'static>,
        stream: TcpStream,
    ) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.client));
        connector.connect(name, stream).await.map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            match cause {
                Some(rustls::Error::InvalidCertificate(reason)) => anyhow!(
                    "the server's certificate is not valid: {reason}; see sslmode and sslrootcert in the database URL"
                ),
                _ => anyhow!("the TLS handshake failed: {error}"),
            }
        })
    }
}

fn certificates_in(path: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || -> anyhow::Result<Vec<_>> {
        let certificates = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
        ensure!(!certificates.is_empty(), "the file contains no certificate in PEM format");
        Ok(certificates)
    };
    read().with_context(|| format!("sslrootcert {path}"))
}

fn certificates_of_the_system() -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    let reason = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
    ensure!(
        !found.certs.is_empty(),
        "this system has no root certificates{reason}; name a file with sslrootcert=<path>"
    );
    Ok(found.certs)
}

/// Returns the name that the certificate of `host` must match.
///
/// # Errors
/// Fails when `host` is neither a DNS name nor an IP address.
pub(super) fn server_name(host: &str) -> anyhow::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).context("the host is neither a DNS name nor an IP address")
}

/// The server's answer to a request for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Agreed,
    Refused,
    /// The server could not process the request. Its text must not be trusted (CVE-2024-10977).
    Failed,
}

/// Requests TLS from the server.
///
/// # Errors
/// Fails when the connection fails or the answer is not one of PostgreSQL.
pub(super) async fn request(stream: &mut TcpStream) -> io::Result<Answer> {
    // <https://www.postgresql.org/docs/current/protocol-message-formats.html>: SSLRequest.
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
    // Reads exactly one byte. Bytes that a man in the middle injects after it reach the handshake and make it fail
    // (CVE-2021-23222).
    match stream.read_u8().await? {
        b'S' => Ok(Answer::Agreed),
        b'N' => Ok(Answer::Refused),
        b'E' => Ok(Answer::Failed),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "this is not a PostgreSQL server")),
    }
}

/// Verifies the identity of a server.
#[derive(Debug)]
struct ServerIdentity {
    /// The trusted certificates; `None` accepts every certificate.
    trusted: Option<(Arc<WebPkiServerVerifier>, Vec<CertificateDer<'static>>)>,
    check_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerIdentity {
    fn new(
        provider: &Arc<CryptoProvider>,
        roots: Vec<CertificateDer<'static>>,
        check_name: bool,
    ) -> anyhow::Result<Self> {
        let mut identity = Self { trusted: None, check_name, provider: Arc::clone(provider) };
        if !roots.is_empty() {
            let mut store = RootCertStore::empty();
            // A system's store may contain certificates that are too old to be parsed. A file must contain at least
            // one that is not.
            let (read, _) = store.add_parsable_certificates(roots.iter().cloned());
            ensure!(read > 0, "no root certificate can be read: they must be X.509 certificates");
            let webpki =
                WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider)).build()?;
            identity.trusted = Some((webpki, roots));
        }
        Ok(identity)
    }
}

impl ServerCertVerifier for ServerIdentity {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some((webpki, roots)) = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        match webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // webpki checks the name last, so everything else is valid.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            // A self-signed certificate that is its own authority. webpki reports it as a misuse of an authority.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if roots.iter().any(|root| root == end_entity) =>
            {
                if self.check_name {
                    let certificate = ParsedCertificate::try_from(end_entity)?;
                    rustls::client::verify_server_name(&certificate, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.trusted.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Without a trusted certificate the signature proves nothing, and webpki cannot parse X.509 version 1, which
        // `openssl x509 -req` creates.
        if self.trusted.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
