//! The text tokenizer: words to token ids, and token ids by name.

use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The text tokenizer of a model, read from `tokenizer.json`.
pub struct Text {
    tokenizer: tokenizers::Tokenizer,
    file: PathBuf,
}

impl Text {
    /// `file` is named in errors.
    pub fn from_bytes(bytes: &[u8], file: &Path) -> Result<Self> {
        let tokenizer = tokenizers::Tokenizer::from_bytes(bytes)
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

    /// The id of a token that the layout cannot do without.
    pub fn need(&self, name: &str, role: &str) -> Result<u32> {
        self.id(name).ok_or_else(|| {
            Error::bad_format(
                &self.file,
                format!("the vocabulary has no token {name} ({role}); is this a Lumina-mGPT tokenizer?"),
            )
        })
    }

    /// All names with their ids.
    pub fn vocabulary(&self) -> impl Iterator<Item = (String, u32)> {
        self.tokenizer.get_vocab(true).into_iter()
    }

    /// Token ids of a text; nothing is put in front or behind.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|e| Error::bad_format(&self.file, format!("the tokenizer failed on {text:?}: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }
}
