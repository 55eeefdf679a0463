//! Parses PostgreSQL URLs (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS>).

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, anyhow, bail, ensure};
use percent_encoding::percent_decode_str;

const FORM: &str = "postgres://<user>:<password>@<host>:<port>/<database>?<option>=<value>";
const ENCODE: &str = "if the user name or the password contains / ? # or @, percent-encode it: / is %2F";

/// The parameters of a URL by libpq's names, percent-decoded. Errors never show a value, which may be a password.
pub(super) struct ConnectionString {
    parameters: BTreeMap<String, Vec<u8>>,
    /// Whether an unencoded character may have moved the password to another parameter.
    suspicious: bool,
}

impl ConnectionString {
    /// Parses `url`.
    ///
    /// # Errors
    /// Fails when `url` does not have the form of a PostgreSQL URL.
    pub fn parse(url: &str) -> anyhow::Result<Self> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .with_context(|| format!("a PostgreSQL URL has the form {FORM}"))?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, database) =
            rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
        let (credentials, hosts) = authority
            .rsplit_once('@')
            .map_or((None, authority), |(credentials, hosts)| (Some(credentials), hosts));
        ensure!(
            !database.is_some_and(|database| database.contains('@')),
            "the host is followed by @; {ENCODE}, also in the name of the database"
        );
        let suspicious = query.is_some_and(|query| query.contains('@'));
        let mut parsed = Self { parameters: BTreeMap::new(), suspicious };
        if let Some(credentials) = credentials {
            let (user, password) = credentials
                .split_once(':')
                .map_or((credentials, None), |(user, password)| (user, Some(password)));
            parsed.set("user", user)?;
            parsed.set("password", password.unwrap_or_default())?;
        }
        parsed.set_hosts(hosts).map_err(|error| parsed.explain(error))?;
        parsed.set("dbname", database.unwrap_or_default())?;
        for option in query.unwrap_or_default().split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option
                .split_once('=')
                .ok_or_else(|| parsed.explain(anyhow!("an option after ? has no value: {FORM}")))?;
            parsed.set(name, value)?;
        }
        Ok(parsed)
    }

    fn set_hosts(&mut self, text: &str) -> anyhow::Result<()> {
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        for host in text.split(',') {
            let (name, port) = match host.strip_prefix('[') {
                Some(address) => {
                    let (address, port) =
                        address.split_once(']').context("an IPv6 address lacks its closing bracket")?;
                    ensure!(port.is_empty() || port.starts_with(':'), "an IPv6 address ends with ]:<port>");
                    (address, port.strip_prefix(':'))
                }
                None => match host.split_once(':') {
                    Some((_, port)) if port.contains(':') => {
                        bail!("an IPv6 address must be in brackets, such as [::1]:5432")
                    }
                    Some((name, port)) => (name, Some(port)),
                    None => (host, None),
                },
            };
            hosts.push(name);
            ports.push(port.unwrap_or_default());
        }
        if !text.is_empty() {
            self.set("host", &hosts.join(","))?;
            self.set("port", &ports.join(","))?;
        }
        Ok(())
    }

    /// Sets a parameter. As in libpq, an empty one counts as unset.
    fn set(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        let name = percent_decode_str(name).decode_utf8().context("the name of an option is not UTF-8")?;
        let value: Vec<u8> = percent_decode_str(value).collect();
        ensure!(!value.contains(&0), "the URL contains %00, which PostgreSQL does not accept");
        if value.is_empty() {
            self.parameters.remove(name.as_ref());
        } else {
            self.parameters.insert(name.into_owned(), value);
        }
        Ok(())
    }

    /// Removes a parameter and returns its bytes.
    pub fn take_bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        self.parameters.remove(name)
    }

    /// Removes a parameter and returns its text.
    ///
    /// # Errors
    /// Fails when it is not UTF-8.
    pub fn take(&mut self, name: &str) -> anyhow::Result<Option<String>> {
        let Some(value) = self.take_bytes(name) else { return Ok(None) };
        Ok(Some(String::from_utf8(value).map_err(|_| anyhow!("{name} is not UTF-8"))?))
    }

    /// Removes a numeric parameter and returns its value.
    ///
    /// # Errors
    /// Fails when it is not a number that `T` holds.
    pub fn take_number<T: FromStr>(&mut self, name: &str) -> anyhow::Result<Option<T>> {
        let Some(value) = self.take(name)? else { return Ok(None) };
        value.parse().map(Some).map_err(|_| anyhow!("{name} must be a whole number that is not negative"))
    }

    /// Removes a comma-separated list and returns its elements, which may be empty.
    ///
    /// # Errors
    /// Fails when it is not UTF-8.
    pub fn take_list(&mut self, name: &str) -> anyhow::Result<Vec<String>> {
        Ok(self.take(name)?.map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default())
    }

    /// Checks that every parameter was taken.
    ///
    /// # Errors
    /// Fails when a parameter is left: it is not among `supported`.
    pub fn finish(&self, supported: &[&str]) -> anyhow::Result<()> {
        match self.parameters.keys().next() {
            None => Ok(()),
            Some(_) if self.suspicious => Err(self.explain(anyhow!("the URL has an unknown option"))),
            Some(name) => {
                bail!("the option {name:?} is not supported; supported are {}", supported.join(", "))
            }
        }
    }

    /// Replaces `error`, which may name a part of the password, when an unencoded character may be the cause.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        if !self.suspicious {
            return error;
        }
        anyhow!("the host or an option is invalid; {ENCODE}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(url: &str, name: &str) -> Option<String> {
        ConnectionString::parse(url).unwrap().take(name).unwrap()
    }

    #[test]
    fn each_part_is_found_and_decoded() {
        let url = "postgres://me%40here:p%3Aw:x@[::1]:5433,b,%2Frun%2Fpg:1/my%20db?application_name=a%26b&port=&x=y=z";
        for (name, value) in [
            ("user", "me@here"),
            ("password", "p:w:x"),
            ("host", "::1,b,/run/pg"),
            ("dbname", "my db"),
            ("application_name", "a&b"),
            ("x", "y=z"),
        ] {
            assert_eq!(parameter(url, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(parameter(url, "port"), None);
    }

    #[test]
    fn an_option_overrides_a_part() {
        assert_eq!(parameter("postgresql://a/b?host=/run&dbname=c", "host").as_deref(), Some("/run"));
        assert_eq!(parameter("postgresql:///b?user=me@tenant", "user").as_deref(), Some("me@tenant"));
    }

    #[test]
    fn a_malformed_url_is_explained_without_its_secret() {
        for url in [
            "postgres:secret",
            "postgres://[::1/secret",
            "postgres://[::1]secret/x",
            "postgres://u:secret:x/y@host/db",
            "postgres://host/db?secret",
            "postgres://user:se%00cret@host/db",
        ] {
            let error = ConnectionString::parse(url).err().unwrap_or_else(|| panic!("{url}"));
            assert!(!format!("{error:#}").contains("secret"), "{error:#}");
        }
    }
}
