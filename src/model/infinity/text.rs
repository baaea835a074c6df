//! Prompts as the text encoder reads them, and the places of learned vectors in them.
//!
//! A subject's word is one token to the encoder, whose row its vocabulary has to spare; what comes out there is replaced by the
//! subject's vectors (arXiv 2504.02612, section 3.1).

use super::t5::T5;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::ops::Range;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use tokenizers::{AddedToken, Tokenizer};

/// What stands for a subject's word in what the tokenizer is given.
const PLACEHOLDER: &str = "<placeholder>";
/// The most tokens of a text, the last one included, as upstream cuts them.
const MOST: usize = 512;

/// A stretch of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// Rows among all learned vectors.
    Vectors(Range<u32>),
}

/// A text as the encoder has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Prompt {
    /// Token ids, `</s>` behind.
    pub ids: Vec<u32>,
    /// Which of them give way to learned vectors, in order.
    pub vectors: Vec<(usize, Range<u32>)>,
}

/// The tokenizer of the text encoder.
pub struct Text {
    tokenizer: Tokenizer,
    placeholder: u32,
    file: PathBuf,
}

impl Text {
    /// `rows` are those of the encoder's vocabulary.
    pub fn from_bytes(bytes: &[u8], file: &Path, rows: usize) -> Result<Self> {
        let bad = |e: String| Error::bad_format(file, e);
        let mut tokenizer =
            caught(|| Tokenizer::from_bytes(bytes)).map_err(|e| bad(format!("not a tokenizer: {e}")))?;
        // Texts run alone and unpadded, and are cut below.
        tokenizer.with_padding(None);
        caught(|| tokenizer.with_truncation(None).map(|_| ())).map_err(bad)?;
        let words = tokenizer.get_vocab_size(true);
        if words > rows {
            return Err(bad(format!(
                "knows {words} tokens, the text encoder has rows for {rows}; they are not of the same model"
            )));
        }
        tokenizer.add_special_tokens(&[AddedToken::from(PLACEHOLDER, true)]);
        let own = tokenizer.token_to_id(PLACEHOLDER);
        // A vocabulary without a row to spare lends that of words it does not know.
        let spare = own.filter(|&id| (id as usize) < rows).or(tokenizer.token_to_id("<unk>"));
        let placeholder = spare.ok_or_else(|| bad("has neither a row to spare nor <unk>".into()))?;
        Ok(Text { tokenizer, placeholder, file: file.to_owned() })
    }

    /// The tokens of a prompt; a longer one is cut, as the published code does it.
    pub fn prompt(&self, parts: &[Part]) -> Result<Prompt> {
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(part) => text += part,
                Part::Vectors(_) if text.is_empty() || text.ends_with(char::is_whitespace) => text += PLACEHOLDER,
                Part::Vectors(_) => text += &format!(" {PLACEHOLDER}"),
            }
        }
        let encoding = caught(|| self.tokenizer.encode_fast(text.as_str(), true)).map_err(|e| {
            let start: String = text.chars().take(100).collect();
            Error::bad_format(&self.file, format!("the tokenizer failed on {start:?}: {e}"))
        })?;
        let own = self.tokenizer.token_to_id(PLACEHOLDER);
        let mut ids = encoding.get_ids().to_vec();
        if let (true, Some(&end)) = (ids.len() > MOST, ids.last()) {
            ids.truncate(MOST - 1);
            ids.push(end);
        }
        let mut rows = parts.iter().filter_map(|p| match p {
            Part::Vectors(rows) => Some(rows.clone()),
            Part::Text(_) => None,
        });
        let mut vectors = Vec::new();
        for (place, id) in ids.iter_mut().enumerate().filter(|(_, id)| Some(**id) == own) {
            *id = self.placeholder;
            let message =
                format!("the prompt itself holds {PLACEHOLDER}, which stands for a subject's word; leave it out");
            vectors.push((place, rows.next().ok_or_else(|| Error::invalid("prompt", message))?));
        }
        Ok(Prompt { ids, vectors })
    }

    /// The ids of an ordinary text, nothing behind it. None if a part of it is not known.
    pub fn known(&self, text: &str) -> Result<Option<Vec<u32>>> {
        let encoding = caught(|| self.tokenizer.encode_fast(text.trim(), false))
            .map_err(|e| Error::bad_format(&self.file, format!("the tokenizer failed on {text:?}: {e}")))?;
        let ids = encoding.get_ids().to_vec();
        let unknown = self.tokenizer.token_to_id("<unk>");
        Ok((!ids.is_empty() && !ids.iter().any(|&id| Some(id) == unknown)).then_some(ids))
    }
}

/// Calls the tokenizers crate, which panics on some malformed files.
fn caught<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("its parts contradict each other".into()),
    }
}

impl Prompt {
    /// Of the encoder's features [tokens, width] those that count, with the learned vectors in their places: [n, width].
    pub fn placed(&self, features: &Tensor, vectors: Option<&Tensor>) -> Result<Tensor> {
        let (mut parts, mut at) = (Vec::new(), 0);
        for (place, rows) in &self.vectors {
            if *place > at {
                parts.push(features.narrow(0, at, place - at)?);
            }
            let vectors =
                vectors.ok_or_else(|| Error::internal("a prompt with learned vectors, and none are there"))?;
            let own = vectors.narrow(0, rows.start as usize, rows.len())?;
            parts.push(own.to_device(features.device())?.to_dtype(DType::F32)?);
            at = place + 1;
        }
        if at < self.ids.len() {
            parts.push(features.narrow(0, at, self.ids.len() - at)?);
        }
        match parts.len() {
            1 => Ok(parts.swap_remove(0)),
            _ => Ok(Tensor::cat(&parts, 0)?),
        }
    }

    /// Adds what the gradient of [`Prompt::placed`] has for the learned vectors to `sum` [N, width].
    pub fn gathered(&self, gradient: &Tensor, sum: Tensor) -> Result<Tensor> {
        let (mut at, mut from, mut sum) = (0, 0, sum);
        for (place, rows) in &self.vectors {
            from += place - at;
            let own = gradient.narrow(0, from, rows.len())?;
            let ids = Tensor::arange(rows.start, rows.end, sum.device())?;
            sum = sum.index_add(&ids, &own.to_device(sum.device())?, 0)?;
            from += rows.len();
            at = place + 1;
        }
        Ok(sum)
    }

    /// Features behind which there is nothing left to read.
    pub fn length(&self) -> usize {
        self.ids.len() - self.vectors.len() + self.vectors.iter().map(|(_, rows)| rows.len()).sum::<usize>()
    }

    /// The features as the encoder gives them, or of a text that was read before.
    pub fn features(&self, encoder: &T5) -> Result<Tensor> {
        encoder.forward(&self.ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn vectors_take_the_place_of_their_token_and_give_their_gradient_back() {
        let prompt = Prompt { ids: vec![4, 9, 5, 9, 1], vectors: vec![(1, 0..2), (3, 2..3)] };
        let rows =
            |from: f32, n: usize| Tensor::arange(from, from + n as f32, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
        let placed = prompt.placed(&rows(0.0, 5), Some(&rows(10.0, 3))).unwrap();
        assert_eq!(placed.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0, 10.0, 11.0, 2.0, 12.0, 4.0]);
        assert_eq!(prompt.length(), 6);
        let sum = prompt.gathered(&placed, rows(100.0, 3)).unwrap();
        assert_eq!(sum.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [110.0, 112.0, 114.0]);
    }
}
