//! Checks whether a role on this machine is ready, for images that contain neither a shell nor curl.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, value_parser};
use reqwest::StatusCode;
use serde::Deserialize;

use crate::http::parse_host;
use crate::https;
use crate::output::Output;

/// Shorter than the image's 5 s for a health check, so that the command can still report the reason.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Far more than a role answers. The port may belong to another program.
const MAX_BODY_BYTES: usize = 64 * 1024;

#[derive(Args, Clone, Debug)]
pub struct HealthcheckArgs {
    /// Address that the role listens on
    #[arg(long, env = "HOST", value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = parse_host)]
    pub host: IpAddr,

    /// Port that the role serves HTTP on
    #[arg(long, env = "PORT", value_name = "PORT", required_unless_present = "admin_port", value_parser = value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Port that the role serves health on instead, if it has one
    #[arg(long, env = "ADMIN_PORT", value_name = "PORT", value_parser = value_parser!(u16).range(1..))]
    pub admin_port: Option<u16>,
}

impl HealthcheckArgs {
    fn address(&self) -> anyhow::Result<SocketAddr> {
        let host = match self.host {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            host => host,
        };
        Ok(SocketAddr::new(host, self.admin_port.or(self.port).context("--port or --admin-port is needed")?))
    }
}

/// The response of a role that is not ready.
#[derive(Deserialize)]
struct Waiting {
    missing: BTreeMap<String, String>,
}

/// Succeeds when the role is ready.
///
/// # Errors
/// Fails with the missing dependencies when the role is not ready, and when it does not answer in time.
pub async fn run(args: HealthcheckArgs) -> anyhow::Result<()> {
    let url = format!("http://{}/readyz", args.address()?);
    // A proxy from the environment cannot reach this machine's ports.
    let client = https::client().no_proxy().timeout(TIMEOUT).build()?;
    let response = client.get(&url).send().await.context("no role answers")?;
    let status = response.status();
    if status == StatusCode::OK {
        // The exit code is the result, even when the output cannot be written.
        Output::stdout().line(format_args!("ready"));
        return Ok(());
    }
    if status == StatusCode::SERVICE_UNAVAILABLE
        && let Ok(body) = https::read_body(response, MAX_BODY_BYTES).await
        && let Ok(Waiting { missing }) = serde_json::from_slice(&body)
    {
        let missing: Vec<_> = missing.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
        bail!("not ready, waiting for {}", missing.join(", "));
    }
    bail!("{url} answered {status}: another program may be using this port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_asked_where_it_listens() {
        for (host, port, admin_port, address) in [
            ("127.0.0.1", Some(1), None, "127.0.0.1:1"),
            ("0.0.0.0", Some(1), Some(2), "127.0.0.1:2"),
            ("::", None, Some(2), "[::1]:2"),
            ("::1", Some(1), None, "[::1]:1"),
            ("192.0.2.1", Some(1), None, "192.0.2.1:1"),
        ] {
            let args = HealthcheckArgs { host: host.parse().unwrap(), port, admin_port };
            assert_eq!(args.address().unwrap().to_string(), address);
        }
    }
}
