//! Parses the address of a PostgreSQL server.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use tokio::runtime::Handle;

use super::connection_string::ConnectionString;
use super::socket::SocketOptions;
use super::tls::{SslMode, Tls, server_name};
use crate::database::DatabaseUrl;

const DEFAULT_PORT: u16 = 5432;
const APPLICATION_NAME: &str = "vehicle-platform";

/// The supported options of a URL, by libpq's names.
const SUPPORTED: &[&str] = &[
    "user",
    "password",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "application_name",
    "options",
    "sslmode",
    "sslrootcert",
    "channel_binding",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "target_session_attrs",
];

/// The address of a PostgreSQL server and the settings to connect to it. It is parsed once at startup, so that an
/// unusable address ends the process.
///
/// Connections run on the runtime on which the address was parsed rather than on their caller's: each thread of the
/// HTTP server has a runtime that ends earlier.
#[derive(Clone)]
pub struct PostgresAddress(pub(super) Arc<Settings>);

pub(super) struct Settings {
    pub servers: Vec<Server>,
    /// The user, the password, the database and the other parameters of the startup message.
    pub startup: tokio_postgres::Config,
    pub tls: Tls,
    pub socket: SocketOptions,
    /// The time limit for one attempt on one address.
    pub connect_timeout: Option<Duration>,
    /// Whether connections require a server that accepts writes.
    pub read_write: bool,
    pub runtime: Option<Handle>,
}

/// One host of the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// A DNS name or an IP address. With `address`, the name is not resolved.
    Tcp { name: String, address: Option<IpAddr> },
    /// The directory of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Host::Tcp { name, .. } => write!(f, "{name}:{}", self.port),
            Host::Unix(directory) => write!(f, "{}:{}", directory.display(), self.port),
        }
    }
}

impl PostgresAddress {
    /// Parses `url` as libpq does, and reads the certificates that it names.
    ///
    /// Fails when no server can ever be reached this way. The error names the invalid part and the remedy, and never
    /// shows a password.
    pub fn parse(url: &DatabaseUrl) -> anyhow::Result<Self> {
        let parse = || {
            let mut url = ConnectionString::parse(url.as_str())?;
            Settings::take_from(&mut url)
                .and_then(|settings| url.finish(SUPPORTED).map(|()| settings))
                .map_err(|error| url.explain(error))
        };
        Ok(Self(Arc::new(parse().context("the database URL cannot be used")?)))
    }
}

impl Settings {
    fn take_from(url: &mut ConnectionString) -> anyhow::Result<Self> {
        let servers = servers(url)?;
        let tls = tls(url, &servers)?;
        Ok(Self {
            servers,
            startup: startup(url)?,
            tls,
            socket: socket_options(url)?,
            connect_timeout: url
                .take_number("connect_timeout")?
                .filter(|seconds| *seconds > 0)
                .map(|seconds: u32| Duration::from_secs(seconds.into())),
            read_write: match url.take("target_session_attrs")?.as_deref() {
                None | Some("any") => false,
                Some("read-write") => true,
                Some(_) => anyhow::bail!("target_session_attrs must be any or read-write"),
            },
            runtime: Handle::try_current().ok(),
        })
    }
}

fn servers(url: &mut ConnectionString) -> anyhow::Result<Vec<Server>> {
    let (hosts, addresses) = (url.take_list("host")?, url.take_list("hostaddr")?);
    let names = if hosts.is_empty() { &addresses } else { &hosts };
    ensure!(!names.is_empty(), "it does not name a host: postgres://<user>@<host>:<port>/<database>");
    ensure!(addresses.is_empty() || addresses.len() == names.len(), "hostaddr must list as many as host");
    let ports = url.take_list("port")?;
    ensure!(
        ports.len() <= 1 || ports.len() == names.len(),
        "port must be one number, or list as many as there are hosts"
    );
    let server = |(index, name): (usize, &String)| {
        let port = ports.get(index).or(ports.first()).map_or("", String::as_str);
        let port = if port.is_empty() { Some(DEFAULT_PORT) } else { port.parse().ok() };
        let port = port.filter(|port| *port > 0).context("the port must be a number from 1 to 65535")?;
        let address = addresses
            .get(index)
            .map(|address| address.parse().context("hostaddr must be an IP address"))
            .transpose()?;
        ensure!(!name.is_empty(), "one of its hosts is empty");
        let host = if name.starts_with('/') {
            Host::Unix(PathBuf::from(name))
        } else {
            Host::Tcp { name: name.clone(), address }
        };
        Ok(Server { host, port })
    };
    names.iter().enumerate().map(server).collect()
}

