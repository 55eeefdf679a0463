//! How a quantity is written in JSON.

use serde::Serializer;

/// Beyond 2^53 an `f64` no longer tells neighbouring integers apart.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

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
