//! The settings of the connection to the schema registry.

use std::fmt;
use std::net::SocketAddr;

use anyhow::ensure;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::secret::SecretParser;

#[derive(Args, Clone)]
#[command(next_help_heading = "Schema registry")]
pub struct RegistryArgs {
    /// Addresses of the schema registry, tried in order; each may contain a user, a password and a base path
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
    /// Returns the arguments for a single registry at `address`.
    ///
    /// # Errors
    /// Never fails for the address of a socket.
    pub fn at(address: SocketAddr) -> anyhow::Result<Self> {
        let url = parse_url(&format!("http://{address}")).map_err(anyhow::Error::msg)?;
        Ok(Self { urls: vec![url] })
    }

    /// Checks that the addresses can be used together.
    ///
    /// # Errors
    /// Fails when the addresses contain different credentials.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let credentials = |url: &Url| (url.username().to_owned(), url.password().map(str::to_owned));
        let mut all = self.urls.iter().map(credentials);
        let first = all.next();
        ensure!(
            all.all(|other| Some(other) == first),
            "--schema-registry-url (SCHEMA_REGISTRY_URL): all addresses must have the same user and password"
        );
        Ok(())
    }
}

/// The settings of a role that writes events.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Schema registry")]
pub struct WriterArgs {
    /// Register the schemas of events before the first one is written. With false, events are written with the latest
    /// registered schema of their topic, which other programs may have registered, and what it refuses is not written
    #[arg(
        long,
        env = "AUTO_REGISTER_SCHEMAS",
        value_name = "BOOL",
        default_value_t = true,
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new()
    )]
    pub auto_register_schemas: bool,
}

impl fmt::Debug for RegistryArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.urls.iter().map(without_credentials)).finish()
    }
}

/// Decodes a percent-encoded part of a URL (RFC 3986).
pub(super) fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

pub(super) fn without_credentials(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().trim_end_matches('/').to_owned()
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL such as http://host:8081 ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("must be an http or https URL, such as http://host:8081".to_owned());
    }
    // An unencoded character in the password would end it, and the rest would be shown as a part of the address.
    if url.path().contains('@') || url.query().is_some() || url.fragment().is_some() {
        return Err(
            "contains @, ? or # after the host; percent-encode / ? # and @ in the user name and the \
                    password: / is %2F"
                .to_owned(),
        );
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_base_path_is_preserved_and_credentials_are_not_shown() {
        let args =
            RegistryArgs { urls: vec![parse_url("http://user:word@host:8081/apis/ccompat/v7/").unwrap()] };
        let shown = without_credentials(&args.urls[0]);
        assert_eq!(shown, "http://host:8081/apis/ccompat/v7");
        assert!(args.check().is_ok());
        assert!(!format!("{args:?} {shown}").contains("word"));
        assert_eq!(decoded("a%2Fb%40"), "a/b@");
    }

    #[test]
    fn addresses_with_different_credentials_are_refused() {
        let urls =
            ["http://user:word@one:8081", "http://two:8081"].map(|url| parse_url(url).unwrap()).to_vec();
        assert!(RegistryArgs { urls }.check().is_err());
    }

    #[test]
    fn text_that_is_not_a_web_address_is_refused() {
        for text in ["", "host:8081", "ftp://host", "http://"] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn neither_an_error_nor_an_address_shows_a_part_of_a_password(
            before in "[a-z%:/?#@,=&.0-9]{0,12}",
            after in "[a-z%:/?#@,=&.0-9]{0,12}",
        ) {
            let text = format!("http://user:{before}zq9marker7x{after}@host:8081/base");
            let shown = match parse_url(&text) {
                Ok(url) => without_credentials(&url),
                Err(reason) => reason,
            };
            prop_assert!(!shown.contains("zq9marker7x"), "{text}: {shown}");
        }
    }
}
