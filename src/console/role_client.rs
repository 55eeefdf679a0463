//! Sends requests to the roles, with bounds of size and time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::https;
use crate::secret::SecretParser;

const TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The maximum number of instances that share a name.
const MAX_INSTANCES: usize = 16;
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

    /// Returns the instances of a role: one for each address of its name, which may be that of several.
    pub async fn instances(&self) -> Vec<Self> {
        let Ok(url) = Url::parse(&self.base) else { return vec![self.clone()] };
        let (Some(name), Some(port)) = (url.domain(), url.port_or_known_default()) else {
            return vec![self.clone()];
        };
        let found = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((name, port))).await;
        // A request to the name itself shows why it has no address.
        let addresses =
            found.map_or_else(|_| Vec::new(), |found| found.map_or_else(|_| Vec::new(), Iterator::collect));
        instances_at(&url, addresses).iter().map(|url| Self::new(&self.client, url)).collect()
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

/// Returns the URLs of the instances at `addresses`, or `url` itself if there is only one instance. An instance may have
/// an address of each family. A certificate is for the name, so a TLS server counts as one instance.
fn instances_at(url: &Url, mut addresses: Vec<SocketAddr>) -> Vec<Url> {
    if addresses.iter().any(SocketAddr::is_ipv4) {
        addresses.retain(SocketAddr::is_ipv4);
    }
    addresses.sort();
    addresses.dedup();
    if url.scheme() != "http" || addresses.len() < 2 {
        return vec![url.clone()];
    }
    let at = |address: &SocketAddr| {
        let mut url = url.clone();
        url.set_ip_host(address.ip()).ok().map(|()| url)
    };
    addresses.iter().filter_map(at).take(MAX_INSTANCES).collect()
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
    fn each_address_of_a_name_is_an_instance() {
        let instances = |url: &str, addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let urls = instances_at(&Url::parse(url).unwrap(), addresses);
            urls.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let (first, second) = ("10.0.0.2:3001", "10.0.0.10:3001");
        let both = ["http://10.0.0.2:3001/base", "http://10.0.0.10:3001/base"];
        assert_eq!(instances("http://estimate:3001/base", &[second, first, second, "[fd00::1]:3001"]), both);
        assert_eq!(
            instances("http://estimate:3001", &["[fd00::2]:3001", "[fd00::1]:3001"]),
            ["http://[fd00::1]:3001/", "http://[fd00::2]:3001/"]
        );
        for (url, addresses) in [
            ("http://estimate:3001/", &[][..]),
            ("http://estimate:3001/", &[first]),
            ("http://localhost:3001/", &["[::1]:3001", "127.0.0.1:3001"]),
            ("https://estimate/", &[first, second]),
        ] {
            assert_eq!(instances(url, addresses), [url], "{addresses:?}");
        }
    }

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
