//! What a model's `sitter.json` recommends.

use super::files::Files;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::{json, Value};
use std::path::PathBuf;

/// The content of `sitter.json`.
#[derive(Clone)]
pub struct Recommended {
    file: PathBuf,
    /// An object; empty if there is no such file.
    value: Value,
}

impl Recommended {
    pub(super) fn read(files: &Files) -> Result<Self> {
        let file = files.path("sitter.json");
        let value = match files.exists("sitter.json") {
            false => json!({}),
            true => serde_json::from_str(&files.text("sitter.json")?)
                .map_err(|e| Error::bad_format(&file, format!("not JSON: {e}")))?,
        };
        Ok(Recommended { file, value })
    }

    /// `defaults` with the values that are given under `section`.
    pub fn over<T: Serialize + DeserializeOwned>(&self, section: &str, defaults: &T) -> Result<T> {
        let wrong = |e: String| Error::bad_format(&self.file, format!("section {section}: {e}"));
        let mut value = serde_json::to_value(defaults).map_err(|e| wrong(e.to_string()))?;
        match (self.value.get(section), value.as_object_mut()) {
            (Some(Value::Object(given)), Some(all)) => all.extend(given.clone()),
            (Some(_), _) => return Err(wrong("expected an object".into())),
            _ => {}
        }
        serde_json::from_value(value).map_err(|e| wrong(e.to_string()))
    }
}
