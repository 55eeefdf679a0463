//! Decides which text is valid, and describes it as a regular expression.

use std::sync::LazyLock;

use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;

/// The classes of characters that make up a text.
struct Classes {
    space: String,
    valid: String,
    /// Valid characters that are not trimmed.
    edge: String,
    visible: String,
}

static CLASSES: LazyLock<Classes> = LazyLock::new(|| Classes {
    space: format!("[{}]", class(char::is_whitespace)),
    valid: format!("[^{}]", class(is_control)),
    edge: format!("[^{}]", class(|character| is_control(character) || character.is_whitespace())),
    visible: format!("[^{}]", class(|character| is_control(character) || is_invisible(character))),
});

/// Returns the regular expression (ECMA 262, as in JSON Schema) of the text that [`parse_text`] accepts. A `maxLength`
/// would count the white space that it trims.
pub(super) fn pattern(max_chars: usize) -> String {
    let Classes { space, valid, edge, visible } = &*CLASSES;
    let between = max_chars.saturating_sub(2);
    format!("^{space}*(?={valid}*{visible}){edge}(?:{valid}{{0,{between}}}{edge})?{space}*$")
}

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

    const MAX_CHARS: usize = 4;

    static VALIDATOR: LazyLock<Validator> =
        LazyLock::new(|| jsonschema::validator_for(&json!({ "pattern": pattern(MAX_CHARS) })).unwrap());

    proptest! {
        #[test]
        fn the_pattern_matches_exactly_the_valid_text(
            text in "[a \\t\u{ad}\u{200b}\u{2800}\u{3164}\u{feff}\u{e0001}\u{1f600}\n\u{7f}\u{2028}\u{2066}]{0,8}|\\PC{0,6}",
        ) {
            prop_assert_eq!(VALIDATOR.is_valid(&json!(text)), parse_text(&text, MAX_CHARS).is_ok(), "{:?}", text);
        }
    }

    #[test]
    fn the_pattern_knows_each_character() {
        for character in '\0'..=char::MAX {
            let text = character.to_string();
            assert_eq!(
                VALIDATOR.is_valid(&json!(text)),
                parse_text(&text, MAX_CHARS).is_ok(),
                "{character:?}"
            );
        }
    }
}
