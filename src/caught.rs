//! Threads whose panics are caught, and so need not be printed.

use std::cell::Cell;

thread_local! {
    /// Whether a panic of this thread is caught and told as an error.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread, to its end, as one whose panics are caught where its result is waited for.
pub fn quietly() {
    CAUGHT.set(true);
}

/// Marks this thread or not; returns whether it was.
pub fn replace(caught: bool) -> bool {
    CAUGHT.replace(caught)
}

/// Whether this thread is marked; not so while it ends.
pub fn here() -> bool {
    CAUGHT.try_with(Cell::get).unwrap_or(false)
}
