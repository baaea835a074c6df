//! A call that failed.

use super::status::{self, *};
use crate::Error;

/// A failed call, on its way to the host.
#[derive(Debug)]
pub struct Failure {
    pub status: sitter_status,
    pub message: String,
    /// The chain of causes, one per line.
    pub detail: String,
}

impl Failure {
    pub fn new(status: sitter_status, message: impl Into<String>) -> Self {
        Failure { status, message: message.into(), detail: String::new() }
    }

    pub fn invalid(field: &str, message: impl std::fmt::Display) -> Self {
        Failure::new(SITTER_E_INVALID_ARGUMENT, format!("{field}: {message}"))
    }

    pub fn null(what: &str) -> Self {
        Failure::new(SITTER_E_NULL_POINTER, format!("{what} is NULL"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(&error);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Failure { status: status::of(&error), message: error.to_string(), detail: causes.join("\n") }
    }
}
