//! The web pages of other origins that may use the API (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>).

use actix_cors::{Cors, CorsError};
use actix_web::ResponseError as _;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use clap::Args;
use reqwest::Url;

use super::problem::Problem;
use super::problem_type::ProblemType;

const METHODS: [&str; 3] = ["GET", "HEAD", "POST"];
/// The headers that a page may send.
const REQUEST_HEADERS: [&str; 6] =
    ["authorization", "content-type", "idempotency-key", "if-none-match", "traceparent", "tracestate"];
/// The headers that a page may read, besides those that it always may.
const RESPONSE_HEADERS: [header::HeaderName; 4] =
    [header::ETAG, header::LINK, header::LOCATION, header::RETRY_AFTER];
/// The time in seconds for which a browser may remember the answer to a preflight request.
const MAX_AGE: usize = 3_600;

const ANY: &str = "*";

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Access")]
pub struct CorsOrigins {
    /// Origins of web pages that may use the API from a browser, such as http://127.0.0.1:5173, or * for all
    /// [default: none]
    #[arg(
        long = "cors-origin",
        env = "CORS_ORIGIN",
        value_name = "ORIGIN,...",
        value_delimiter = ',',
        value_parser = parse_origin
    )]
    origins: Vec<String>,
}

fn parse_origin(text: &str) -> Result<String, String> {
    if text == ANY {
        return Ok(ANY.to_owned());
    }
    let invalid = || "must be *, or an http or https origin like https://host or http://host:port".to_owned();
    let url = Url::parse(text).map_err(|_| invalid())?;
    let origin = url.origin().ascii_serialization();
    let only_origin = url.as_str().strip_suffix('/') == Some(&origin);
    if matches!(url.scheme(), "http" | "https") && only_origin { Ok(origin) } else { Err(invalid()) }
}

impl CorsOrigins {
    /// Returns whether there are any.
    pub(super) fn exist(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Returns the middleware that answers preflight requests and marks the other responses.
    pub(super) fn middleware(&self) -> Cors {
        let cors = Cors::default()
            .allowed_methods(METHODS)
            .allowed_headers(REQUEST_HEADERS)
            .expose_headers(RESPONSE_HEADERS)
            .max_age(MAX_AGE);
        self.origins.iter().fold(cors, |cors, origin| match origin.as_str() {
            ANY => cors.allow_any_origin().send_wildcard(),
            origin => cors.allowed_origin(origin),
        })
    }
}

/// Gives refused preflight requests the body of a problem.
pub(super) async fn explain_refusal(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let response = next.call(request).await?;
    let refusal = response.response().error().and_then(|error| error.as_error::<CorsError>());
    Ok(match refusal.map(ToString::to_string) {
        Some(reason) => {
            let problem = Problem::new(&ProblemType::CROSS_ORIGIN_REFUSED, reason);
            response.into_response(problem.error_response()).map_into_right_body()
        }
        None => response.map_into_left_body(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_a_host_and_perhaps_a_port() {
        for (text, origin) in [
            ("*", "*"),
            ("https://shop.example", "https://shop.example"),
            ("https://SHOP.example:443/", "https://shop.example"),
            ("http://127.0.0.1:5173", "http://127.0.0.1:5173"),
        ] {
            assert_eq!(parse_origin(text).as_deref(), Ok(origin));
        }
        for text in [
            "",
            "shop.example",
            "https://",
            "https://shop.example/page",
            "https://user@shop.example",
            "ftp://shop.example",
            "null",
            "https://shop.example?x",
        ] {
            assert!(parse_origin(text).is_err(), "{text}");
        }
    }
}
