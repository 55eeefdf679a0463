//! Builds vehicle identification numbers as ISO 3779 and 49 CFR 565 define them: 17 characters, with a check digit and
//! a code of the model year.

/// The characters of a VIN. I, O and Q are missing because they look like digits.
pub const CHARACTERS: &[u8] = b"0123456789ABCDEFGHJKLMNPRSTUVWXYZ";
pub const DIGITS: &[u8] = b"0123456789";
pub const LETTERS: &[u8] = b"ABCDEFGHJKLMNPRSTUVWXYZ";

/// The codes of the model years from 1980 on, which repeat every 30 years (49 CFR 565.15, table VII).
const YEARS: &[u8] = b"ABCDEFGHJKLMNPRSTVWXY123456789";
const FIRST_YEAR: i32 = 1980;

/// The weight of each position (49 CFR 565.15, table IV). The check digit itself, at position 9, has none.
const WEIGHTS: [u32; 17] = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
/// The check digit for each remainder.
const CHECK_DIGITS: &[u8] = b"0123456789X";

/// The parts of a VIN that can be chosen.
#[derive(Clone, Copy, Debug)]
pub struct VinParts {
    /// The world manufacturer identifier: positions 1 to 3.
    pub manufacturer: &'static str,
    /// The description of the vehicle: positions 4 to 8.
    pub description: [u8; 5],
    /// The model year, of which position 10 is a code.
    pub year: i32,
    /// The plant and the serial number: positions 11 to 17.
    pub serial: [u8; 7],
}

impl VinParts {
    pub fn to_vin(self) -> String {
        let mut vin = String::with_capacity(17);
        vin.push_str(self.manufacturer);
        vin.extend(self.description.map(char::from));
        vin.push('0');
        vin.push(char::from(year_code(self.year)));
        vin.extend(self.serial.map(char::from));
        // Position 9 has no weight, so the placeholder does not matter.
        let check_digit = char::from(check_digit(vin.as_bytes()));
        vin.replace_range(8..9, check_digit.encode_utf8(&mut [0; 4]));
        vin
    }
}

/// Returns the check digit of a VIN, whatever its position 9 is.
pub fn check_digit(vin: &[u8]) -> u8 {
    let sum: u32 = vin.iter().zip(WEIGHTS).map(|(&character, weight)| value(character) * weight).sum();
    nth(CHECK_DIGITS, u64::from(sum % 11))
}

/// Returns the value that a character counts as (49 CFR 565.15, table III).
fn value(character: u8) -> u32 {
    let value = match character {
        b'0'..=b'9' => character - b'0',
        b'A'..=b'H' => character - b'A' + 1,
        b'J'..=b'R' => character - b'J' + 1,
        b'S'..=b'Z' => character - b'S' + 2,
        _ => 0,
    };
    u32::from(value)
}

fn year_code(year: i32) -> u8 {
    let years_since = (year - FIRST_YEAR).rem_euclid(30);
    nth(YEARS, u64::try_from(years_since).unwrap_or_default())
}

/// Returns the character of `alphabet` that a number stands for. Numbers beyond its end start over.
pub fn nth(alphabet: &[u8], number: u64) -> u8 {
    let index = usize::try_from(number % alphabet.len() as u64).unwrap_or_default();
    alphabet.get(index).copied().unwrap_or(b'0')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same rules in another form.
    fn is_valid(vin: &str) -> bool {
        const SAME_VALUE: [&str; 10] =
            ["0", "1AJ", "2BKS", "3CLT", "4DMU", "5ENV", "6FW", "7GPX", "8HY", "9RZ"];
        let sum: usize = (1..)
            .zip(vin.chars())
            .map(|(position, character)| {
                let value = SAME_VALUE.iter().position(|same| same.contains(character)).unwrap();
                let weight = match position {
                    1..=7 => 9 - position,
                    8 => 10,
                    9 => return 0,
                    _ => 19 - position,
                };
                value * weight
            })
            .sum();
        let digit = if sum % 11 == 10 { "X".to_owned() } else { (sum % 11).to_string() };
        vin.len() == 17 && vin.get(8..9) == Some(digit.as_str())
    }

    #[test]
    fn the_check_digits_of_known_vehicles_are_right() {
        for (vin, digit) in [
            ("1M8GDM9AXKP042788", 'X'),
            ("11111111111111111", '1'),
            ("5GZCZ43D13S812715", '1'),
            ("1FTRX12V69FA11242", '6'),
        ] {
            assert!(is_valid(vin), "{vin}");
            assert_eq!(char::from(check_digit(vin.as_bytes())), digit, "{vin}");
        }
    }

    #[test]
    fn a_model_year_has_the_published_code() {
        for (year, code) in [
            (1980, 'A'),
            (1999, 'X'),
            (2000, 'Y'),
            (2001, '1'),
            (2009, '9'),
            (2010, 'A'),
            (2025, 'S'),
            (2031, '1'),
        ] {
            assert_eq!(char::from(year_code(year)), code, "{year}");
        }
    }

    proptest! {
        #[test]
        fn every_vin_has_17_valid_characters_and_the_right_check_digit(
            description in prop::array::uniform5(prop::sample::select(CHARACTERS)),
            serial in prop::array::uniform7(prop::sample::select(CHARACTERS)),
            year in 1980..2040,
        ) {
            let vin = VinParts { manufacturer: "WVW", description, year, serial }.to_vin();
            prop_assert!(is_valid(&vin), "{}", vin);
            prop_assert!(vin.bytes().all(|character| CHARACTERS.contains(&character)), "{}", vin);
        }

        #[test]
        fn a_wrong_character_changes_the_check_digit(
            serial in prop::array::uniform7(prop::sample::select(DIGITS)),
            position in 10_usize..17,
            other in prop::sample::select(DIGITS),
        ) {
            let vin = VinParts { manufacturer: "1HG", description: *b"CM826", year: 2003, serial }.to_vin();
            let mut wrong = vin.clone().into_bytes();
            prop_assume!(wrong[position] != other);
            wrong[position] = other;
            prop_assert!(!is_valid(&String::from_utf8(wrong).unwrap()));
        }
    }
}
