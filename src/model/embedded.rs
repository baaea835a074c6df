//! The small models inside the library.

use crate::files::Files;
use crate::{Error, Result};
use std::path::Path;

/// The name of the one that is always there.
pub const EMBEDDED: &str = "embedded:";
/// The name of the one that comes with the cargo feature `embedded-infinity`.
pub const EMBEDDED_INFINITY: &str = "embedded:infinity";

/// Name and files.
type Inside = (&'static str, &'static [(&'static str, &'static [u8])]);

/// All that this build has.
const MODELS: &[Inside] = &[
    (EMBEDDED, sitter_embedded::FILES),
    #[cfg(feature = "embedded-infinity")]
    (EMBEDDED_INFINITY, sitter_embedded_infinity::FILES),
];

/// The files of the model that `path` names; none if that is not the name of one inside.
pub fn files(path: &Path) -> Result<Option<Files>> {
    let Some(name) = path.to_str() else { return Ok(None) };
    if let Some((name, files)) = MODELS.iter().find(|(inside, _)| *inside == name) {
        return Ok(Some(Files::Embedded(name, files)));
    }
    let meant = name.trim().to_lowercase();
    // A folder may be called so.
    let is_meant = meant.starts_with(EMBEDDED) || meant == EMBEDDED.trim_end_matches(':');
    if !is_meant || path.exists() {
        return Ok(None);
    }
    let names: Vec<&str> = MODELS.iter().map(|(inside, _)| *inside).collect();
    let message = match meant == EMBEDDED_INFINITY && !names.contains(&EMBEDDED_INFINITY) {
        true => "is not in this build of the library, which was made without the cargo feature embedded-infinity; the \
                 Python package has it"
            .to_string(),
        false => format!("is not there; the models inside the library are called \"{}\"", names.join("\" and \"")),
    };
    Err(Error::NotFound { path: path.to_owned(), message })
}
