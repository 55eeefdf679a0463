//! The address of a service.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

/// The base URL of a service, to which the paths of its API are appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl(String);

impl ServiceUrl {
    /// Returns the URL of `path`, which begins with a slash.
    pub fn of(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ServiceUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|error| format!("not a URL such as http://host:3002: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err("must be an http or https URL, such as http://host:3002".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not contain a user or a password; use --api-key-file".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must not contain ? or #".to_owned());
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_appended_to_the_address_and_its_base_path() {
        for (text, url) in [
            ("http://127.0.0.1:3002", "http://127.0.0.1:3002/stock"),
            ("http://127.0.0.1:3002/", "http://127.0.0.1:3002/stock"),
            ("https://example.com/shop/", "https://example.com/shop/stock"),
        ] {
            assert_eq!(text.parse::<ServiceUrl>().unwrap().of("/stock"), url);
        }
    }

    #[test]
    fn an_address_that_is_not_a_base_url_is_refused() {
        for text in [
            "",
            "127.0.0.1:3002",
            "ftp://host",
            "http://",
            "http://u@h",
            "http://u:p@h",
            "http://h?a",
            "http://h#a",
        ] {
            assert!(text.parse::<ServiceUrl>().is_err(), "{text}");
        }
    }
}
