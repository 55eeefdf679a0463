//! Logs requests that the broker does not serve, once per client, API and version.
//!
//! Such a request closes the connection, as in Apache Kafka, and its client learns no reason. Most clients connect
//! again at once, so the log would fill if each request were logged.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, Bytes};
use kafka_protocol::messages::ApiKey;

use crate::client::{Client, shortened};

/// When so many different requests were logged, all are forgotten and may be logged again.
const MAX_LOGGED: usize = 1000;

#[derive(Debug, Default)]
pub struct Unserved {
    /// Hashes of client, API and version.
    logged: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

/// Describes a request that is not served.
#[derive(Debug)]
pub struct Request {
    pub key: i16,
    pub version: i16,
    /// The request from its client id on.
    pub rest: Bytes,
}

impl Unserved {
    /// Logs the request, unless it was logged before. `served` is the range of versions that would be served.
    pub fn log(&self, client: &Client, request: &Request, served: Option<&RangeInclusive<i16>>) {
        let software = client.software();
        let client_id = client_id(request.rest.clone()).unwrap_or_default();
        if !self.is_first(self.hasher.hash_one((software, &client_id, request.key, request.version))) {
            return;
        }
        let api = match ApiKey::try_from(request.key) {
            Ok(key) => format!("{key:?}"),
            Err(()) => request.key.to_string(),
        };
        let served = match served {
            Some(versions) => format!("versions {} to {}", versions.start(), versions.end()),
            None => "none".to_owned(),
        };
        // Debug output escapes control characters.
        tracing::warn!(
            client = %client.address,
            ?client_id,
            software = ?software.name,
            software_version = ?software.version,
            api,
            version = request.version,
            served,
            "a client sent a request that this broker does not serve, closing its connections"
        );
    }

    fn is_first(&self, hash: u64) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= MAX_LOGGED && !logged.contains(&hash) {
            logged.clear();
        }
        logged.insert(hash)
    }
}

/// Reads the client id, which all versions of the request header but 0 have at the same place.
fn client_id(mut rest: Bytes) -> Option<String> {
    let length = usize::try_from(rest.try_get_i16().ok()?).ok()?;
    Some(shortened(&String::from_utf8_lossy(rest.get(..length)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_logged_is_bounded_and_still_logged_once() {
        let unserved = Unserved::default();
        for request in 0..10 * MAX_LOGGED as u64 {
            assert!(unserved.is_first(request));
            assert!(!unserved.is_first(request));
            assert!(unserved.logged.lock().unwrap().len() <= MAX_LOGGED);
        }
    }

    #[test]
    fn a_client_id_that_is_not_there_is_empty() {
        for bytes in [&b""[..], &[0], &[255, 255], &[0, 5, b'a']] {
            assert_eq!(client_id(Bytes::copy_from_slice(bytes)), None);
        }
        assert_eq!(client_id(Bytes::from_static(&[0, 1, b'a', 0])), Some("a".to_owned()));
    }
}
