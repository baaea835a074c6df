//! What every exported function passes through.

use super::error::{handle_of, sitter_error};
use super::failure::Failure;
use super::status::*;
use crate::caught;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

/// With `panic = "abort"` nothing here would catch anything.
const _: () = assert!(cfg!(panic = "unwind"));

thread_local! {
    /// How many of our callbacks this thread is inside of.
    static IN_CALLBACK: Cell<u32> = const { Cell::new(0) };
    /// Where the last guarded panic of this thread happened.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs the body of a fallible function: turns errors and panics into a status and an error object.
pub fn guard(err: *mut *mut sitter_error, body: impl FnOnce() -> Result<(), Failure>) -> sitter_status {
    if !err.is_null() {
        // SAFETY: the host promises that a pointer which is not NULL can be written to.
        unsafe { err.write(std::ptr::null_mut()) };
    }
    let failure = match catch(body) {
        Ok(()) => return SITTER_OK,
        Err(failure) => failure,
    };
    let status = failure.status;
    if !err.is_null() {
        // SAFETY: as above.
        unsafe { err.write(handle_of(failure)) };
    }
    status
}

/// Runs work on whatever thread, and gives a panic back as a failure.
pub fn catch<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    install_hook();
    let outer = caught::replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    caught::replace(outer);
    result.unwrap_or_else(|payload| Err(panic_failure(payload)))
}

fn panic_failure(payload: Box<dyn Any + Send>) -> Failure {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "a panic without text",
    };
    let place = PANICKED_AT.take().map_or(String::new(), |place| format!(" at {place}"));
    let failure = match text.starts_with("failed to spawn") {
        // So say the standard library and candle where the system gives no thread.
        true => Failure::new(
            SITTER_E_RESOURCE_EXHAUSTED,
            format!("cannot start threads ({text}); use fewer, or raise the limits of this process"),
        ),
        false => Failure::new(SITTER_E_PANIC, format!("internal error: {text}{place}; please report this")),
    };
    // Dropping a payload may itself panic.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    failure
}

/// Rust prints a panic to stderr even if it is caught. Panics of guarded threads are noted instead, all others go where
/// they went before: a Rust program that uses this crate sees its own.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match caught::here() {
            true => {
                let place = info.location().map(|l| format!("{}:{}", l.file(), l.line()));
                let _ = PANICKED_AT.try_with(|p| p.replace(place));
            }
            false => before(info),
        }));
    });
}

/// Errors inside a callback, where nothing that waits may begin.
pub fn refuse_reentry() -> Result<(), Failure> {
    match IN_CALLBACK.get() {
        0 => Ok(()),
        _ => Err(Failure::new(SITTER_E_REENTRANT, "a callback cannot start work; return from it first")),
    }
}

/// Calls out to the host.
pub fn calling_out<T>(call: impl FnOnce() -> T) -> T {
    IN_CALLBACK.set(IN_CALLBACK.get().saturating_add(1));
    let result = call();
    IN_CALLBACK.set(IN_CALLBACK.get().saturating_sub(1));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_with_its_text_and_place() {
        let failure = catch::<()>(|| panic!("broken {}", 7)).unwrap_err();
        assert_eq!(failure.status, SITTER_E_PANIC);
        assert!(failure.message.contains("broken 7") && failure.message.contains("boundary.rs"), "{}", failure.message);
    }

    #[test]
    fn threads_that_the_system_does_not_give_are_no_defect() {
        let failure =
            catch::<()>(|| panic!("failed to spawn thread: {:?}", std::io::ErrorKind::WouldBlock)).unwrap_err();
        assert_eq!(failure.status, SITTER_E_RESOURCE_EXHAUSTED);
        assert!(failure.message.contains("cannot start threads"), "{}", failure.message);
    }

    #[test]
    fn work_is_refused_inside_a_callback_only() {
        assert!(refuse_reentry().is_ok());
        calling_out(|| assert_eq!(refuse_reentry().unwrap_err().status, SITTER_E_REENTRANT));
        assert!(refuse_reentry().is_ok());
    }
}
