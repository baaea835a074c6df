//! What went wrong, as an object of its own: no thread-local "last error".

use super::failure::Failure;
use super::handle::{self, Noun};
use super::status::*;
use std::ffi::{c_char, CString};
use std::sync::Arc;

/// What went wrong: status, message, detail. Builder handle; free it with `sitter_error_free`.
pub struct sitter_error {
    _opaque: [u8; 0],
}

impl Noun for sitter_error {
    const NAME: &'static str = "sitter_error";
    type Value = Arc<ErrorText>;
}

pub struct ErrorText {
    status: sitter_status,
    message: CString,
    detail: CString,
}

/// A failure as a handle that the host owns.
pub(super) fn handle_of(failure: Failure) -> *mut sitter_error {
    // A message is one line of text; NUL would end it early.
    let line = |s: &str| CString::new(s.replace('\0', "\u{fffd}").replace('\n', " ")).unwrap_or_default();
    let detail = CString::new(failure.detail.replace('\0', "\u{fffd}")).unwrap_or_default();
    handle::new(Arc::new(ErrorText { status: failure.status, message: line(&failure.message), detail }))
}

/// The status of an error; SITTER_OK for NULL. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_error_status(error: *const sitter_error) -> sitter_status {
    handle::peek(error).map_or(SITTER_OK, |e| e.status)
}

/// One line of UTF-8 for people, which names the file, tensor or field, what was expected and what was found. Empty for
/// NULL, never NULL. Valid until the error is freed. The wording is not part of the ABI. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_error_message(error: *const sitter_error) -> *const c_char {
    handle::peek(error).map_or(c"".as_ptr(), |e| e.message.as_ptr())
}

/// The chain of causes, a line each, often empty. Never NULL. Valid until the error is freed. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_error_detail(error: *const sitter_error) -> *const c_char {
    handle::peek(error).map_or(c"".as_ptr(), |e| e.detail.as_ptr())
}

/// Frees an error. NULL does nothing. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_error_free(error: *mut sitter_error) {
    handle::free(error);
}
