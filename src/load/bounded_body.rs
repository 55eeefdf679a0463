//! Reads the body of a response into bounded memory.

use anyhow::ensure;
use reqwest::Response;

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
