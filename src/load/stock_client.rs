//! Posts vehicles to stock.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use serde::Deserialize;

use super::service_url::ServiceUrl;
use crate::https::{self, read_body};
use crate::vehicle::PlainVehicle;

/// The time for one attempt. Stock itself answers within 10 s.
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_BODY_BYTES: usize = 64 * 1024;
const MAX_TYPE_BYTES: usize = 40;

/// Returns an HTTP client for the services. It follows no redirect, to which it would send the key.
///
/// # Errors
/// Fails when the certificates of this machine cannot be read.
pub fn http_client(timeout: Duration) -> anyhow::Result<Client> {
    https::client().timeout(timeout).build().context("cannot set up an HTTP client")
}

/// A client of `POST /stock`.
#[derive(Clone, Debug)]
pub struct StockClient {
    http: Client,
    base: ServiceUrl,
    url: String,
    headers: HeaderMap,
}

/// The result of one attempt to post a vehicle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Stock answered 201.
    Accepted,
    /// Stock refuses the vehicle. A retry would get the same answer.
    Refused(String),
    /// There was no answer, or one that asks for a retry. The vehicle may have been accepted.
    Unknown { kind: String, retry_after: Option<Duration> },
}

impl StockClient {
    /// Creates a client that sends `key`, the value of the header Authorization.
    ///
    /// # Errors
    /// Fails when the certificates of this machine cannot be read.
    pub fn new(base: &ServiceUrl, key: Option<HeaderValue>) -> anyhow::Result<Self> {
        let headers = key.map(|key| (AUTHORIZATION, key)).into_iter().collect();
        Ok(Self { http: http_client(TIMEOUT)?, base: base.clone(), url: base.of("/stock"), headers })
    }

    /// Checks that stock answers.
    ///
    /// # Errors
    /// Fails when it does not.
    pub async fn check(&self) -> anyhow::Result<()> {
        let answer = self.http.get(self.base.of("/healthz")).send().await;
        answer.with_context(|| format!("stock does not answer on {}", self.base))?;
        Ok(())
    }

    /// Sends a vehicle once. The idempotency key makes it safe to send it again after [`Attempt::Unknown`]: stock then
    /// returns the answer that was lost.
    pub async fn post(&self, vehicle: &PlainVehicle, idempotency_key: &str) -> Attempt {
        let request = self
            .http
            .post(&self.url)
            .headers(self.headers.clone())
            .header("Idempotency-Key", format!("\"{idempotency_key}\""))
            .json(vehicle);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Attempt::Unknown { kind: describe(&error).to_owned(), retry_after: None },
        };
        let status = answer.status();
        if status == StatusCode::CREATED {
            // Reads the body, so that the connection can be used again. The promise is in the status.
            let _ = read_body(answer, MAX_BODY_BYTES).await;
            return Attempt::Accepted;
        }
        let retry_after = answer.headers().get(RETRY_AFTER).map(seconds);
        let kind = kind(status, &read_body(answer, MAX_BODY_BYTES).await.unwrap_or_default());
        if is_retryable(status, retry_after.is_some()) {
            Attempt::Unknown { kind, retry_after: retry_after.flatten() }
        } else {
            Attempt::Refused(kind)
        }
    }
}

/// Returns the time in a header Retry-After. Ignores a date, which depends on the clocks of both sides.
fn seconds(header: &HeaderValue) -> Option<Duration> {
    Some(Duration::from_secs(header.to_str().ok()?.trim().parse::<u32>().ok()?.into()))
}

/// Returns whether a request may succeed when it is sent again. A 409 may only with Retry-After: a request with the same
/// key is then still under way.
fn is_retryable(status: StatusCode, has_retry_after: bool) -> bool {
    match status {
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => true,
        StatusCode::CONFLICT => has_retry_after,
        _ => false,
    }
}

/// Returns the status and the type of the problem, such as `503 overloaded`.
fn kind(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        #[serde(rename = "type")]
        kind: String,
    }
    let problem = serde_json::from_slice::<Problem>(body).ok();
    let name = problem.as_ref().and_then(|problem| problem.kind.rsplit('/').next());
    let is_plain = |name: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=MAX_TYPE_BYTES).contains(&name.len()) && name.bytes().all(plain)
    };
    match name.filter(is_plain) {
        Some(name) => format!("{} {name}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

fn describe(error: &reqwest::Error) -> &'static str {
    if error.is_connect() {
        "no connection"
    } else if error.is_timeout() {
        "no answer in time"
    } else {
        "connection lost"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_named_by_its_status_and_its_type() {
        for (body, expected) in [
            (r#"{"type":"/problems/overloaded","status":503}"#, "503 overloaded"),
            (r#"{"type":"https://host/problems/overloaded"}"#, "503 overloaded"),
            (r#"{"type":"about:blank"}"#, "503"),
            (r#"{"type":"/problems/"}"#, "503"),
            (r#"{"type":7}"#, "503"),
            ("<html>", "503"),
        ] {
            assert_eq!(kind(StatusCode::SERVICE_UNAVAILABLE, body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn only_an_answer_that_asks_for_it_is_retried() {
        for (status, has_retry_after, retried) in [
            (503, true, true),
            (503, false, true),
            (409, true, true),
            (409, false, false),
            (400, false, false),
            (401, false, false),
            (422, true, false),
            (500, false, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_retryable(status, has_retry_after), retried, "{status}");
        }
    }

    #[test]
    fn a_time_to_retry_after_is_a_number_of_seconds() {
        let parse = |text: &'static str| seconds(&HeaderValue::from_static(text));
        assert_eq!(parse("2"), Some(Duration::from_secs(2)));
        for text in ["", "soon", "-1", "1.5", "99999999999", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
