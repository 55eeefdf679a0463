//! Recognizes a request that a client repeats, by the key that it chose
//! (<https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header>).
//!
//! The key is stored in the row of the vehicle, so it exists exactly as long as the vehicle, and an attempt that failed
//! leaves none. Two requests are the same when their vehicles are equal: the first answer depends on nothing else in
//! the body. A hash of the bytes would not recognize a retry that a client or a proxy serialized in another way, and
//! would be one more column to write.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A key that a client chose for one request and for its repetitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The name of the header.
    pub const HEADER: &str = "idempotency-key";
    pub const MAX_CHARS: usize = 255;

    /// Parses the value of the header: a string in double quotes (RFC 8941, section 3.3.3), as the draft has it, or a
    /// token such as a bare UUID, which many clients send.
    ///
    /// # Errors
    /// Returns the reason when the value has neither form, or the key does not consist of 1 to 255 visible ASCII
    /// characters.
    pub fn parse(value: &[u8]) -> Result<Self, String> {
        let wrong_form = || "must be a string in double quotes or a token".to_owned();
        let value = str::from_utf8(value).map_err(|_| wrong_form())?.trim_matches([' ', '\t']);
        let key = match value.strip_prefix('"') {
            Some(rest) => unquote(rest).ok_or_else(wrong_form)?,
            None if value.bytes().all(is_in_token) => value.to_owned(),
            None => return Err(wrong_form()),
        };
        let length = 1..=Self::MAX_CHARS;
        if !length.contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("must have 1 to {} visible ASCII characters", Self::MAX_CHARS));
        }
        Ok(Self(key))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns the content of a string without its opening quote, or `None` when it is malformed or not the whole value.
fn unquote(rest: &str) -> Option<String> {
    let mut content = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(content),
            '\\' => content.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            character => content.push(character),
        }
    }
}

/// Returns whether a token may contain `byte` (RFC 8941, section 3.3.4). Any of these may also be the first one, as
/// the digit of a UUID.
fn is_in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

/// The keys of the requests that this instance is processing.
#[derive(Clone, Debug, Default)]
pub(super) struct KeysUnderWay(Arc<Mutex<HashSet<IdempotencyKey>>>);

/// A request that is being processed, until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    keys: KeysUnderWay,
    key: IdempotencyKey,
}

impl KeysUnderWay {
    /// Registers a request. Returns `None` while another one with the same key is being processed.
    pub fn begin(&self, key: &IdempotencyKey) -> Option<UnderWay> {
        self.lock().insert(key.clone()).then(|| UnderWay { keys: self.clone(), key: key.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<IdempotencyKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(value: &str) -> Option<String> {
        IdempotencyKey::parse(value.as_bytes()).ok().map(|key| key.as_str().to_owned())
    }

    #[test]
    fn a_string_and_a_token_are_the_same_key() {
        let uuid = "8e03978e-40d5-43dd-bc93-6894a57f9324";
        for value in [uuid.to_owned(), format!("\"{uuid}\""), format!(" \t\"{uuid}\" ")] {
            assert_eq!(parse(&value).as_deref(), Some(uuid), "{value}");
        }
        assert_eq!(parse(r#""a\"b\\c""#).as_deref(), Some(r#"a"b\c"#));
        assert_eq!(parse("order:7/a*").as_deref(), Some("order:7/a*"));
        assert_eq!(parse(r#""a,b;c=(d)""#).as_deref(), Some("a,b;c=(d)"));
    }

    #[test]
    fn any_other_value_is_refused() {
        for value in [
            "",
            " ",
            "\"",
            "\"\"",
            "\" \"",
            "\"a b\"",
            "\"a",
            "a\"",
            "\"a\"b",
            "\"a\";p=1",
            "\"a\" \"b\"",
            "a, b",
            "a b",
            "\"a\", \"b\"",
            r#""a\b""#,
            r#""a\"#,
            "a=b",
            "(a)",
            ":YWJj:,",
            "\"ä\"",
            "ä",
            "\"a\tb\"",
            "\"a\u{7f}\"",
        ] {
            assert_eq!(parse(value), None, "{value}");
        }
        assert!(IdempotencyKey::parse(b"\"\xff\"").is_err());
        for (length, valid) in [(255, true), (256, false)] {
            let key = "k".repeat(length);
            assert_eq!(parse(&key).is_some(), valid);
            assert_eq!(parse(&format!("\"{key}\"")).is_some(), valid);
        }
        assert_eq!(
            parse(&format!("\"{}\"", "\\\\".repeat(255))),
            Some("\\".repeat(255)),
            "escapes do not count"
        );
    }

    proptest! {
        #[test]
        fn a_key_that_is_quoted_is_read_back(key in "[!-~]{1,255}") {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(parse(&quoted), Some(key));
        }

        #[test]
        fn whatever_is_accepted_is_visible_ascii(value in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(key) = IdempotencyKey::parse(&value) {
                prop_assert!((1..=255).contains(&key.as_str().len()));
                prop_assert!(key.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }

    #[test]
    fn a_key_is_under_way_until_its_request_is_dropped() {
        let (keys, key) = (KeysUnderWay::default(), IdempotencyKey::parse(b"key").unwrap());
        let other = IdempotencyKey::parse(b"other").unwrap();
        let first = keys.begin(&key).unwrap();
        assert!(keys.begin(&key).is_none());
        assert!(keys.begin(&other).is_some());
        drop(first);
        assert!(keys.begin(&key).is_some());
        assert!(keys.lock().is_empty());
    }
}
