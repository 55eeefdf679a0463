//! Creates HTTP clients and reads their responses.

use std::time::Duration;

use anyhow::ensure;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response};
use rustls::crypto::ring;

/// The time after which a client closes an idle connection. Servers close one too, possibly just as a request is sent on
/// it, and that request fails. The services of the platform do so after 5 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the builder of a client. Every client of the process must be built with it: `reqwest` panics when the process
/// has no crypto provider. The client does not follow redirects: another address may belong to another program, and a
/// redirected POST becomes a GET.
#[allow(clippy::disallowed_methods, reason = "this is the function to use instead")]
pub fn client() -> ClientBuilder {
    // Fails when an earlier call has installed it.
    let _ = ring::default_provider().install_default();
    Client::builder().redirect(Policy::none()).pool_idle_timeout(IDLE_TIMEOUT)
}

/// Reads a body of at most `max_bytes`.
///
/// # Errors
/// Fails when the body is longer, or does not arrive.
pub async fn read_body(mut response: Response, max_bytes: usize) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        ensure!(body.len() + chunk.len() <= max_bytes, "the answer has more than {max_bytes} bytes");
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
