//! The text tokenizer: words to token ids, and token ids by name.

use crate::{Error, Result};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};

/// The text tokenizer of a model, read from `tokenizer.json`.
pub struct Text {
    tokenizer: tokenizers::Tokenizer,
    file: PathBuf,
}

impl Text {
    /// `file` is named in errors.
    pub fn from_bytes(bytes: &[u8], file: &Path) -> Result<Self> {
        let tokenizer = caught(|| tokenizers::Tokenizer::from_bytes(bytes))
            .map_err(|e| Error::bad_format(file, format!("not a tokenizer: {e}")))?;
        Ok(Text { tokenizer, file: file.to_owned() })
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The id of a token by its exact name.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.tokenizer.token_to_id(name)
    }

    /// All names with their ids.
    pub fn vocabulary(&self) -> impl Iterator<Item = (String, u32)> {
        self.tokenizer.get_vocab(true).into_iter()
    }

    /// Token ids of a text; nothing is put in front or behind.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = caught(|| self.tokenizer.encode_fast(text, false)).map_err(|e| {
            let start: String = text.chars().take(100).collect();
            Error::bad_format(&self.file, format!("the tokenizer failed on {start:?}: {e}"))
        })?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// Calls the tokenizers crate, which panics on some malformed files: version 0.22.2 on every mistake inside a decoder.
fn caught<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("its parts contradict each other".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_on_which_the_tokenizers_crate_panics_is_an_error() {
        let text = r#"{"version": "1.0", "decoder": {"type": "ByteLevel",, "model": {}}"#;
        let error = Text::from_bytes(text.as_bytes(), Path::new("tokenizer.json")).err().unwrap();
        assert!(matches!(error, Error::BadFormat { .. }) && error.to_string().contains("tokenizer.json"), "{error}");
    }
}
