//! Prompts as the text encoder reads them, and the places of learned vectors in them.
//!
//! A subject's word is one token to the encoder, whose row its vocabulary has to spare; what comes out there is replaced by the
//! subject's vectors (arXiv 2504.02612, section 3.1).

use crate::model::family::Piece;
use crate::model::text;
use crate::model::words::{self, Stretch, Word};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::ops::Range;

/// What stands for a subject's word in what the tokenizer is given.
const PLACEHOLDER: &str = "<placeholder>";
/// The most tokens of a text, the last one included, as upstream cuts them.
const MOST: usize = 512;

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
    text: text::Text,
    /// Rows of the encoder's vocabulary.
    rows: usize,
    /// The id of [`PLACEHOLDER`] as the tokenizer has it, and the row that the encoder reads for it.
    placeholder: (u32, u32),
    /// `</s>`
    end: u32,
}

impl Text {
    pub fn new(mut text: text::Text, rows: usize) -> Result<Self> {
        let file = text.file().to_owned();
        let bad = |message: &str| Error::bad_format(&file, message);
        let end = text.id("</s>").ok_or_else(|| bad("has no </s>; is it a T5's?"))?;
        let own = text.add_word(PLACEHOLDER).ok_or_else(|| bad("takes no further word"))?;
        // A vocabulary without a row to spare lends that of words it does not know.
        let spare =
            Some(own).filter(|&id| (id as usize) < rows).or(text.id("<unk>").filter(|&id| (id as usize) < rows));
        let row = spare.ok_or_else(|| bad("the text encoder has neither a row to spare nor one for <unk>"))?;
        Ok(Text { text, rows, placeholder: (own, row), end })
    }

    /// The tokens of a prompt; a longer one is cut, as the published code does it.
    pub fn prompt(&self, prompt: &str, words: &[Word]) -> Result<Prompt> {
        let parts = words::split(prompt, words)?;
        let (mut text, mut learned) = (String::new(), Vec::new());
        for part in &parts {
            match part {
                Stretch::Text(part) => text += part,
                Stretch::Word(word) => {
                    learned.push(word.vectors.clone());
                    if !text.is_empty() && !text.ends_with(char::is_whitespace) {
                        text += " ";
                    }
                    text += PLACEHOLDER;
                }
            }
        }
        let mut ids = self.text.encode(&text)?;
        ids.truncate(MOST - 1);
        let (mut vectors, mut rows) = (Vec::new(), learned.into_iter());
        for (place, id) in ids.iter_mut().enumerate() {
            if *id == self.placeholder.0 {
                *id = self.placeholder.1;
                let message =
                    format!("the prompt itself holds {PLACEHOLDER}, which stands for a subject's word; leave it out");
                vectors.push((place, rows.next().ok_or_else(|| Error::invalid("prompt", message))?));
            }
        }
        self.check(&ids)?;
        ids.push(self.end);
        Ok(Prompt { ids, vectors })
    }

    fn check(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.rows) {
            None => Ok(()),
            Some(id) => {
                let message = format!(
                    "gives a word the id {id}, but the text encoder has {} rows; are the two of one model?",
                    self.rows
                );
                Err(Error::bad_format(self.text.file(), message))
            }
        }
    }

    /// What stands behind every text.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Whether a word is a single one of the vocabulary.
    pub fn knows(&self, word: &str) -> Result<bool> {
        self.text.knows(word)
    }

    /// The ids of an ordinary text, nothing behind it. None if a part of it is not known.
    pub fn known(&self, text: &str) -> Result<Option<Vec<u32>>> {
        let ids = self.text.encode(text.trim())?;
        self.check(&ids)?;
        let unknown = self.text.id("<unk>");
        Ok((!ids.is_empty() && !ids.iter().any(|&id| Some(id) == unknown)).then_some(ids))
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

    /// As pieces: each token, and behind a word's token its vectors.
    pub fn pieces(&self) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut vectors = self.vectors.iter().peekable();
        for (place, &id) in self.ids.iter().enumerate() {
            pieces.push(Piece::Token(id));
            if let Some((_, rows)) = vectors.next_if(|(at, _)| *at == place) {
                pieces.extend(rows.clone().map(Piece::Vector));
            }
        }
        pieces
    }

    /// Of [`Prompt::pieces`].
    pub fn of_pieces(pieces: &[Piece]) -> Result<Prompt> {
        let mut prompt = Prompt::default();
        for piece in pieces {
            match *piece {
                Piece::Token(id) => prompt.ids.push(id),
                Piece::Code(_) => return Err(Error::internal("a code among words")),
                Piece::Vector(row) => {
                    let place = prompt.ids.len().checked_sub(1);
                    let place = place.ok_or_else(|| Error::internal("a learned vector without its word"))?;
                    match prompt.vectors.last_mut() {
                        Some((at, rows)) if *at == place && rows.end == row => rows.end += 1,
                        _ => prompt.vectors.push((place, row..row + 1)),
                    }
                }
            }
        }
        Ok(prompt)
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
        assert_eq!(Prompt::of_pieces(&prompt.pieces()).unwrap(), prompt);
        assert!(Prompt::of_pieces(&[Piece::Vector(0)]).is_err());
    }
}
