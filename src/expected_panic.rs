//! Catches panics of libraries that external bytes can cause.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs an accessor that panics on bytes that it cannot represent. Returns `None` without logging when it panics.
pub fn catch_expected<T>(read: impl FnOnce() -> T) -> Option<T> {
    EXPECTED.set(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    EXPECTED.set(false);
    result.ok()
}

/// Returns whether [`catch_expected`] catches a panic of this thread; used by the panic hook.
pub fn is_expected() -> bool {
    EXPECTED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::panic, reason = "the test catches it")]
    fn a_panic_is_caught_and_the_next_one_is_not_expected() {
        assert_eq!(catch_expected(|| 1), Some(1));
        assert_eq!(catch_expected(|| panic!("not UTF-8")), None::<()>);
        assert!(!is_expected());
    }
}
