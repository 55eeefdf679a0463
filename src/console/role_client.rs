//! Sends requests to the roles, with bounds of size and time.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::https;
use crate::secret::SecretParser;

const TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time after which an unused connection is closed. Servers close it after 5 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// The maximum size of a response.
const MAX_BYTES: usize = 8 << 20;

/// Parses the base URL of a role.
pub fn url_parser() -> SecretParser<Url> {
    SecretParser::new(parse_url)
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL such as http://host:3002 ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("must be an http or https URL, such as http://host:3002".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain credentials".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not contain ? or #".to_owned());
    }
    Ok(url)
}

/// Creates the client of all roles, which are reached directly and never redirect.
///
/// # Errors
/// Fails when the TLS library cannot be set up.
pub fn new_client() -> anyhow::Result<Client> {
    https::client()
        .no_proxy()
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("cannot set up the HTTP client")
}

/// A role that serves HTTP.
#[derive(Clone)]
pub struct RoleClient {
    client: Client,
    base: String,
}

impl RoleClient {
    pub fn new(client: &Client, base: &Url) -> Self {
        Self { client: client.clone(), base: base.as_str().trim_end_matches('/').to_owned() }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// Returns the status and the body of the resource at `path`.
    ///
    /// # Errors
    /// Fails when the role does not answer, or answers more than 8 MiB.
    pub async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, Vec<u8>)> {
        let response = self.client.get(format!("{}{path}", self.base)).send().await;
        let response = response.map_err(without_url)?;
        let status = response.status();
        Ok((status, body_of(response).await?))
    }

    /// Returns the items of a page of a list, and the path of the next page.
    ///
    /// # Errors
    /// Fails when the role does not answer with a page.
    pub async fn page<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<(Vec<T>, Option<String>)> {
        let response = self.client.get(format!("{}{path}", self.base)).send().await;
        let response = response.map_err(without_url)?;
        if response.status() != StatusCode::OK {
            bail!("it answered {} to GET {path}", response.status());
        }
        let next = response.headers().get(reqwest::header::LINK).and_then(|link| {
            let (path, _) = link.to_str().ok()?.strip_prefix('<')?.split_once('>')?;
            Some(path.to_owned())
        });
        let items = serde_json::from_slice(&body_of(response).await?);
        Ok((items.context("the list has an unexpected form")?, next))
    }

    /// Starts a request.
    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.base))
    }
}

/// Returns the body of a response.
///
/// # Errors
/// Fails when it is incomplete or larger than 8 MiB.
pub async fn body_of(mut response: Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(without_url)? {
        if body.len() + chunk.len() > MAX_BYTES {
            bail!("the answer has more than {MAX_BYTES} bytes");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Removes the URL from an error, which is shown next to the role, and adds the causes.
pub fn without_url(error: reqwest::Error) -> anyhow::Error {
    if error.is_timeout() {
        return anyhow::anyhow!("no answer within {TIMEOUT:?}");
    }
    let error = anyhow::Error::new(error.without_url());
    let cause = error.root_cause().to_string();
    anyhow::anyhow!("{cause}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_an_http_url_without_credentials() {
        assert!(parse_url("http://127.0.0.1:3002").is_ok());
        assert!(parse_url("https://host/base/").is_ok());
        for wrong in [
            "",
            "host:3002",
            "ftp://host",
            "http://",
            "http://user:word@host",
            "http://host?a",
            "http://host#a",
        ] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }
}
