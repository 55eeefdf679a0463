//! Restricts routes to the pages that this server itself serves.
//!
//! A web page of another site can make a browser send requests to any address that the browser reaches, such as a
//! server on the same machine. Two checks refuse them:
//!
//! - The host name. An attacker may point a name of their own to this server (DNS rebinding), so that the browser
//!   takes their page and this server for one origin. The attack needs a name, so IP addresses, `localhost` and the
//!   names that the operator allows are accepted.
//! - The origin. Browsers name the page that sends a request in `Sec-Fetch-Site` and, unless the request only reads, in
//!   `Origin`. A request without both is not from a web page.

use std::future::{Ready, ready};
use std::net::IpAddr;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest};
use clap::Args;

use super::problem::Problem;
use super::problem_type::ProblemType;

/// The names under which a page may be used.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Access")]
pub struct AllowedHosts {
    /// Host names under which browsers may use the page, such as the name of a proxy; IP addresses and localhost are
    /// always allowed [default: none]
    #[arg(
        long = "allowed-host",
        env = "ALLOWED_HOST",
        value_name = "NAME,...",
        value_delimiter = ',',
        value_parser = parse_name
    )]
    names: Vec<String>,
}

fn parse_name(text: &str) -> Result<String, String> {
    let legal = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
    if !text.is_empty() && text.len() <= 253 && text.chars().all(legal) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("must be a host name without a port, such as console.example.com".to_owned())
    }
}

impl AllowedHosts {
    /// Returns the host and port of a request.
    ///
    /// # Errors
    /// Returns a 403 problem when the page may not be used under this host.
    fn check<'a>(&self, request: &'a HttpRequest) -> Result<&'a str, Problem> {
        let host =
            request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if self.allow(host) {
            return Ok(host);
        }
        let detail = "the name is not an IP address, localhost or one of --allowed-host (ALLOWED_HOST)";
        Err(Problem::new(&ProblemType::FOREIGN_HOST, detail))
    }

    /// Returns whether a page may be used under the host and port `authority`.
    fn allow(&self, authority: &str) -> bool {
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').unwrap_or_default(),
            None => authority.rfind(':').map_or((authority, ""), |colon| authority.split_at(colon)),
        };
        let port = port.strip_prefix(':').unwrap_or(port);
        let host = host.to_ascii_lowercase();
        port.bytes().all(|byte| byte.is_ascii_digit())
            && (host.parse::<IpAddr>().is_ok()
                || host == "localhost"
                || host.ends_with(".localhost")
                || self.names.contains(&host))
    }
}

/// Proves that a page may be used under the host of the request. Its extraction fails with 403 otherwise. Other sites may
/// link to the page.
pub struct AllowedHost;

impl FromRequest for AllowedHost {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(hosts_of(request).check(request).map(|_| Self))
    }
}

/// Proves that a request comes from no page of another site. Its extraction fails with 403 otherwise.
pub struct OwnPage;

impl FromRequest for OwnPage {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(check(request, &hosts_of(request)).map(|()| Self))
    }
}

fn hosts_of(request: &HttpRequest) -> AllowedHosts {
    request.app_data::<AllowedHosts>().cloned().unwrap_or_default()
}

fn check(request: &HttpRequest, hosts: &AllowedHosts) -> Result<(), Problem> {
    let values = |name| request.headers().get_all(name).map(|value| value.to_str().unwrap_or_default());
    let host = hosts.check(request)?;
    // Behind a proxy that ends TLS, only the scheme differs.
    let is_own =
        |origin: &str| origin.split_once("://").is_some_and(|(_, own)| own.eq_ignore_ascii_case(host));
    let mut sites = request.headers().get_all("sec-fetch-site").map(|value| value.as_bytes());
    let reads = request.method().is_safe();
    let is_own_site = |site: &[u8]| site == b"same-origin" || (reads && site == b"none");
    if values(header::ORIGIN).all(is_own) && sites.all(is_own_site) {
        Ok(())
    } else {
        Err(Problem::new(&ProblemType::FOREIGN_PAGE, ""))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn allowed(request: TestRequest) -> bool {
        let hosts = AllowedHosts { names: vec!["console.example".to_owned()] };
        check(&request.to_http_request(), &hosts).is_ok()
    }

    fn post(headers: &[(&'static str, &str)]) -> bool {
        allowed(headers.iter().fold(TestRequest::post(), |request, header| request.append_header(*header)))
    }

    #[test]
    fn a_name_that_the_operator_did_not_allow_is_refused() {
        for host in [
            "127.0.0.1:8000",
            "127.0.0.1",
            "[::1]:8000",
            "192.0.2.7:80",
            "LOCALHOST:8000",
            "a.localhost",
            "Console.example:443",
        ] {
            assert!(post(&[("host", host)]), "{host}");
        }
        for host in [
            "",
            "rebound.example:8000",
            "127.0.0.1.example",
            "localhost.example",
            "[::1",
            "::1:x",
            "x@127.0.0.1",
        ] {
            assert!(!post(&[("host", host)]), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_can_neither_change_nor_read_anything() {
        let host = ("host", "127.0.0.1:8000");
        assert!(post(&[host]));
        assert!(post(&[host, ("origin", "http://127.0.0.1:8000"), ("sec-fetch-site", "same-origin")]));
        for foreign in [
            ("origin", "http://evil.example"),
            ("origin", "http://127.0.0.1:8001"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "none"),
        ] {
            assert!(!post(&[host, foreign]), "{foreign:?}");
        }
        let read =
            |site| allowed(TestRequest::get().append_header(host).append_header(("sec-fetch-site", site)));
        assert!(read("none") && read("same-origin"));
        assert!(!read("cross-site"));
    }

    #[test]
    fn an_allowed_host_is_a_name_without_a_port() {
        assert_eq!(parse_name("Console.Example").as_deref(), Ok("console.example"));
        for wrong in ["", "a:80", "http://a", "*", "a b"] {
            assert!(parse_name(wrong).is_err(), "{wrong}");
        }
    }
}
