//! Creates HTTP clients.

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use rustls::crypto::ring;

/// Returns the builder of a client. Every client of the process must be built with it: `reqwest` panics when the process
/// has no crypto provider. The client does not follow redirects: another address may belong to another program, and a
/// redirected POST becomes a GET.
#[allow(clippy::disallowed_methods, reason = "this is the function to use instead")]
pub fn client() -> ClientBuilder {
    // Fails when an earlier call has installed it.
    let _ = ring::default_provider().install_default();
    Client::builder().redirect(Policy::none())
}
