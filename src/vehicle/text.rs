//! Decides which text is valid, and describes it as a regular expression.

use std::sync::LazyLock;

use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;

/// The pattern of valid text of any length, for JSON Schema (ECMA 262).
pub(super) static PATTERN: LazyLock<String> = LazyLock::new(|| {
    let space = format!("[{}]", class(char::is_whitespace));
    let valid = format!("[^{}]", class(is_control));
    let visible = format!("[^{}]", class(|character| is_control(character) || is_invisible(character)));
    format!("^{space}*{valid}*{visible}{valid}*{space}*$")
});

/// Trims and validates `text`.
///
/// # Errors
/// Returns the reason when the text shows no character, contains a control character, or has more than `max_chars`
/// characters.
pub(super) fn parse_text(text: &str, max_chars: usize) -> Result<String, String> {
    let text = text.trim();
    if text.chars().all(is_invisible) {
        return Err("must not be blank".to_owned());
    }
    if text.contains(is_control) {
        return Err("must not contain control characters".to_owned());
    }
    if text.chars().count() > max_chars {
        return Err(format!("must have at most {max_chars} characters"));
    }
    Ok(text.to_owned())
}

/// Returns whether `character` shows nothing by itself: Unicode's properties `White_Space` and
/// `Default_Ignorable_Code_Point` (`DerivedCoreProperties.txt`), such as a zero-width space, a soft hyphen, a Hangul
/// filler or a variation selector, and the blank Braille pattern. Within a text that shows something, they are valid.
fn is_invisible(character: char) -> bool {
    character.is_whitespace()
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
        || character == '\u{2800}'
}

/// Returns whether `character` controls a terminal or the layout of text: Unicode's category Cc, its line and
/// paragraph separators, and its property `Bidi_Control`.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the content of a character class that matches the characters for which `matches` is true.
fn class(matches: impl Fn(char) -> bool) -> String {
    let mut ranges: Vec<(char, char)> = Vec::new();
    let mut previous = None;
    for character in '\0'..=char::MAX {
        if matches(character) {
            match ranges.last_mut() {
                Some((_, last)) if Some(*last) == previous => *last = character,
                _ => ranges.push((character, character)),
            }
        }
        previous = Some(character);
    }
    ranges.into_iter().map(|(first, last)| format!("{}-{}", escaped(first), escaped(last))).collect()
}

/// Writes a character as every dialect of regular expressions reads it. Those beyond four hexadecimal digits have no
/// common escape.
fn escaped(character: char) -> String {
    match u32::from(character) {
        code @ ..=0xffff => format!("\\u{code:04x}"),
        _ => character.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use jsonschema::Validator;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    static VALIDATOR: LazyLock<Validator> =
        LazyLock::new(|| jsonschema::validator_for(&json!({ "pattern": *PATTERN })).unwrap());

    proptest! {
        #[test]
        fn the_pattern_matches_exactly_the_valid_text(
            text in "[a \\t\u{ad}\u{200b}\u{2800}\u{3164}\u{feff}\u{e0001}\u{1f600}\n\u{7f}\u{2028}\u{2066}]{0,5}|\\PC{0,5}",
        ) {
            prop_assert_eq!(VALIDATOR.is_valid(&json!(text)), parse_text(&text, 100).is_ok(), "{:?}", text);
        }
    }

    #[test]
    fn the_pattern_knows_each_character() {
        for character in '\0'..=char::MAX {
            let text = character.to_string();
            assert_eq!(VALIDATOR.is_valid(&json!(text)), parse_text(&text, 1).is_ok(), "{character:?}");
        }
    }
}
