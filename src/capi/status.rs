//! Status codes: what went wrong, as a number that programs can rely on.

use crate::Error;

/// 0 is success; everything else is a failure, unknown values too. Values are never renumbered.
pub type sitter_status = i32;

pub const SITTER_OK: sitter_status = 0;

// The caller's mistakes.
/// A pointer that may not be NULL is NULL.
pub const SITTER_E_NULL_POINTER: sitter_status = 101;
/// A value out of its range, or one that contradicts another. The message names the argument or the option.
pub const SITTER_E_INVALID_ARGUMENT: sitter_status = 102;
/// A handle of another kind, or one that was freed.
pub const SITTER_E_WRONG_HANDLE: sitter_status = 103;
/// The object is not ready for it, or has been used up: a run serves one call.
pub const SITTER_E_INVALID_STATE: sitter_status = 104;
/// The buffer is smaller than what was asked for; the size that is needed was written.
pub const SITTER_E_BUFFER_TOO_SMALL: sitter_status = 105;
/// Work cannot be started from inside a callback.
pub const SITTER_E_REENTRANT: sitter_status = 106;
/// A subject was trained on another model.
pub const SITTER_E_WRONG_MODEL: sitter_status = 107;

// The environment.
/// The system refused to read or write.
pub const SITTER_E_IO: sitter_status = 201;
/// A file or folder is not there.
pub const SITTER_E_NOT_FOUND: sitter_status = 202;
/// Not enough memory.
pub const SITTER_E_RESOURCE_EXHAUSTED: sitter_status = 203;
/// The device failed or does not exist.
pub const SITTER_E_DEVICE: sitter_status = 204;

// The data.
/// A file is not what its name says: truncated, malformed, incomplete.
pub const SITTER_E_BAD_FORMAT: sitter_status = 301;
/// A model of a family, or with a feature, that this library does not know.
pub const SITTER_E_UNSUPPORTED_MODEL: sitter_status = 302;
/// A tensor is missing or has another shape or type than the configuration implies.
pub const SITTER_E_SHAPE_MISMATCH: sitter_status = 303;
/// Well-formed data with impossible numbers in it.
pub const SITTER_E_CORRUPT: sitter_status = 304;

// Control.
/// The run was cancelled.
pub const SITTER_E_CANCELLED: sitter_status = 401;

// Capability.
/// This build or this machine cannot do it.
pub const SITTER_E_NOT_SUPPORTED: sitter_status = 501;
/// The library is too old, or too new, for this host.
pub const SITTER_E_ABI_MISMATCH: sitter_status = 502;
/// The object belongs to the process that this one was forked from.
pub const SITTER_E_FORKED: sitter_status = 503;

// Ours.
/// A defect of this library, or an error of the tensor library below it.
pub const SITTER_E_INTERNAL: sitter_status = 901;
/// A panic was caught at the boundary: a defect of this library. Nothing was left half done.
pub const SITTER_E_PANIC: sitter_status = 902;

/// The status of an error.
pub(super) fn of(error: &Error) -> sitter_status {
    match error {
        Error::InvalidArgument { .. } => SITTER_E_INVALID_ARGUMENT,
        Error::NotFound { .. } => SITTER_E_NOT_FOUND,
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::OutOfMemory => SITTER_E_RESOURCE_EXHAUSTED,
        Error::Io { .. } => SITTER_E_IO,
        Error::BadFormat { .. } => SITTER_E_BAD_FORMAT,
        Error::Tensor { .. } => SITTER_E_SHAPE_MISMATCH,
        Error::Corrupt { .. } | Error::Overflow { .. } => SITTER_E_CORRUPT,
        Error::UnsupportedModel { .. } => SITTER_E_UNSUPPORTED_MODEL,
        Error::WrongModel { .. } => SITTER_E_WRONG_MODEL,
        Error::NotSupported { .. } => SITTER_E_NOT_SUPPORTED,
        Error::Device { .. } => SITTER_E_DEVICE,
        Error::OutOfMemory { .. } | Error::NoMemory { .. } | Error::DeviceFull { .. } => SITTER_E_RESOURCE_EXHAUSTED,
        Error::Cancelled => SITTER_E_CANCELLED,
        Error::Internal { .. } => SITTER_E_INTERNAL,
    }
}

/// The name of a status.
pub(super) fn name(status: sitter_status) -> &'static std::ffi::CStr {
    match status {
        SITTER_OK => c"SITTER_OK",
        SITTER_E_NULL_POINTER => c"SITTER_E_NULL_POINTER",
        SITTER_E_INVALID_ARGUMENT => c"SITTER_E_INVALID_ARGUMENT",
        SITTER_E_WRONG_HANDLE => c"SITTER_E_WRONG_HANDLE",
        SITTER_E_INVALID_STATE => c"SITTER_E_INVALID_STATE",
        SITTER_E_BUFFER_TOO_SMALL => c"SITTER_E_BUFFER_TOO_SMALL",
        SITTER_E_REENTRANT => c"SITTER_E_REENTRANT",
        SITTER_E_WRONG_MODEL => c"SITTER_E_WRONG_MODEL",
        SITTER_E_IO => c"SITTER_E_IO",
        SITTER_E_NOT_FOUND => c"SITTER_E_NOT_FOUND",
        SITTER_E_RESOURCE_EXHAUSTED => c"SITTER_E_RESOURCE_EXHAUSTED",
        SITTER_E_DEVICE => c"SITTER_E_DEVICE",
        SITTER_E_BAD_FORMAT => c"SITTER_E_BAD_FORMAT",
        SITTER_E_UNSUPPORTED_MODEL => c"SITTER_E_UNSUPPORTED_MODEL",
        SITTER_E_SHAPE_MISMATCH => c"SITTER_E_SHAPE_MISMATCH",
        SITTER_E_CORRUPT => c"SITTER_E_CORRUPT",
        SITTER_E_CANCELLED => c"SITTER_E_CANCELLED",
        SITTER_E_NOT_SUPPORTED => c"SITTER_E_NOT_SUPPORTED",
        SITTER_E_ABI_MISMATCH => c"SITTER_E_ABI_MISMATCH",
        SITTER_E_FORKED => c"SITTER_E_FORKED",
        SITTER_E_INTERNAL => c"SITTER_E_INTERNAL",
        SITTER_E_PANIC => c"SITTER_E_PANIC",
        _ => c"unknown status",
    }
}
