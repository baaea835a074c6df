//! Strings and paths from C: UTF-8, NUL-terminated, copied.

use super::failure::Failure;
use std::ffi::{c_char, CStr};

/// A string that may not be NULL.
pub fn required(pointer: *const c_char, name: &str) -> Result<String, Failure> {
    optional(pointer, name)?.ok_or_else(|| Failure::null(name))
}

/// A string, or None for NULL.
pub fn optional(pointer: *const c_char, name: &str) -> Result<Option<String>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the host promises a NUL-terminated string.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    match bytes.to_str() {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(e) => Err(Failure::invalid(name, format!("not UTF-8 at byte {}", e.valid_up_to()))),
    }
}

/// `count` strings, none of them NULL.
pub fn list(pointer: *const *const c_char, count: usize, name: &str) -> Result<Vec<String>, Failure> {
    let pointers = super::buffer::array(pointer, count, name)?;
    pointers.into_iter().enumerate().map(|(i, p)| required(p, &format!("{name}[{i}]"))).collect()
}
