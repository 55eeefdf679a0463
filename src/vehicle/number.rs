//! Reads numbers from JSON and writes them to it.

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serializer};
use serde_json::Number;

/// The bound from which an `f64` no longer represents every integer: 2^53.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// Returns `number` as an integer. As JSON Schema defines it, `2022.0` and `2.022e3` are the integer 2022.
///
/// Returns `None` for a number with a fraction, for one outside the range of an `i64`, and for a float that may
/// already be rounded.
pub fn as_integer(number: &Number) -> Option<i64> {
    if let Some(integer) = number.as_i64() {
        return Some(integer);
    }
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < EXACT_INTEGERS)?;
    #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53, so the cast is exact")]
    Some(float as i64)
}

/// Deserializes an integer, which may be written as `2022.0`, into a type that may be narrower than 64 bits.
///
/// # Errors
/// Fails when the number is not an integer or out of range for `T`.
pub fn integer<'de, T: TryFrom<i64>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let number = Number::deserialize(deserializer)?;
    let integer = as_integer(&number).and_then(|integer| T::try_from(integer).ok());
    integer.ok_or_else(|| {
        let bits = 8 * size_of::<T>();
        D::Error::invalid_value(
            Unexpected::Other(&number.to_string()),
            &format!("an integer of {bits} bits").as_str(),
        )
    })
}

/// Deserializes an integer, which may be written as `2022.0`, or `null`.
///
/// # Errors
/// Fails when the value is neither `null` nor an integer that `T` can hold.
pub fn optional_integer<'de, T: TryFrom<i64>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    struct Integer<T>(T);
    impl<'de, T: TryFrom<i64>> Deserialize<'de> for Integer<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            integer(deserializer).map(Self)
        }
    }
    Ok(Option::<Integer<T>>::deserialize(deserializer)?.map(|Integer(integer)| integer))
}

/// Serializes a whole number without a fraction, so that `1000` does not become `1000.0`.
///
/// # Errors
/// Returns the errors of the serializer.
pub fn whole_as_integer<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.fract() == 0.0 && number.abs() < EXACT_INTEGERS {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53, so the cast is exact")]
        serializer.serialize_i64(*number as i64)
    } else {
        serializer.serialize_f64(*number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Option<i64> {
        as_integer(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_number_without_a_fraction_is_an_integer_in_every_notation() {
        for (json, integer) in [
            ("2022.0", 2022),
            ("2.022e3", 2022),
            ("100.0", 100),
            ("-0", 0),
            ("-0.0", 0),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("9007199254740991.0", 9_007_199_254_740_991),
        ] {
            assert_eq!(read(json), Some(integer), "{json}");
        }
    }

    #[test]
    fn a_number_with_a_fraction_or_a_possible_rounding_is_none() {
        for json in ["2022.5", "1e-5", "1e300", "9007199254740993.0", "9223372036854775808", "1e19"] {
            assert_eq!(read(json), None, "{json}");
        }
    }

    proptest! {
        #[test]
        fn an_integer_that_is_read_is_the_number_that_was_written(integer in any::<i64>(), as_float in any::<bool>()) {
            let json = if as_float { format!("{integer}.0") } else { integer.to_string() };
            let exact = integer.unsigned_abs() < 1 << 53;
            prop_assert_eq!(read(&json), (!as_float || exact).then_some(integer));
        }
    }
}
