//! What this library is.

use super::boundary::guard;
use super::buffer::copy_text;
use super::error::sitter_error;
use super::failure::Failure;
use super::status::{self, *};
use super::text;
use std::ffi::{c_char, CStr};

/// Raised when a host would have to change; part of the library's file name.
pub const SITTER_ABI_MAJOR: u32 = 1;
/// Raised by each release that adds something.
pub const SITTER_ABI_MINOR: u32 = 1;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
const BUILD_INFO: &str = concat!(
    "{\"version\": \"",
    env!("CARGO_PKG_VERSION"),
    "\", \"target\": \"",
    env!("SITTER_TARGET"),
    "\", \"profile\": \"",
    env!("SITTER_PROFILE"),
    "\", \"compiler\": \"",
    env!("SITTER_RUSTC"),
    "\", \"commit\": \"",
    env!("SITTER_COMMIT"),
    "\"}\0"
);

fn terminated(text: &'static str) -> *const c_char {
    CStr::from_bytes_with_nul(text.as_bytes()).unwrap_or_default().as_ptr()
}

/// The library's ABI version, (major << 16) | minor. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_abi_version() -> u32 {
    SITTER_ABI_MAJOR << 16 | SITTER_ABI_MINOR
}

/// Succeeds if the library serves a host compiled for ABI `major`.`minor`: pass SITTER_ABI_MAJOR and SITTER_ABI_MINOR, first
/// thing. Any thread. SITTER_E_ABI_MISMATCH. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_require_abi(major: u32, minor: u32, err: *mut *mut sitter_error) -> sitter_status {
    guard(err, || {
        if major == SITTER_ABI_MAJOR && SITTER_ABI_MINOR.checked_sub(minor).is_some() {
            return Ok(());
        }
        let message = format!(
            "this program needs sitter ABI {major}.{minor}; the library found is {} with ABI {SITTER_ABI_MAJOR}.{SITTER_ABI_MINOR}",
            env!("CARGO_PKG_VERSION"),
        );
        Err(Failure::new(SITTER_E_ABI_MISMATCH, message))
    })
}

/// The package version, for people: "0.1.0". Never NULL, valid for ever. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_version_string() -> *const c_char {
    terminated(VERSION)
}

/// How the library was built, as a JSON object: version, target, profile, compiler, commit. Never NULL, valid for ever. Any
/// thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_build_info_json() -> *const c_char {
    terminated(BUILD_INFO)
}

/// 1 if this build has a feature, 0 if not or if it is unknown: "cuda", "cudnn", "embedded_model", "embedded_infinity", "evaluator".
/// NULL gives 0. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_has_feature(name: *const c_char) -> i32 {
    match text::optional(name, "name") {
        Ok(Some(name)) => match name.as_str() {
            "embedded_model" | "evaluator" => 1,
            "embedded_infinity" => i32::from(cfg!(feature = "embedded-infinity")),
            "cuda" => i32::from(cfg!(feature = "cuda")),
            "cudnn" => i32::from(cfg!(feature = "cudnn")),
            "fake_model" => i32::from(cfg!(debug_assertions)),
            _ => 0,
        },
        _ => 0,
    }
}

/// The name of a status, "SITTER_OK"; for values this library does not know, "unknown status". Never NULL, valid for ever. Any
/// thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_status_name(status: sitter_status) -> *const c_char {
    status::name(status).as_ptr()
}

/// The devices that models can be opened on, as a JSON array of objects: name, hardware, memory_bytes, memory_free_bytes (null
/// where it is not known). Copies it to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks for the size, in `needed`.
/// SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.0.
#[no_mangle]
pub unsafe extern "C" fn sitter_devices_json(
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut sitter_error,
) -> sitter_status {
    guard(err, || {
        let devices = crate::device::devices();
        let mut list = serde_json::to_string(&devices).map_err(|e| Failure::new(SITTER_E_INTERNAL, e.to_string()))?;
        // Free memory changes between the call that asks for the size and the next; the size does not.
        let digits = |bytes: Option<u64>| bytes.map_or(0, |b| b.to_string().len());
        let room = devices.iter().map(|d| digits(d.memory_bytes).saturating_sub(digits(d.memory_free_bytes))).sum();
        list.extend(std::iter::repeat_n(' ', room));
        copy_text(&list, buffer, capacity, needed)
    })
}
