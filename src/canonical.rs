//! Parses numbers and ids that identify one resource by one text.

use std::fmt::Display;
use std::str::FromStr;

/// Parses `text` when it is the text that the value is written as. Returns `None` for every other notation, such as
/// `+1` or `01` for an integer, or an id in upper case or in braces: a resource has one address.
pub fn canonical<T: FromStr + Display>(text: &str) -> Option<T> {
    text.parse().ok().filter(|value: &T| value.to_string() == text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_the_notation_that_is_written_is_read() {
        assert_eq!(canonical::<i64>("-1"), Some(-1));
        for text in ["+1", "01", "-0", "-01", " 1", "1 ", "1_0", "0x1", "1.0", "", "9223372036854775808", "١"]
        {
            assert_eq!(canonical::<i64>(text), None, "{text:?}");
        }
        let id = Uuid::from_u128(0x0190_ABCD);
        assert_eq!(canonical(&id.to_string()), Some(id));
        for text in [
            id.to_string().to_uppercase(),
            id.simple().to_string(),
            id.braced().to_string(),
            id.urn().to_string(),
        ] {
            assert_eq!(canonical::<Uuid>(&text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number in any::<i64>(), id in any::<u128>()) {
            prop_assert_eq!(canonical(&number.to_string()), Some(number));
            prop_assert_eq!(canonical(&Uuid::from_u128(id).to_string()), Some(Uuid::from_u128(id)));
        }
    }
}
