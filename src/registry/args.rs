//! Where the schema registry is.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use schema_registry_converter::async_impl::schema_registry::SrSettings;
use schema_registry_converter::error::SRCError;

use crate::secret::SecretParser;

/// Long enough for a registry's follower to forward to its leader, short enough to try the next address soon.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Args, Clone)]
#[command(next_help_heading = "Schema registry")]
pub struct RegistryArgs {
    /// Addresses of the schema registry, tried in order; user and password, and a base path, may be part of them
    #[arg(
        id = "schema_registry_url",
        long = "schema-registry-url",
        env = "SCHEMA_REGISTRY_URL",
        value_name = "URL,...",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8081",
        hide_env_values = true,
        value_parser = SecretParser::new(parse_url)
    )]
    pub urls: Vec<Url>,
}

impl RegistryArgs {
    /// The one registry at `address`.
    ///
    /// # Errors
    /// Never for an address that a socket has.
    pub fn at(address: SocketAddr) -> anyhow::Result<Self> {
        let url = parse_url(&format!("http://{address}")).map_err(anyhow::Error::msg)?;
        Ok(Self { urls: vec![url] })
    }

    /// The first address, which names the schemas in what is cached; without credentials.
    pub(super) fn base_url(&self) -> String {
        self.urls.first().map(without_credentials).unwrap_or_default()
    }

    pub(super) fn settings(&self) -> Result<SrSettings, SRCError> {
        let mut urls = self.urls.iter();
        let credentials = |url: &Url| (url.username().to_owned(), url.password().map(str::to_owned));
        if self
            .urls
            .windows(2)
            .any(|pair| matches!(pair, [one, other] if credentials(one) != credentials(other)))
        {
            return Err(SRCError::new(
                "--schema-registry-url: all addresses must carry the same user and password",
                None,
                false,
            ));
        }
        let first = urls.next();
        let mut builder = SrSettings::new_builder(first.map(without_credentials).unwrap_or_default());
        for url in urls {
            builder.add_url(without_credentials(url));
        }
        if let Some(first) = first.filter(|url| !url.username().is_empty()) {
            let password = first.password().map(decoded);
            builder.set_basic_authorization(&decoded(first.username()), password.as_deref());
        }
        builder.set_timeout(TIMEOUT);
        builder.build()
    }
}

impl fmt::Debug for RegistryArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.urls.iter().map(without_credentials)).finish()
    }
}

/// A part of a URL that is percent-encoded, as RFC 3986 has it.
fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn without_credentials(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot have credentials, and so have none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().trim_end_matches('/').to_owned()
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim())
        .map_err(|error| format!("is not an address ({error}); write it like http://host:8081"))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err("must be an http or https address, like http://host:8081".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_is_kept_and_credentials_are_not_shown() {
        let args =
            RegistryArgs { urls: vec![parse_url("http://user:word@host:8081/apis/ccompat/v7/").unwrap()] };
        assert_eq!(args.base_url(), "http://host:8081/apis/ccompat/v7");
        assert!(args.settings().is_ok());
        assert!(!format!("{args:?} {:?}", args.base_url()).contains("word"));
        assert_eq!(decoded("a%2Fb%40"), "a/b@");
    }

    #[test]
    fn addresses_with_different_credentials_are_refused() {
        let urls =
            ["http://user:word@one:8081", "http://two:8081"].map(|url| parse_url(url).unwrap()).to_vec();
        assert!(RegistryArgs { urls }.settings().is_err());
    }

    #[test]
    fn what_is_not_a_web_address_is_refused() {
        for text in ["", "host:8081", "ftp://host", "http://"] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }
}