fn tls(url: &mut ConnectionString, servers: &[Server]) -> anyhow::Result<Tls> {
    let mode = url.take("sslmode")?.map(|mode| mode.parse()).transpose()?;
    let tls = Tls::new(mode, url.take("sslrootcert")?.as_deref())?;
    if matches!(tls.mode, SslMode::VerifyCa | SslMode::VerifyFull) {
        for server in servers {
            match &server.host {
                Host::Tcp { name, .. } if tls.mode == SslMode::VerifyFull => drop(server_name(name)?),
                Host::Tcp { .. } => {}
                Host::Unix(_) => anyhow::bail!(
                    "sslmode=verify-ca and verify-full need a host name: a Unix socket is never encrypted"
                ),
            }
        }
    }
    Ok(tls)
}

fn startup(url: &mut ConnectionString) -> anyhow::Result<tokio_postgres::Config> {
    let mut startup = tokio_postgres::Config::new();
    // The connection is encrypted before tokio-postgres sees it.
    startup.ssl_mode(tokio_postgres::config::SslMode::Disable);
    startup.application_name(url.take("application_name")?.unwrap_or_else(|| APPLICATION_NAME.to_owned()));
    url.take("user")?.map(|user| startup.user(user));
    url.take_bytes("password").map(|password| startup.password(password));
    url.take("dbname")?.map(|database| startup.dbname(database));
    url.take("options")?.map(|options| startup.options(options));
    match url.take("channel_binding")?.as_deref() {
        None | Some("disable" | "prefer") => Ok(startup),
        Some("require") => Err(anyhow!("channel_binding=require is not supported; use sslmode=verify-full")),
        Some(_) => Err(anyhow!("channel_binding must be disable or prefer")),
    }
}

