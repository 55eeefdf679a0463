//! Parses MongoDB URLs (<https://www.mongodb.com/docs/manual/reference/connection-string/>).

use std::collections::BTreeSet;

use anyhow::anyhow;
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{ClientOptions, ConnectionString};
use percent_encoding::percent_decode_str;

use crate::database::DatabaseUrl;

const MALFORMED: &str = "the URL does not have the form \
    mongodb://<user>:<password>@<host>:<port>/<database>?<option>=<value>, or the user name or the password contains \
    a character that must be percent-encoded: / ? # [ ] @ : or %; for example, / is %2F";

/// The words of a URL that an error may contain: those of the scheme and the options.
const KNOWN: &[&str] = &[
    "mongodb",
    "srv",
    "appname",
    "authmechanism",
    "authmechanismproperties",
    "authsource",
    "compressors",
    "connecttimeoutms",
    "directconnection",
    "heartbeatfrequencyms",
    "journal",
    "loadbalanced",
    "localthresholdms",
    "maxconnecting",
    "maxidletimems",
    "maxpoolsize",
    "maxstalenessseconds",
    "minpoolsize",
    "readconcernlevel",
    "readpreference",
    "readpreferencetags",
    "replicaset",
    "retryreads",
    "retrywrites",
    "servermonitoringmode",
    "serverselectiontimeoutms",
    "sockettimeoutms",
    "srvmaxhosts",
    "srvservicename",
    "ssl",
    "tls",
    "tlsallowinvalidcertificates",
    "tlscafile",
    "tlscertificatekeyfile",
    "tlsinsecure",
    "uuidrepresentation",
    "w",
    "waitqueuetimeoutms",
    "wtimeoutms",
];

/// Parses `url` without connecting.
///
/// # Errors
/// Fails when `url` is malformed. The reason contains no part of the URL, because an unencoded character in the
/// password may have moved the password to any other part.
pub fn parse_url(url: &DatabaseUrl) -> Result<ConnectionString, String> {
    let text = url.as_str();
    let (hosts, options) = text.split_once('?').unwrap_or((text, ""));
    // The driver would take the first for options, and panics on some of the second.
    if options.contains('@') || !is_encoded(text) {
        return Err(MALFORMED.to_owned());
    }
    let hosts = hosts.rsplit_once('@').map_or(hosts, |(_, hosts)| hosts);
    let database =
        hosts.rsplit_once('/').map(|(_, database)| percent_decode_str(database).decode_utf8_lossy());
    if database.is_some_and(|name| name.contains(['/', '\\', ' ', '"', '$'])) {
        return Err("the name of the database contains a character that MongoDB does not accept".to_owned());
    }
    ConnectionString::parse(text).map_err(|error| reason(url, &error))
}

/// Returns whether two hexadecimal digits follow each percent sign.
fn is_encoded(text: &str) -> bool {
    let mut parts = text.as_bytes().split(|byte| *byte == b'%').skip(1);
    parts.all(|part| part.get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

/// Returns the options of a client for `url`. Resolves the hosts of a `mongodb+srv` URL.
///
/// # Errors
/// Fails when `url` is malformed or its hosts cannot be resolved.
pub(super) async fn client_options(url: &DatabaseUrl) -> anyhow::Result<ClientOptions> {
    let parsed = parse_url(url).map_err(anyhow::Error::msg)?;
    ClientOptions::parse(parsed).await.map_err(|error| anyhow!(reason(url, &error)))
}

/// Describes an error of the driver without a part of `url`.
pub(super) fn reason(url: &DatabaseUrl, error: &Error) -> String {
    let described = match error.kind.as_ref() {
        ErrorKind::DnsResolve { .. } => {
            return "the hosts of the mongodb+srv URL cannot be resolved".to_owned();
        }
        ErrorKind::InvalidArgument { message, .. } => message.clone(),
        kind => kind.to_string(),
    };
    let mut of_url = words(url.as_str());
    of_url.extend(words(&percent_decode_str(url.as_str()).decode_utf8_lossy()));
    let repeats = words(&described).iter().any(|word| of_url.contains(word) && !KNOWN.contains(&&**word));
    if repeats { MALFORMED.to_owned() } else { described }
}

fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !character.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(url: &str) -> String {
        parse_url(&url.parse().unwrap()).err().unwrap_or_else(|| panic!("{url} was parsed"))
    }

    #[test]
    fn an_unusable_url_is_refused_with_the_reason() {
        for (url, reason) in [
            ("mongodb://u:p@h/d?tls=maybe", "tls"),
            ("mongodb://u:p@h/d?connectTimeoutMS=soon", "non-negative integer"),
            ("mongodb://u:p@h/d?tls=true&tls=true", "repeated options"),
            ("mongodb://u:p@h/a%24b", "name of the database"),
            ("mongodb+srv://u:p@h:1/d", "port cannot be specified"),
            ("mongodb:h", "no scheme"),
            ("mongodb://u:p/w@h/d", "URL encoded"),
        ] {
            assert!(refusal(url).contains(reason), "{url}: {}", refusal(url));
        }
    }

    #[test]
    fn the_reason_contains_no_part_of_a_password_that_is_not_encoded() {
        for url in [
            "mongodb://u:hunter2@h:port/d",
            "mongodb://u:hunter2/x@h/d",
            "mongodb://u:12?hunter2@h/d",
            "mongodb://u:12?hunter2=1@h/d",
            "mongodb://u:p@h?hunter2=1",
            "mongodb://u:12?hunter2=1",
            "mongodb://u:hunter2",
            "mongodb://u:p@[::1]hunter2/d",
            "mongodb://u:%a\u{e9}hunter2@h/d",
            "mongodb://u:hunter2%@h/d",
            "mongodb://u:p@h/d?readPreference=hunter%32",
            "mongodb://u:p@h/d?authMechanism=hunter2",
        ] {
            let reason = refusal(url);
            assert!(!reason.contains("hunter") && !reason.is_empty(), "{url}: {reason}");
        }
    }

    proptest! {
        #[test]
        fn no_malformed_url_is_repeated(
            scheme in "mongodb(\\+srv)?",
            before in "[a-z%:/?#@,=&. $\u{e9}0-9]{0,12}",
            after in "[a-z%:/?#@,=&. $\u{e9}0-9]{0,12}",
            rest in "(@h(:1)?(/d)?(\\?tls=true)?)?",
        ) {
            let url = format!("{scheme}://{before}zq9Marker7x{after}{rest}");
            if let Err(reason) = parse_url(&url.parse().unwrap()) {
                prop_assert!(!reason.to_lowercase().contains("zq9marker7x"), "{url}: {reason}");
            }
        }
    }
}
