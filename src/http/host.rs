//! Parses the address to listen on.

use std::net::{IpAddr, TcpListener, ToSocketAddrs as _};

/// Parses an IP address or a name of this machine, such as `localhost`.
///
/// Of the addresses of a name, the first that this machine has is used, regardless of whether the port is taken there:
/// with another address, clients that use the name would reach the program that took it.
///
/// # Errors
/// Fails when `text` is not an address of this machine.
pub fn parse_host(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let addresses: Vec<_> = match bare.parse() {
        Ok(address) => vec![address],
        Err(_) => match (bare, 0).to_socket_addrs() {
            Ok(addresses) => addresses.map(|address| address.ip()).collect(),
            Err(error) => return Err(refusal(&error.to_string())),
        },
    };
    let mut reason = "it has no address".to_owned();
    for address in addresses {
        match TcpListener::bind((address, 0)) {
            Ok(_) => return Ok(address),
            Err(error) => reason = format!("cannot listen on {address}: {error}"),
        }
    }
    Err(refusal(&reason))
}

fn refusal(reason: &str) -> String {
    format!(
        "is not an IP address or a host name of this machine ({reason}). Use 127.0.0.1, or 0.0.0.0 for all \
         interfaces. If another program has set HOST, as conda does, unset it or pass --host"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_name_of_this_machine_is_accepted() {
        for (text, address) in
            [("0.0.0.0", "0.0.0.0"), ("127.0.0.1", "127.0.0.1"), ("127.0.0.2", "127.0.0.2")]
        {
            assert_eq!(parse_host(text), Ok(address.parse().unwrap()), "{text}");
        }
        assert!(parse_host("localhost").unwrap().is_loopback());
        if TcpListener::bind("[::1]:0").is_ok() {
            assert_eq!(parse_host("::1"), Ok("::1".parse().unwrap()));
            assert_eq!(parse_host("[::1]"), Ok("::1".parse().unwrap()));
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_way_out() {
        // The last is an address for documentation (RFC 5737).
        for text in ["", "x86_64-conda-linux-gnu", "127.0.0.1:80", "a b", "192.0.2.1"] {
            let refusal = parse_host(text).unwrap_err();
            assert!(refusal.contains("0.0.0.0") && refusal.contains("--host"), "{text}: {refusal}");
        }
    }
}