fn socket_options(url: &mut ConnectionString) -> anyhow::Result<SocketOptions> {
    let mut options = SocketOptions::default();
    // As in libpq, zero selects the default. The limits are those of Linux, which refuses a socket with more.
    let mut number = |name, limit| -> anyhow::Result<Option<u32>> {
        let number = url.take_number(name)?;
        ensure!(number.is_none_or(|number| number <= limit), "{name} must be at most {limit}");
        Ok(number.filter(|number| name == "keepalives" || *number > 0))
    };
    options.keepalives = number("keepalives", u32::MAX)? != Some(0);
    let mut seconds = |name| {
        Ok::<_, anyhow::Error>(number(name, 32_767)?.map(|seconds| Duration::from_secs(seconds.into())))
    };
    options.idle = seconds("keepalives_idle")?.unwrap_or(options.idle);
    options.interval = seconds("keepalives_interval")?.unwrap_or(options.interval);
    options.count = number("keepalives_count", 127)?.unwrap_or(options.count);
    // libpq specifies it in milliseconds.
    let user_timeout =
        number("tcp_user_timeout", 2_147_483_647)?.map(|millis| Duration::from_millis(millis.into()));
    options.user_timeout = user_timeout.unwrap_or(options.user_timeout);
    Ok(options)
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresAddress")
            .field("servers", &self.0.servers)
            .field("user", &self.0.startup.get_user())
            .field("database", &self.0.startup.get_dbname())
            .field("sslmode", &self.0.tls.mode)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(url: &str) -> anyhow::Result<PostgresAddress> {
        PostgresAddress::parse(&url.parse().unwrap())
    }

    fn settings(url: &str) -> Arc<Settings> {
        parse(url).unwrap().0
    }

    fn refusal(url: &str) -> String {
        format!("{:#}", parse(url).err().unwrap_or_else(|| panic!("{url} was parsed")))
    }

    #[test]
    fn every_host_has_its_port() {
        let settings = settings("postgres://[::1]:1,db.example,%2Frun%2Fpg:3/stock");
        let servers: Vec<_> = settings.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["[::1]:1", "db.example:5432", "/run/pg:3"]);
        assert_eq!(settings.startup.get_dbname(), Some("stock"));
        assert_eq!(settings.startup.get_application_name(), Some("vehicle-platform"));
        assert_eq!(settings.tls.mode, SslMode::Prefer);
    }

    #[test]
    fn options_have_the_units_of_libpq() {
        let settings = settings(
            "postgres://h/db?connect_timeout=2&keepalives=0&keepalives_idle=4&keepalives_interval=5&keepalives_count=6\
             &tcp_user_timeout=7000&target_session_attrs=read-write&application_name=mine&sslmode=require",
        );
        assert_eq!(settings.connect_timeout, Some(Duration::from_secs(2)));
        assert!(!settings.socket.keepalives);
        assert_eq!(settings.socket.idle, Duration::from_secs(4));
        assert_eq!(settings.socket.interval, Duration::from_secs(5));
        assert_eq!(settings.socket.count, 6);
        assert_eq!(settings.socket.user_timeout, Duration::from_secs(7));
        assert!(settings.read_write);
        assert_eq!(settings.startup.get_application_name(), Some("mine"));
        assert_eq!(settings.tls.mode, SslMode::Require);
    }

    #[test]
    fn an_unusable_option_is_refused_by_name() {
        for (url, reason) in [
            ("postgres:///db", "does not name a host"),
            ("postgres://a,,b/db", "hosts is empty"),
            ("postgres://h:0/db", "from 1 to 65535"),
            ("postgres://h:65536/db", "from 1 to 65535"),
            ("postgres://h:x/db", "from 1 to 65535"),
            ("postgres://a,b/db?port=1,2,3", "port must be one number"),
            ("postgres://::1/db", "must be in brackets"),
            ("postgres://h/db?hostaddr=x", "hostaddr must be an IP address"),
            ("postgres://h/db?sslmode=on", "sslmode must be disable, allow, prefer"),
            ("postgres://h/db?sslmode=require&sslrootcert=/no/such/file", "sslrootcert /no/such/file"),
            ("postgres://h/db?sslrootcert=/dev/null", "contains no certificate"),
            ("postgres://h/db?sslrootcert=system&sslmode=require", "sslmode=verify-full"),
            ("postgres://%2Frun/db?sslmode=verify-full&sslrootcert=Cargo.toml", "sslrootcert Cargo.toml"),
            ("postgres://h/db?connect_timeout=soon", "connect_timeout must be a whole number"),
            ("postgres://h/db?keepalives_idle=-1", "keepalives_idle must be a whole number"),
            ("postgres://h/db?keepalives_idle=32768", "keepalives_idle must be at most 32767"),
            ("postgres://h/db?keepalives_count=128", "keepalives_count must be at most 127"),
            ("postgres://h/db?tcp_user_timeout=2147483648", "tcp_user_timeout must be at most"),
            ("postgres://me:12/3@h/db", "percent-encode it"),
            ("postgres://h/db?target_session_attrs=standby", "any or read-write"),
            ("postgres://h/db?channel_binding=require", "channel_binding=require is not supported"),
            ("postgres://h/db?sslcert=x", "\"sslcert\" is not supported; supported are user, password"),
        ] {
            let refusal = refusal(url);
            assert!(refusal.contains(reason), "{url}: {refusal}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgres://me:secret@h:port/db",
            "postgres://me:secret/2@h/db",
            "postgres://me:1?secret=2@h/db",
            "postgres://me:p@h?secret=2@h/db",
            "postgres://me:1?sslrootcert=/secret@h/db",
            "postgres://me:secret@h/db?sslmode=secret",
            "postgres://h/db?password=secret&sslcert=1",
        ] {
            assert!(!refusal(url).contains("secret"), "{}", refusal(url));
        }
        assert!(refusal("postgres://me:secret/2@h/db").contains("percent-encode"));
        let shown = format!("{:?}", parse("postgres://me:secret@h/db").unwrap());
        assert!(shown.contains("me") && !shown.contains("secret"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_malformed_url_is_repeated(
            before in "[a-z%:/?#@,=&. $\u{e9}0-9]{0,12}|[0-9]{1,4}[/?](sslmode|sslrootcert|port|x)=",
            after in "[a-z%:/?#@,=&. $\u{e9}0-9]{0,12}",
            rest in "@h(:1)?(/d)?(\\?sslmode=on)?",
        ) {
            let url = format!("postgres://user:{before}zq9marker7x{after}{rest}");
            if let Err(error) = parse(&url) {
                prop_assert!(!format!("{error:#}").contains("zq9marker7x"), "{url}: {error:#}");
            }
        }
    }
}
