//! The price of a vehicle.

use std::fmt;

use serde::{Serialize, Serializer};

/// A price in US dollars, stored in cents so that it always has two decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price {
    cents: i64,
}

impl Price {
    /// The ISO 4217 code of the currency.
    pub const UNIT: &str = "USD";

    /// The largest price that survives a division by 100 and back: up to here, both roundings together are off by
    /// less than 2^50 · 2^-52.
    const MAX_CENTS: i64 = 1 << 50;

    pub fn from_cents(cents: i64) -> Self {
        Self { cents }
    }

    /// Rounds `amount`, in dollars, to the cent.
    ///
    /// # Errors
    /// Returns the reason when `amount` is not finite, less than one cent, or too large to be exact to the cent.
    pub fn parse(amount: f64) -> Result<Self, String> {
        let cents = (amount * 100.0).round();
        #[expect(clippy::cast_precision_loss, reason = "2^50 is exact in an f64")]
        if !(1.0..=Self::MAX_CENTS as f64).contains(&cents) {
            return Err(format!("{amount:?} is not from 0.01 to {}", Self::from_cents(Self::MAX_CENTS)));
        }
        #[expect(clippy::cast_possible_truncation, reason = "whole and in range, checked above")]
        Ok(Self { cents: cents as i64 })
    }

    /// Returns the amount in dollars.
    pub fn amount(self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "prices stay below 2^50 cents, which an f64 holds exactly"
        )]
        let cents = self.cents as f64;
        cents / 100.0
    }
}

/// Writes the amount, always with two decimals.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.cents / 100, self.cents % 100)
    }
}

/// Serializes a price as a number of dollars. How many decimals it shows is decided by what writes it.
impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.amount())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_price_survives_the_conversion_to_a_float_and_back(cents in 1..=Price::MAX_CENTS) {
            let price = Price::from_cents(cents);
            prop_assert_eq!(Price::parse(price.amount()), Ok(price));
        }

        #[test]
        fn a_realistic_price_is_written_with_at_most_two_decimals(cents in 1..1_000_000_000i64) {
            let written = serde_json::to_string(&Price::from_cents(cents).amount()).unwrap();
            let decimals = written.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            prop_assert!(decimals <= 2, "{} has {} decimals", written, decimals);
        }
    }

    #[test]
    fn an_amount_that_is_not_a_price_is_refused() {
        for amount in [f64::NAN, f64::INFINITY, -1.0, 0.0, 0.001, 1e300] {
            assert!(Price::parse(amount).is_err(), "{amount}");
        }
    }

    #[test]
    fn a_price_is_shown_with_two_decimals() {
        for (cents, written) in [(123_405, "1234.05"), (1_236_010, "12360.10"), (500_000, "5000.00")] {
            assert_eq!(Price::from_cents(cents).to_string(), written);
        }
    }
}
