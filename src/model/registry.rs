//! The families that this library knows: the only list of them.

use super::family::Entry;
use super::{infinity, janus, lumina};
use crate::files::Files;
use crate::{Error, Result};
use std::sync::{Mutex, PoisonError};

static FAMILIES: &[&Entry] = &[&lumina::ENTRY, &janus::ENTRY, &infinity::ENTRY];

/// Families that a program brought along.
static ADDED: Mutex<Vec<&'static Entry>> = Mutex::new(Vec::new());

/// Adds a family that is not part of this library: from now on folders that it claims open as others do. Those of the library
/// are asked first.
pub fn add_family(entry: &'static Entry) {
    let mut added = ADDED.lock().unwrap_or_else(PoisonError::into_inner);
    if !added.iter().any(|known| std::ptr::eq(*known, entry)) {
        added.push(entry);
    }
}

fn known() -> Vec<&'static Entry> {
    let added = ADDED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    FAMILIES.iter().copied().chain(added).collect()
}

/// What the families are called.
pub(super) fn names() -> Vec<&'static str> {
    known().into_iter().map(|family| family.name).collect()
}

/// The roles of weights that some family has.
pub(crate) fn roles() -> Vec<&'static str> {
    let mut roles: Vec<&str> = Vec::new();
    for role in known().into_iter().flat_map(|family| family.roles) {
        if !roles.contains(role) {
            roles.push(role);
        }
    }
    roles
}

/// The family that the files are of.
pub(super) fn family_of(files: &Files) -> Result<&'static Entry> {
    let known = known();
    match known.iter().find(|family| (family.claims)(files)) {
        Some(family) => Ok(family),
        None => Err(unknown(files, &known)),
    }
}

/// Why no family claims the files.
fn unknown(files: &Files, known: &[&Entry]) -> Error {
    let file = files.path("config.json");
    let signs = known.iter().map(|f| f.sign).collect::<Vec<_>>().join(", ");
    let text = match files.text("config.json") {
        Ok(text) => text,
        Err(e) => return e,
    };
    let config: serde_json::Value = match serde_json::from_str(&text) {
        Ok(config) => config,
        Err(e) => return Error::bad_format(file, format!("not a model configuration: {e}")),
    };
    match config.get("model_type") {
        Some(serde_json::Value::String(other)) => {
            let message = format!("model_type is \"{other}\"; this library knows {signs}");
            Error::UnsupportedModel { file, message }
        }
        Some(other) => Error::bad_format(file, format!("field model_type is {other}; expected one of {signs}")),
        None => Error::bad_format(file, format!("field model_type is missing; expected one of {signs}")),
    }
}
