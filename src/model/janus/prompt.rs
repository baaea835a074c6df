//! What a prompt says to the model: the words of the training's template around it, and the words of the vocabulary that have a
//! meaning of their own.

use crate::model::family::{Condition, Piece};
use crate::model::text::Text;
use crate::model::words::{self, Stretch, Word};
use crate::{Error, Result};

/// What stands before and behind every prompt.
pub const FRAME: [&str; 2] = ["<|User|>: ", "\n\n<|Assistant|>:"];

/// The most tokens of a prompt: the published models were trained with 4096 of prompt and picture together.
const MAX_PROMPT: usize = 3072;

/// The prompts of one vocabulary. Words with a meaning are found by their names; the bars are full-width, the blanks U+2581.
pub struct Prompts {
    text: Text,
    /// Begins every sequence.
    begin: u32,
    /// Stands for every word of a prompt where nothing is asked for.
    padding: u32,
    /// Predicts the first code.
    begin_of_image: u32,
    /// Words that only this library may put somewhere.
    reserved: Vec<u32>,
}

impl Prompts {
    pub fn new(text: Text) -> Result<Self> {
        let need = |name: &str| {
            let missing = || format!("has no word {name:?}, which Janus-Pro's prompts need; is it of another model?");
            text.id(name).ok_or_else(|| Error::bad_format(text.file(), missing()))
        };
        let (begin, padding) = (need("<｜begin▁of▁sentence｜>")?, need("<｜▁pad▁｜>")?);
        let begin_of_image = need("<begin_of_image>")?;
        let others = ["<｜end▁of▁sentence｜>", "<end_of_image>", "<image_placeholder>"];
        let others = others.into_iter().filter_map(|name| text.id(name));
        let reserved = [begin, padding, begin_of_image].into_iter().chain(others).collect();
        Ok(Prompts { text, begin, padding, begin_of_image, reserved })
    }

    /// The word for padding.
    pub fn padding(&self) -> Piece {
        Piece::Token(self.padding)
    }

    /// What stands for a word that the vocabulary does not know.
    pub fn unknown(&self) -> Option<u32> {
        self.text.unknown()
    }

    /// The tokens of a text as they are inside of a sentence, where a blank stands before it.
    pub fn inside(&self, text: &str) -> Result<Vec<u32>> {
        self.text.encode(&format!(" {text}"))
    }

    pub fn knows(&self, word: &str) -> Result<bool> {
        Ok(self.text.knows(word)? || self.text.knows(&format!(" {word}"))?)
    }

    /// Begin of sentence, template with the prompt, begin of image.
    pub fn condition(&self, prompt: &str, words: &[Word]) -> Result<Condition> {
        let [before, behind] = FRAME;
        let all = format!("{before}{}{behind}", prompt.trim());
        let mut pieces = vec![Piece::Token(self.begin)];
        for stretch in words::split(&all, words)? {
            match stretch {
                Stretch::Text(text) => {
                    let ids = self.text.encode(text)?;
                    if ids.iter().any(|id| self.reserved.contains(id)) {
                        let message = "contains a word that stands for the beginning or the end of a text or a picture";
                        return Err(Error::invalid("prompt", message));
                    }
                    pieces.extend(ids.into_iter().map(Piece::Token));
                }
                Stretch::Word(word) => pieces.extend(word.vectors.clone().map(Piece::Vector)),
            }
        }
        pieces.push(Piece::Token(self.begin_of_image));
        match pieces.len() {
            0..=MAX_PROMPT => Ok(Condition { pieces }),
            n => Err(Error::invalid("prompt", format!("has {n} tokens; at most {MAX_PROMPT} are read"))),
        }
    }

    /// As many pieces, with padding in place of all but the first and the last.
    pub fn unguided(&self, of: &Condition) -> Condition {
        let last = of.pieces.len().saturating_sub(1);
        let piece = |(at, piece): (usize, &Piece)| if at == 0 || at == last { *piece } else { self.padding() };
        Condition { pieces: of.pieces.iter().enumerate().map(piece).collect() }
    }
}
