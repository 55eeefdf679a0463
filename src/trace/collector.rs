//! Sends requests to the OpenTelemetry collector.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use percent_encoding::percent_decode_str;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use tokio::runtime::Handle;

use crate::https;

/// The timeout of a request, which is OpenTelemetry's default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A collector answers with a short message at most.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The headers that the exporter sets itself.
const OF_EXPORTER: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, USER_AGENT];

/// Parses a header in the form of `OTEL_EXPORTER_OTLP_HEADERS`, in which values may be percent-encoded:
/// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/#specifying-headers-via-environment-variables>.
pub(super) fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    let name = name.trim().parse().map_err(|_| "must begin with the name of a header")?;
    let value = percent_decode_str(value.trim()).collect::<Vec<_>>();
    let mut value = HeaderValue::from_bytes(&value).map_err(|_| "the value contains a control character")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// A client that sends only the headers of the settings and the exporter's own.
#[derive(Debug)]
pub(super) struct CollectorClient {
    http: reqwest::Client,
    headers: HeaderMap,
    /// The exporter sends from a thread of its own.
    runtime: Handle,
}

impl CollectorClient {
    pub(super) fn new(headers: HeaderMap) -> anyhow::Result<Self> {
        // It follows no redirect, to which it would send the headers.
        let http = https::client().timeout(TIMEOUT).build();
        Ok(Self {
            http: http.context("cannot set up an HTTP client")?,
            headers,
            runtime: Handle::try_current()?,
        })
    }
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // The exporter adds those of OTEL_EXPORTER_OTLP_HEADERS, which a flag or a file may have replaced.
        let given = std::mem::take(request.headers_mut());
        for name in OF_EXPORTER {
            request.headers_mut().extend(given.get(&name).map(|value| (name, value.clone())));
        }
        request.headers_mut().extend(self.headers.clone());
        let (http, request) = (self.http.clone(), request.try_into()?);
        self.runtime.spawn(send(http, request)).await?
    }
}

async fn send(http: reqwest::Client, request: reqwest::Request) -> Result<Response<Bytes>, HttpError> {
    let response = http.execute(request).await?.error_for_status()?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut received = Response::new(https::read_body(response, MAX_BODY_BYTES).await?.into());
    *received.status_mut() = status;
    *received.headers_mut() = headers;
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_parsed_and_its_value_is_never_shown() {
        let (name, value) = parse_header(" Authorization = Basic%20aGlkZGVu== ").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "Basic aGlkZGVu=="));
        assert!(!format!("{value:?}").contains("aGlkZGVu"));
        for wrong in ["hidden", "=hidden", "hid den=x", "x=hidden%0a"] {
            let reason = parse_header(wrong).unwrap_err();
            assert!(!reason.contains("hid"), "{wrong}: {reason}");
        }
    }
}
