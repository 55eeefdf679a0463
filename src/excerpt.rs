//! Shortens text that may quote input of any length.

/// Marks omitted text.
const ELLIPSIS: &str = " [...] ";

/// Returns `text`, shortened to at most `max_chars` characters by omitting the middle. An error message puts the
/// reason before or after the value that it quotes.
pub fn excerpt(text: &str, max_chars: usize) -> String {
    let Some((cut, _)) = text.char_indices().nth(max_chars) else { return text.to_owned() };
    let kept = max_chars.saturating_sub(ELLIPSIS.len());
    if kept == 0 {
        return text.get(..cut).unwrap_or_default().to_owned();
    }
    let head: String = text.chars().take(kept.div_ceil(2)).collect();
    let start = text.char_indices().rev().take(kept / 2).last().map_or(text.len(), |(start, _)| start);
    head + ELLIPSIS + text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_reason_before_and_after_a_long_value_is_retained() {
        let value = "x".repeat(3_000);
        let text = excerpt(&format!("invalid type: string \"{value}\", expected i32 at line 7"), 1_000);
        assert!(text.starts_with("invalid type: string \"xxx") && text.ends_with("expected i32 at line 7"));
    }

    proptest! {
        #[test]
        fn a_shortened_text_starts_and_ends_as_the_original_does(text in "\\PC{0,60}", max in 0usize..50) {
            let short = excerpt(&text, max);
            prop_assert!(short.chars().count() <= max);
            let whole = text.chars().count() <= max;
            prop_assert_eq!(whole, short == text);
            if !whole && max > ELLIPSIS.len() + 1 {
                let (head, tail) = short.split_at(short.rfind(ELLIPSIS).unwrap());
                prop_assert!(text.starts_with(head));
                prop_assert!(text.ends_with(tail.strip_prefix(ELLIPSIS).unwrap()));
            }
        }
    }
}
