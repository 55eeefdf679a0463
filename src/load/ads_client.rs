//! Reads the list of ads.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::header::LINK;
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;

use super::service_url::ServiceUrl;
use super::stock_client::http_client;
use crate::https::read_body;

const TIMEOUT: Duration = Duration::from_secs(10);
/// A page ends at about 1 MiB. Its last ad may be larger than the rest of it.
const MAX_BODY_BYTES: usize = 8 << 20;

/// A client of `GET /ads`.
#[derive(Clone, Debug)]
pub struct AdsClient {
    http: Client,
    base: ServiceUrl,
}

/// The part of an ad that a load looks at.
#[derive(Clone, Debug, Deserialize)]
pub struct ListedAd {
    pub id: String,
    pub vin: String,
}

/// A page of the list.
#[derive(Debug)]
pub struct AdsPage {
    pub ads: Vec<ListedAd>,
    /// The cursor of the next page, percent-encoded, if the list continues.
    pub next: Option<String>,
}

impl AdsClient {
    /// Creates a client.
    ///
    /// # Errors
    /// Fails when the certificates of this machine cannot be read.
    pub fn new(base: &ServiceUrl) -> anyhow::Result<Self> {
        Ok(Self { http: http_client(TIMEOUT)?, base: base.clone() })
    }

    /// Returns the page that follows a cursor.
    ///
    /// # Errors
    /// Fails when ads does not answer with a list.
    pub async fn page(&self, after: Option<&str>) -> anyhow::Result<AdsPage> {
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let response = self.get(&format!("/ads?limit=1000{after}")).await?;
        let next = response.headers().get(LINK).and_then(|link| cursor(link.to_str().ok()?));
        let ads = parse(response).await.with_context(|| format!("cannot read the list of {}", self.base))?;
        Ok(AdsPage { ads, next })
    }

    /// Returns the number of ads with this VIN.
    ///
    /// # Errors
    /// Fails when ads does not answer with a list.
    pub async fn count(&self, vin: &str) -> anyhow::Result<usize> {
        let response = self.get(&format!("/ads?vin={vin}")).await?;
        let ads = parse(response).await.with_context(|| format!("cannot read the list of {}", self.base))?;
        Ok(ads.iter().filter(|ad| ad.vin == vin).count())
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        let answer = self.http.get(self.base.of(path)).send().await;
        let response = answer.with_context(|| format!("ads does not answer on {}", self.base))?;
        let status = response.status();
        if status != StatusCode::OK {
            bail!("ads answered {status} on {}", self.base);
        }
        Ok(response)
    }
}

async fn parse(response: Response) -> anyhow::Result<Vec<ListedAd>> {
    Ok(serde_json::from_slice(&read_body(response, MAX_BODY_BYTES).await?)?)
}

/// Returns the cursor in a header such as `</ads?limit=1000&after=...>; rel="next"`.
fn cursor(link: &str) -> Option<String> {
    let (target, relation) = link.strip_prefix('<')?.split_once('>')?;
    let (_, query) = target.split_once('?')?;
    let cursor = query.split('&').find_map(|parameter| parameter.strip_prefix("after="))?;
    relation.contains("rel=\"next\"").then(|| cursor.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_is_that_of_the_next_page() {
        let next = r#"</ads?limit=1000&after=0198-a>; rel="next""#;
        assert_eq!(cursor(next).as_deref(), Some("0198-a"));
        assert_eq!(
            cursor(r#"</ads?after=unreadable%3A7&limit=1>; rel="next""#).as_deref(),
            Some("unreadable%3A7")
        );
        for link in ["", "/ads?after=1", r#"</ads>; rel="next""#, r#"</ads?after=1>; rel="prev""#] {
            assert_eq!(cursor(link), None, "{link}");
        }
    }
}
