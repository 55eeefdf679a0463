//! Panics of a library that are an answer, and no fault of the program.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static IS_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Returns what `read` returns, or `None` when it panics, which is not logged. The accessors of the Kafka client panic on
/// names and metadata that are not UTF-8.
pub(crate) fn unless_panics<T>(read: impl FnOnce() -> T) -> Option<T> {
    let before = IS_EXPECTED.replace(true);
    // A reader changes nothing that could be left half-way.
    let result = catch_unwind(AssertUnwindSafe(read));
    IS_EXPECTED.set(before);
    result.ok()
}

/// Whether a panic of this thread is the answer to [`unless_panics`].
pub(crate) fn is_expected() -> bool {
    IS_EXPECTED.get()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "panics are what is tested")]

    use super::*;

    #[test]
    fn only_a_panic_of_the_call_itself_is_expected() {
        assert_eq!(unless_panics(is_expected), Some(true));
        assert_eq!(unless_panics(|| -> bool { panic!("not UTF-8") }), None);
        assert!(!is_expected());
    }
}
