//! The keys that clients must present to change something.

use std::fmt::{self, Debug, Formatter};
use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest};
use clap::Args;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::problem::Problem;
use crate::secret::SecretParser;

/// The shortest and the longest key in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Access")]
pub struct ApiKeys {
    /// Keys for requests that change something; a client sends one of them as "Authorization: Bearer KEY"
    /// [default: none, such requests need no key]
    #[arg(
        long = "api-key",
        env = "API_KEY",
        value_name = "KEY,...",
        value_delimiter = ',',
        hide_env_values = true,
        value_parser = SecretParser::new(ApiKey::parse)
    )]
    keys: Vec<ApiKey>,
}

/// The hash of a key, so that comparing two takes the same time for all keys, whatever their lengths.
#[derive(Clone, PartialEq, Eq)]
struct ApiKey([u8; 32]);

/// Checks the form of a key: a token of RFC 6750, section 2.1, which fits into the header as it is.
pub(super) fn check(text: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if !LENGTHS.contains(&text.len()) || !text.bytes().all(legal) {
        return Err(format!(
            "must have {} to {} letters, digits or characters of -._~+/=",
            LENGTHS.start(),
            LENGTHS.end()
        ));
    }
    Ok(())
}

impl ApiKey {
    fn parse(text: &str) -> Result<Self, String> {
        check(text).map(|()| Self::of(text.as_bytes()))
    }

    fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

impl Debug for ApiKey {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey")
    }
}

impl ApiKeys {
    /// Returns whether clients need a key.
    pub fn are_required(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Returns whether the value of the header Authorization permits a request.
    fn permit(&self, authorization: Option<&[u8]>) -> bool {
        if !self.are_required() {
            return true;
        }
        let Some((scheme, key)) = authorization.and_then(|value| value.split_at_checked("Bearer ".len()))
        else {
            return false;
        };
        let presented = ApiKey::of(key.trim_ascii());
        let known = self
            .keys
            .iter()
            .fold(Choice::from(0), |known, key| known | key.0.as_slice().ct_eq(presented.0.as_slice()));
        scheme.eq_ignore_ascii_case(b"Bearer ") && known.into()
    }
}

/// Proves that a request has a valid key, if it needs one. The body is not read before.
pub struct Authorized;

impl FromRequest for Authorized {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut values = request.headers().get_all(AUTHORIZATION).map(|value| value.as_bytes());
        let value = values.next().filter(|_| values.next().is_none());
        let permitted = request.app_data::<ApiKeys>().is_some_and(|keys| keys.permit(value));
        ready(if permitted { Ok(Self) } else { Err(Problem::unauthorized()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_keys_permits_a_request_and_nothing_else_does() {
        let keys = ["first-key-0123456", "second/key+01234=="].map(|key| ApiKey::parse(key).unwrap());
        let keys = ApiKeys { keys: keys.to_vec() };
        for value in ["Bearer first-key-0123456", "bearer  second/key+01234== ", "BEARER first-key-0123456"] {
            assert!(keys.permit(Some(value.as_bytes())), "{value}");
        }
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Basic first-key-0123456",
            "first-key-0123456",
            "Bearer first-key-012345",
        ] {
            assert!(!keys.permit(Some(value.as_bytes())), "{value}");
        }
        assert!(!keys.permit(None));
        assert!(ApiKeys::default().permit(None));
    }

    #[test]
    fn a_key_is_a_token_and_does_not_appear_in_an_error() {
        for key in ["", "short", "with space 0123456789", "ümlaut-0123456789", &"k".repeat(257)] {
            let error = ApiKey::parse(key).unwrap_err();
            assert!(key.is_empty() || !error.contains(key), "{error}");
        }
        assert_eq!(format!("{:?}", ApiKey::parse("first-key-0123456").unwrap()), "ApiKey");
    }
}
