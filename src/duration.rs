//! Parses the durations of the command line.

use std::time::Duration;

use humantime::DurationError;

/// The longest duration of a setting. A longer one would overflow when it is added to a time.
const MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);

/// Parses a duration such as `30s` or `2h 30m`.
///
/// # Errors
/// Fails when `text` has another form or exceeds 100 years.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= MAX => Ok(duration),
        Ok(_) => Err("must be at most 100 years".to_owned()),
        Err(DurationError::NumberOverflow) => {
            Err("must be at most 100 years, and no part of it below 1ns".to_owned())
        }
        Err(error) => Err(format!("must be a duration such as 30s or 2h 30m: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_has_at_most_100_years() {
        assert_eq!(parse_duration("2h 30m"), Ok(Duration::from_secs(9_000)));
        assert_eq!(parse_duration("100years"), Ok(Duration::from_secs(3_155_760_000)));
        for long in ["101y", "18446744073709551615s", "18446744073709551616s", "18446744073709551615y"] {
            assert!(parse_duration(long).unwrap_err().contains("at most 100 years"), "{long}");
        }
        for wrong in ["", "soon", "30", "-1s", "1.s"] {
            assert!(parse_duration(wrong).unwrap_err().contains("such as 30s"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_bounded_duration_or_an_error(text in "[0-9.]{0,22}(ns|us|ms|s|m|h|d|w|M|y)?") {
            if let Ok(duration) = parse_duration(&text) {
                prop_assert!(duration <= MAX);
                prop_assert!(std::time::Instant::now().checked_add(2 * duration).is_some());
            }
        }
    }
}
