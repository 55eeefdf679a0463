//! The key that a tool presents to a role.

use clap::Args;
use reqwest::header::HeaderValue;

use super::api_key::check;
use crate::secret::SecretParser;

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Services")]
pub struct ClientKeys {
    /// Key to send, if the service requires one; the first of a list, so that the setting of the service can be used
    #[arg(
        long = "api-key",
        env = "API_KEY",
        value_name = "KEY,...",
        value_delimiter = ',',
        hide_env_values = true,
        value_parser = SecretParser::new(parse)
    )]
    keys: Vec<HeaderValue>,
}

impl ClientKeys {
    /// Returns the value of the header Authorization, which does not print.
    pub fn authorization(&self) -> Option<HeaderValue> {
        self.keys.first().cloned()
    }
}

fn parse(key: &str) -> Result<HeaderValue, String> {
    check(key)?;
    let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_as_a_bearer_token_and_does_not_print() {
        let key = parse("a-key-of-a-client").unwrap();
        assert_eq!(key.as_bytes(), b"Bearer a-key-of-a-client");
        assert!(!format!("{key:?}").contains("client"));
        assert!(!parse("short").unwrap_err().contains("short"));
    }
}
