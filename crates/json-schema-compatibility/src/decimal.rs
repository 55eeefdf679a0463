//! Exact remainders of the decimal numbers in `multipleOf`.

/// The maximum number of decimal places, on either side of the point.
const MAX_SCALE: u32 = 30;

/// A decimal number: `digits` divided by ten to the power of `scale`.
#[derive(Clone, Copy, Debug)]
struct Decimal {
    digits: i128,
    scale: u32,
}

impl Decimal {
    /// Parses a JSON number. Returns `None` for one that has too many digits to be held exactly.
    fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: i128 = format!("{integer}{fraction}").parse().ok()?;
        let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        if scale >= 0 {
            let scale = u32::try_from(scale).ok().filter(|scale| *scale <= MAX_SCALE)?;
            return Some(Self { digits, scale });
        }
        let zeros = scale.unsigned_abs();
        let factor = 10i128.checked_pow(zeros)?;
        Some(Self { digits: digits.checked_mul(factor)?, scale: 0 })
    }

    fn at_scale(self, scale: u32) -> Option<i128> {
        self.digits.checked_mul(10i128.checked_pow(scale.checked_sub(self.scale)?)?)
    }
}

/// Returns whether `number` is a multiple of `divisor`, or `None` when this cannot be determined exactly.
pub(crate) fn is_multiple(number: &str, divisor: &str) -> Option<bool> {
    let (number, divisor) = (Decimal::parse(number)?, Decimal::parse(divisor)?);
    let scale = number.scale.max(divisor.scale);
    Some(number.at_scale(scale)?.checked_rem(divisor.at_scale(scale)?)? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_fractions_have_exact_multiples() {
        for (number, divisor, expected) in [
            ("0.3", "0.1", Some(true)),
            ("1", "0.01", Some(true)),
            ("0.01", "1", Some(false)),
            ("1e3", "10", Some(true)),
            ("15e-1", "0.5", Some(true)),
            ("7", "0", None),
            ("1e300", "3", None),
            ("1e-300", "3", None),
            ("1e2147483647", "3", None),
            ("1e-2147483648", "3", None),
        ] {
            assert_eq!(is_multiple(number, divisor), expected, "{number} / {divisor}");
        }
    }
}
