//! The settings of the HTTP server.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};

use clap::Args;
use clap::builder::TypedValueParser;

use super::host::parse_host;
use crate::open_files;

/// The number of connections that a role serves at the same time by default.
const DEFAULT_MAX_CONNECTIONS: u32 = 1_024;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub struct HttpArgs {
    /// IP address or name of this machine to listen on; 0.0.0.0 for all interfaces
    #[arg(long, env = "HOST", value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = parse_host)]
    pub host: IpAddr,

    /// Port for health and metrics only, which then are not served on --port; its readiness names each cause in full
    #[arg(long, env = "ADMIN_PORT", value_name = "PORT", value_parser = Port::parser_of("--admin-port"))]
    pub admin_port: Option<Port>,

    /// Maximum number of connections at the same time, at most a fifth of the files that the process may open;
    /// further clients wait to be connected
    #[arg(
        long,
        env = "MAX_CONNECTIONS",
        value_name = "N",
        default_value_t = DEFAULT_MAX_CONNECTIONS,
        value_parser = clap::value_parser!(u32).range(1..=50_000)
    )]
    pub max_connections: u32,
}

impl HttpArgs {
    /// Returns the default settings on `host`.
    pub fn on(host: IpAddr) -> Self {
        Self { host, admin_port: None, max_connections: DEFAULT_MAX_CONNECTIONS }
    }

    /// Returns the number of connections that one server accepts. Further connections wait, so that clients cannot
    /// exhaust the files that the role needs for its database and brokers. `dev` runs three servers in one process.
    pub(super) fn max_connections(&self) -> usize {
        let files = u32::try_from(open_files::limit() / 5).unwrap_or(u32::MAX);
        self.max_connections.min(files).max(1) as usize
    }
}

/// A port to listen on.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    number: u16,
    /// The flag by which the user chooses it.
    flag: &'static str,
}

impl Port {
    pub const fn new(number: u16) -> Self {
        Self { number, flag: "--port" }
    }

    /// Returns the port of another flag.
    pub const fn of(flag: &'static str, number: u16) -> Self {
        Self { number, flag }
    }

    /// Parses the port of `--port`.
    pub fn parser() -> impl TypedValueParser<Value = Self> {
        clap::value_parser!(u16).map(Self::new)
    }

    /// Parses the port of another flag.
    pub fn parser_of(flag: &'static str) -> impl TypedValueParser<Value = Self> {
        clap::value_parser!(u16).map(move |number| Self { number, flag })
    }

    pub fn number(self) -> u16 {
        self.number
    }

    /// Returns the context of the error that the port cannot be used on `host`.
    pub fn cannot_listen(self, host: IpAddr) -> String {
        let variable = self.flag.trim_start_matches('-').to_uppercase().replace('-', "_");
        let address = SocketAddr::new(host, self.number);
        format!("cannot listen on {address}; choose another port with {} ({variable})", self.flag)
    }
}

impl Display for Port {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.number.fmt(formatter)
    }
}
