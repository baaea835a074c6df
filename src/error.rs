//! One typed error for the whole crate. Every variant carries what a person needs to mend the cause: which file,
//! which field, what was found, what was expected.

use std::fmt;
use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The caller asked for something impossible; `field` is the argument or option, `message` says what would be right.
    InvalidArgument { field: String, message: String },
    /// A file or folder that is needed is not there; `message` says what needs it and where it comes from.
    NotFound { path: PathBuf, message: String },
    /// The system refused to read or write.
    Io { path: PathBuf, source: std::io::Error },
    /// A file is not what its name says: truncated, malformed, or lacking something it must have.
    BadFormat { file: PathBuf, message: String },
    /// A tensor is missing from a file, or has another shape or dtype than the configuration implies.
    Tensor { file: PathBuf, tensor: String, expected: String, found: String },
    /// The file is well formed but its numbers are not (NaN or infinite weights).
    Corrupt { file: PathBuf, message: String },
    /// Weights are finite, but so large that what is computed with them is not.
    Overflow { message: String },
    /// The model is of a family, or uses a feature, that this library does not know.
    UnsupportedModel { file: PathBuf, message: String },
    /// A subject was made for another model.
    WrongModel { subject: String, model: String },
    /// This build or this machine cannot do it.
    NotSupported { message: String },
    /// The device failed or does not exist.
    Device { message: String },
    /// The device has not the memory that a call would take; nothing was begun. `advice` is the cheapest change that would fit,
    /// if there is one.
    OutOfMemory { what: String, needed: u64, free: u64, advice: Option<String> },
    /// The system does not give the memory that reading a file takes.
    NoMemory { file: PathBuf, bytes: u64 },
    /// A GPU ran out of memory in the middle of a call.
    DeviceFull { message: String },
    /// The run was cancelled by its owner.
    Cancelled,
    /// A defect of this library, or an error of the tensor library below it.
    Internal { message: String },
}

impl Error {
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Error::InvalidArgument { field: field.into(), message: message.into() }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Error::Internal { message: message.into() }
    }

    /// Of a message that cites the file, which may be very long, only the start is kept.
    pub fn bad_format(file: impl AsRef<Path>, message: impl Into<String>) -> Self {
        const LONGEST: usize = 2000;
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(LONGEST) {
            message.truncate(end);
            message.push_str("...");
        }
        Error::BadFormat { file: file.as_ref().to_owned(), message }
    }

    /// An I/O error, told apart: a missing file is [`Error::NotFound`].
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        match source.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound { path, message: "no such file or folder".into() },
            _ => Error::Io { path, source },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::InvalidArgument { field, message } => write!(f, "{field}: {message}"),
            Error::NotFound { path, message } => write!(f, "{}: {message}", path.display()),
            Error::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Error::BadFormat { file, message } => write!(f, "{}: {message}", file.display()),
            Error::Tensor { file, tensor, expected, found } => {
                write!(f, "{}: tensor {tensor}: expected {expected}, found {found}", file.display())
            }
            Error::Corrupt { file, message } => write!(f, "{}: {message}", file.display()),
            Error::Overflow { message } => {
                write!(f, "{message}: weights, though finite, are too large; is the model or the subject damaged?")
            }
            Error::UnsupportedModel { file, message } => write!(f, "{}: {message}", file.display()),
            Error::WrongModel { subject, model } => write!(
                f,
                "the subject was trained on model {subject} and cannot be used with model {model}; open the model it belongs to"
            ),
            Error::NotSupported { message } => f.write_str(message),
            Error::Device { message } => f.write_str(message),
            Error::OutOfMemory { what, needed, free, advice } => {
                let gb = |bytes: &u64| *bytes as f64 / 1e9;
                write!(f, "{what} needs {:.2} GB more memory, {:.2} GB are free", gb(needed), gb(free))?;
                match advice {
                    Some(advice) => write!(f, "; it would fit if you {advice}"),
                    None => f.write_str("; no option makes it fit"),
                }
            }
            Error::NoMemory { file, bytes } => write!(
                f,
                "{}: reading it takes {bytes} bytes of memory, which cannot be had; close other programs, or raise the limit of \
                 this process",
                file.display()
            ),
            Error::DeviceFull { message } => f.write_str(message),
            Error::Cancelled => f.write_str("cancelled"),
            Error::Internal { message } => write!(f, "internal error: {message}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        match without_backtrace(e) {
            candle_core::Error::Cuda(e) => {
                let said = e.to_string();
                // The driver's word and cuBLAS's.
                if said.contains("OUT_OF_MEMORY") || said.contains("ALLOC_FAILED") {
                    let message = format!(
                        "the GPU has too little free memory ({said}); use fewer pictures at once, smaller ones, a smaller \
                         batch_size, or dtype bf16, or close other models and programs"
                    );
                    return Error::DeviceFull { message };
                }
                Error::Device { message: format!("the GPU failed: {said}") }
            }
            e => Error::Internal { message: e.to_string() },
        }
    }
}

/// The value of an option by its name, or an error that lists the names there are.
pub(crate) fn by_name<T: Copy, const N: usize>(
    option: &str,
    name: &str,
    all: [T; N],
    name_of: fn(T) -> &'static str,
) -> Result<T> {
    all.into_iter().find(|&value| name_of(value) == name).ok_or_else(|| {
        let known = all.map(name_of).join(", ");
        Error::invalid(option, format!("\"{name}\" is not one of {known}"))
    })
}

/// candle wraps errors in the place they come from, which is for its developers.
pub(crate) fn without_backtrace(mut error: candle_core::Error) -> candle_core::Error {
    while let candle_core::Error::WithBacktrace { inner, .. } = error {
        error = *inner;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_cites_a_long_text_is_cut() {
        let said = Error::bad_format("x", "\u{1f98a}".repeat(1 << 20)).to_string();
        assert!(said.starts_with("x: \u{1f98a}") && said.ends_with("...") && said.len() < 10_000);
    }

    #[test]
    fn a_gpu_that_is_full_is_told_from_one_that_fails() {
        let from = |said: &str| Error::from(candle_core::Error::Cuda(said.into()).bt());
        assert!(matches!(from("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"...\")"), Error::DeviceFull { .. }));
        assert!(matches!(from("CublasError(CUBLAS_STATUS_ALLOC_FAILED)"), Error::DeviceFull { .. }));
        let failed = from("DriverError(CUDA_ERROR_LAUNCH_FAILED, \"...\")");
        assert!(matches!(failed, Error::Device { .. }) && !failed.to_string().contains('\n'), "{failed}");
    }
}
