//! Defines the fields of a vehicle: a value of each type has passed the checks of its `parse`.

use std::fmt;

use super::text::parse_text;

macro_rules! text_field {
    ($(#[$doc:meta])* $name:ident, at most $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(String);

        impl $name {
            /// The maximum length of the trimmed text, in characters (Unicode scalar values).
            pub const MAX_CHARS: usize = $max;

            /// Trims and validates `text`.
            ///
            /// # Errors
            /// Returns the reason when the text shows no character, is too long, or contains a control character.
            pub fn parse(text: &str) -> Result<Self, String> {
                parse_text(text, Self::MAX_CHARS).map(Self)
            }

            /// Wraps text that a store or a record holds. It was validated when it was accepted, possibly by an
            /// earlier release.
            pub fn from_stored(text: String) -> Self {
                Self(text)
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(field: $name) -> Self {
                field.0
            }
        }
    };
}

text_field! {
    /// The vehicle identification number: unique in stock, and the key of every record about the vehicle.
    ///
    /// Any text is valid, not only the 17 characters of ISO 3779: the documented example is `vin`.
    Vin, at most 64
}
text_field! {
    Model, at most 255
}
text_field! {
    Manufacturer, at most 255
}
text_field! {
    /// The unit of the odometer reading, such as `km`.
    OdometerUnit, at most 64
}

/// The model year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Year(i32);

impl Year {
    /// The year of the first patented automobile.
    pub const FIRST: i32 = 1886;

    /// Validates a model year.
    ///
    /// # Errors
    /// Returns the reason when `year` is before [`Year::FIRST`] or more than one year after `this_year`.
    pub fn parse(year: i64, this_year: i32) -> Result<Self, String> {
        let last = Self::last(this_year);
        match i32::try_from(year) {
            Ok(year) if (Self::FIRST..=last).contains(&year) => Ok(Self(year)),
            _ => Err(format!("must be from {} to {last}", Self::FIRST)),
        }
    }

    /// Returns the last valid model year in `this_year`.
    pub fn last(this_year: i32) -> i32 {
        this_year.saturating_add(1)
    }

    pub fn get(self) -> i32 {
        self.0
    }

    /// Wraps a year that a store holds. It was validated when it was accepted.
    pub fn from_stored(year: i32) -> Self {
        Self(year)
    }
}

/// The odometer reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Odometer(f64);

impl Odometer {
    /// Validates a reading.
    ///
    /// # Errors
    /// Returns the reason when `reading` is negative or not finite.
    pub fn parse(reading: f64) -> Result<Self, String> {
        if reading.is_finite() && reading >= 0.0 {
            // Turns -0.0 into 0.0, which reads the same in every store.
            Ok(Self(reading + 0.0))
        } else {
            Err("must be a finite number, 0 or more".to_owned())
        }
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_trimmed_and_counted_in_characters() {
        assert_eq!(Vin::parse("  vin\n").unwrap().as_str(), "vin");
        assert!(Vin::parse(&"ü".repeat(64)).is_ok());
        assert_eq!(Vin::parse(&"ü".repeat(65)).unwrap_err(), "must have at most 64 characters");
        assert!(Model::parse(&"x".repeat(255)).is_ok());
        assert!(Model::parse(&"x".repeat(256)).is_err());
    }

    #[test]
    fn blank_text_and_control_characters_are_refused() {
        assert_eq!(Vin::parse(" \t ").unwrap_err(), "must not be blank");
        for control in
            ['\0', '\u{1b}', '\u{7}', '\n', '\t', '\u{7f}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{2028}']
        {
            let refused = Vin::parse(&format!("a{control}b"));
            assert_eq!(refused.unwrap_err(), "must not contain control characters", "{control:?}");
        }
    }

    #[test]
    fn text_that_shows_no_character_is_blank() {
        for invisible in [
            "",
            "\u{200b}",
            "\u{feff}",
            "\u{ad}",
            "\u{34f}",
            "\u{115f}\u{1160}",
            "\u{17b4}",
            "\u{180e}",
            "\u{2060}",
            "\u{2800}",
            "\u{3164}",
            "\u{fe0f}",
            "\u{ffa0}",
            "\u{1d173}",
            "\u{e0001}",
            "\u{e0041}",
            "\u{e0100}",
            "\u{e0fff}",
            "\u{200b} \u{3000}\u{200d}",
            "\u{a0}\u{2800}\u{200c}",
        ] {
            assert_eq!(Vin::parse(invisible).unwrap_err(), "must not be blank", "{invisible:?}");
        }
        // They stay part of a text, as in an emoji or in Persian, and only white space is trimmed.
        for visible in ["\u{200b}a", "a\u{ad}b", "❤\u{fe0f}", "می\u{200c}خواهم", "1\u{2800}2"] {
            assert_eq!(Vin::parse(&format!(" {visible} ")).unwrap().as_str(), visible);
        }
    }

    #[test]
    fn a_year_is_between_the_first_automobile_and_next_year() {
        assert_eq!(Year::parse(1886, 2026).unwrap().get(), 1886);
        assert_eq!(Year::parse(2027, 2026).unwrap().get(), 2027);
        assert_eq!(Year::parse(1885, 2026).unwrap_err(), "must be from 1886 to 2027");
        assert!(Year::parse(2028, 2026).is_err());
        assert!(Year::parse(i64::MAX, 2026).is_err());
    }

    #[test]
    fn an_odometer_is_finite_and_not_negative() {
        assert!(Odometer::parse(0.0).is_ok());
        assert!(Odometer::parse(-0.0).unwrap().get().is_sign_positive());
        assert!(Odometer::parse(-1.0).is_err());
        assert!(Odometer::parse(f64::NAN).is_err());
        assert!(Odometer::parse(f64::INFINITY).is_err());
    }
}
