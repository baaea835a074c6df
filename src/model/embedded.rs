//! The small models inside the library.

use crate::files::Files;
use crate::{Error, Result};
use std::path::Path;

/// The name of the one that is always there, of Lumina's kind.
pub const EMBEDDED: &str = "embedded:";
/// The name of the one that comes with the cargo feature `embedded-infinity`, of Infinity's kind.
pub const EMBEDDED_INFINITY: &str = "embedded:infinity";

/// The names of all that this build has.
pub fn names() -> Vec<&'static str> {
    let second = cfg!(feature = "embedded-infinity").then_some(EMBEDDED_INFINITY);
    std::iter::once(EMBEDDED).chain(second).collect()
}

/// The files of the model that `path` names; none if that is not the name of one inside.
pub fn files(path: &Path) -> Result<Option<Files>> {
    let Some(name) = path.to_str() else { return Ok(None) };
    match name {
        EMBEDDED => return Ok(Some(Files::Embedded(EMBEDDED, sitter_embedded::FILES))),
        #[cfg(feature = "embedded-infinity")]
        EMBEDDED_INFINITY => return Ok(Some(Files::Embedded(EMBEDDED_INFINITY, sitter_embedded_infinity::FILES))),
        _ => {}
    }
    let meant = name.trim().to_lowercase();
    let stem = EMBEDDED.trim_end_matches(':');
    // A folder may be called so.
    let is_meant = meant.starts_with(EMBEDDED) || meant == stem;
    if !is_meant || path.exists() {
        return Ok(None);
    }
    let message = match meant == EMBEDDED_INFINITY && !cfg!(feature = "embedded-infinity") {
        true => "is not in this build of the library, which was made without the cargo feature embedded-infinity; the \
                 Python package has it"
            .to_string(),
        false => format!("is not there; the models inside the library are called \"{}\"", names().join("\" and \"")),
    };
    Err(Error::NotFound { path: path.to_owned(), message })
}
