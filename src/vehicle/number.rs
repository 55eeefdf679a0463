//! How numbers are read from JSON and written to it.

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serializer};
use serde_json::Number;

/// From 2^53 on an `f64` no longer tells neighbouring integers apart.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// Returns the integer that `number` is, as JSON Schema defines it: `2022.0` and `2.022e3` are the integer 2022. `None` for what
/// has a fraction, and for what an `i64` cannot hold or a float has already rounded.
pub fn as_integer(number: &Number) -> Option<i64> {
    if let Some(integer) = number.as_i64() {
        return Some(integer);
    }
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < EXACT_INTEGERS)?;
    #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53, so the cast is exact")]
    Some(float as i64)
}

/// Reads an integer, as `as_integer` does, into a type that may hold less.
///
/// # Errors
/// When it is no integer, or not one that `T` holds.
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

/// Reads an integer or `null`, as [`integer`] does.
///
/// # Errors
/// As [`integer`].
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

/// Writes a whole number without a fraction, so that `1000` goes out as it came in and not as `1000.0`.
///
/// # Errors
/// Those of the serialiser.
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
    fn a_number_without_a_fraction_is_an_integer_however_it_is_written() {
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
    fn what_has_a_fraction_or_may_have_been_rounded_is_none() {
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
