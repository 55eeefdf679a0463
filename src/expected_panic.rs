//! Panics of libraries that bytes from outside can cause, caught where they arise.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs an accessor that panics on bytes that it cannot represent. Returns `None` when it did; nothing is logged then.
pub fn catch_expected<T>(read: impl FnOnce() -> T) -> Option<T> {
    EXPECTED.set(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    EXPECTED.set(false);
    result.ok()
}

/// Whether a panic of this thread is caught by [`catch_expected`], for the panic hook.
pub fn is_expected() -> bool {
    EXPECTED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::panic, reason = "it is what is caught")]
    fn a_panic_is_caught_and_the_next_one_is_not_expected() {
        assert_eq!(catch_expected(|| 1), Some(1));
        assert_eq!(catch_expected(|| panic!("not UTF-8")), None::<()>);
        assert!(!is_expected());
    }
}
