//! A model together with the subjects it is to draw: prompts with learned words in them, and the pass that scores them.

use super::lumina::transformer::Transformer;
use super::subject::Subject;
use super::tokens::Tokens;
use super::Model;
use crate::run::{Control, Run, Stage};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::ops::Range;

/// The most tokens of a prompt: far more than any model was trained with, and few enough that their attention to each other
/// fits into memory.
const MAX_PROMPT: usize = 4096;

/// What stands before every prompt: around the size of the picture.
pub(crate) const QUESTION: [&str; 2] = ["Generate an image of ", " according to the following prompt:\n"];

/// One place in a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A row of the vocabulary.
    Token(u32),
    /// A learned vector, by its row in [`Personalized::vectors`].
    Vector(u32),
}

/// An identifier and the learned vectors that stand for it, rows `vectors` of [`Personalized::vectors`].
#[derive(Clone, Debug)]
pub struct Word {
    pub identifier: String,
    pub vectors: Range<u32>,
}

/// A sequence whose tokens `labelled` are scored, each by the logits of the place before it.
#[derive(Clone, Debug)]
pub struct Sequence {
    pub pieces: Vec<Piece>,
    pub labelled: Range<usize>,
}

/// A view of a model with subjects: shares every weight that no subject changed.
#[derive(Clone)]
pub struct Personalized<'m> {
    pub model: &'m Model,
    pub transformer: Transformer,
    pub words: Vec<Word>,
    /// All learned vectors, [N, hidden] f32; None if there are none.
    pub vectors: Option<Tensor>,
}

/// Labelled tokens of a batch.
#[derive(Default)]
pub struct Labels {
    /// Where the prediction of each stands in the batch, row by row of its longest.
    pub at: Vec<u32>,
    pub targets: Vec<u32>,
    /// Of each in the total.
    pub weights: Vec<f32>,
}

impl<'m> Personalized<'m> {
    /// Applies subjects to a model. Each must have been trained on this model, and their identifiers must differ.
    pub fn new(model: &'m Model, subjects: &[&Subject]) -> Result<Self> {
        let mut view = Personalized { model, transformer: model.transformer().clone(), words: vec![], vectors: None };
        let mut vectors = Vec::new();
        let mut rows = 0;
        for subject in subjects {
            subject.check_model(model)?;
            if view.words.iter().any(|w| w.identifier == subject.identifier) {
                let message =
                    format!("two subjects have the identifier {}; train one of them with another", subject.identifier);
                return Err(Error::invalid("subjects", message));
            }
            let (count, hidden) = subject.vectors.dims2()?;
            let expected = model.transformer().config.hidden_size;
            if hidden != expected {
                let message = format!("has vectors of {hidden} numbers; the model's have {expected}");
                return Err(Error::invalid("subject", message));
            }
            let count = count as u32;
            view.words.push(Word { identifier: subject.identifier.clone(), vectors: rows..rows + count });
            vectors.push(subject.vectors.to_device(model.device())?);
            rows += count;
            subject.apply(&mut view.transformer)?;
        }
        if !vectors.is_empty() {
            view.vectors = Some(Tensor::cat(&vectors, 0)?);
        }
        Ok(view)
    }

    /// The sequence in front of a picture: bos, question, separator. `width` and `height` are in pixels.
    pub fn prompt(&self, prompt: &str, width: u32, height: u32) -> Result<Vec<Piece>> {
        if prompt.trim().is_empty() {
            return Err(Error::invalid("prompt", "is empty"));
        }
        let layout = self.model.layout();
        let [before, behind] = QUESTION;
        let question = format!("{before}{width}x{height}{behind}{prompt}");
        let mut pieces = vec![Piece::Token(layout.bos)];
        let mut rest = question.as_str();
        loop {
            let found = self.words.iter().filter_map(|w| Some((find_word(rest, &w.identifier)?, w)));
            // The earliest; of two that begin there, the longer.
            let next = found.min_by_key(|(at, w)| (*at, std::cmp::Reverse(w.identifier.len())));
            let Some((at, word)) = next else { break };
            // The vectors take the place of the word and of the blank before it, which most tokenizers count to the word.
            let before = &rest[..at];
            self.push_text(&mut pieces, before.strip_suffix(' ').unwrap_or(before))?;
            pieces.extend(word.vectors.clone().map(Piece::Vector));
            rest = &rest[at + word.identifier.len()..];
        }
        self.push_text(&mut pieces, rest)?;
        pieces.push(Piece::Token(layout.separator));
        match pieces.len() {
            0..=MAX_PROMPT => Ok(pieces),
            n => Err(Error::invalid("prompt", format!("has {n} tokens; at most {MAX_PROMPT} are read"))),
        }
    }

    /// Says in the log which subjects a prompt does not name: their words do nothing there.
    pub fn warn_of_unnamed(&self, prompt: &str) {
        for identifier in self.unnamed(prompt) {
            log::warn!(
                "prompt: {prompt:?} does not name the subject {identifier}, which changes the picture by its layers at most; \
                 write {identifier} where it is to be"
            );
        }
    }

    /// The identifiers of subjects that a prompt does not name.
    pub fn unnamed(&self, prompt: &str) -> Vec<&str> {
        self.words.iter().map(|w| w.identifier.as_str()).filter(|word| !has_word(prompt, word)).collect()
    }

    fn push_text(&self, pieces: &mut Vec<Piece>, text: &str) -> Result<()> {
        if let Some(unknown) = find_identifier(text) {
            let message =
                format!("{unknown} names a subject that was not given; pass its subject, or take it out of the prompt");
            return Err(Error::invalid("prompt", message));
        }
        if !text.is_empty() {
            pieces.extend(self.model.text().encode(text)?.into_iter().map(Piece::Token));
        }
        Ok(())
    }

    /// A picture behind its prompt, closing separator included; without a prompt the picture alone, from its start
    /// token to its end token, as the unconditional branch of guidance sees it.
    pub fn sequence(&self, prompt: Option<&[Piece]>, tokens: &Tokens) -> Result<Sequence> {
        let layout = self.model.layout();
        let block = layout.image_block(tokens)?.into_iter().map(Piece::Token);
        Ok(match prompt {
            Some(prompt) => {
                let mut pieces = prompt.to_vec();
                pieces.extend(block);
                pieces.push(Piece::Token(layout.separator));
                Sequence { labelled: prompt.len()..pieces.len(), pieces }
            }
            // Nothing comes before the first token that could predict it.
            None => {
                let pieces: Vec<Piece> = block.collect();
                Sequence { labelled: 1..pieces.len(), pieces }
            }
        })
    }

    /// Input embeddings [B, T, hidden] of rows that are padded on the right to the longest.
    pub fn embed(&self, rows: &[&[Piece]]) -> Result<Tensor> {
        let longest = rows.iter().map(|r| r.len()).max().unwrap_or(0);
        let (mut ids, mut vectors, mut learned) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            // Causal attention never looks at the padding, whatever it is.
            for piece in row.iter().copied().chain(std::iter::repeat_n(Piece::Token(0), longest - row.len())) {
                let (id, vector, is_learned) = match piece {
                    Piece::Token(id) => (id, 0, 0f32),
                    Piece::Vector(row) => (0, row, 1f32),
                };
                ids.push(id);
                vectors.push(vector);
                learned.push(is_learned);
            }
        }
        let device = self.transformer.device();
        let ids = Tensor::from_vec(ids, (rows.len(), longest), device)?;
        let x = self.transformer.embed(&ids)?;
        let Some(table) = &self.vectors else { return Ok(x) };
        let (b, t, h) = x.dims3()?;
        let vectors = Tensor::from_vec(vectors, b * t, device)?;
        let learned = Tensor::from_vec(learned, (b, t, 1), device)?.broadcast_as((b, t, h))?.contiguous()?;
        let there = table.to_dtype(x.dtype())?.index_select(&vectors, 0)?.reshape((b, t, h))?;
        let learned = learned.to_dtype(x.dtype())?;
        let frozen = (x * (1.0 - &learned)?)?;
        Ok((frozen + (there * learned)?)?)
    }

    /// The gradient of the learned vectors, [N, hidden] f32, from that of the input embeddings [B, T, hidden] of some rows.
    pub fn vectors_gradient(&self, rows: &[&[Piece]], g: &Tensor) -> Result<Tensor> {
        let (_, t, h) = g.dims3()?;
        let (mut at, mut vectors) = (Vec::new(), Vec::new());
        for (row, pieces) in rows.iter().enumerate() {
            for (place, piece) in pieces.iter().enumerate() {
                if let Piece::Vector(vector) = piece {
                    at.push((row * t + place) as u32);
                    vectors.push(*vector);
                }
            }
        }
        let n = self.vectors.as_ref().map_or(Ok(0), |v| v.dim(0))?;
        let sum = Tensor::zeros((n, h), DType::F32, g.device())?;
        if at.is_empty() {
            return Ok(sum);
        }
        let there = g.reshape(((), h))?.index_select(&Tensor::new(at, g.device())?, 0)?.to_dtype(DType::F32)?;
        Ok(sum.index_add(&Tensor::new(vectors, g.device())?, &there, 0)?)
    }

    /// What is asked of the transformer about a batch of sequences; `weight` gives each sequence's weight per labelled token in
    /// the total.
    pub fn labels(&self, sequences: &[&Sequence], weight: impl Fn(usize) -> f32) -> Result<Labels> {
        let longest = sequences.iter().map(|s| s.pieces.len()).max().unwrap_or(0);
        let mut labels = Labels::default();
        for (i, sequence) in sequences.iter().enumerate() {
            for place in sequence.labelled.clone() {
                labels.at.push((i * longest + place - 1) as u32);
                labels.targets.push(match sequence.pieces[place] {
                    Piece::Token(id) => id,
                    Piece::Vector(_) => return Err(Error::internal("a learned vector cannot be a label")),
                });
                labels.weights.push(weight(i));
            }
        }
        Ok(labels)
    }

    /// The nats of each labelled token of a batch, in order. Ends with an error once `stop` is cancelled.
    pub fn nats(&self, sequences: &[&Sequence], stop: &Control) -> Result<Vec<f32>> {
        let rows: Vec<&[Piece]> = sequences.iter().map(|s| s.pieces.as_slice()).collect();
        let labels = self.labels(sequences, |_| 0.0)?;
        let x = self.embed(&rows)?;
        let (b, t, h) = x.dims3()?;
        let context = self.transformer.causal_context(t, None)?.stopped_by(stop.clone());
        let hidden = self.transformer.forward(&x, &context, None)?.reshape((b * t, h))?;
        let hidden = hidden.index_select(&Tensor::new(labels.at, x.device())?, 0)?;
        Ok(self.transformer.loss(&hidden, &labels.targets, &labels.weights, 0.0, false)?.nats)
    }

    /// Mean nats per labelled token of each picture under a prompt: size tokens, codes, newlines, image end and closing
    /// separator. Pictures of equal size are scored together. Reports each picture scored.
    pub fn score(&self, prompt: &str, pictures: &[Tokens], run: &mut Run) -> Result<Vec<f32>> {
        /// Sequences of one pass; enough to fill the machine, few enough to hold.
        const BATCH: usize = 4;
        let mut scores = vec![0f32; pictures.len()];
        let mut order: Vec<usize> = (0..pictures.len()).collect();
        order.sort_by_key(|&i| (pictures[i].height(), pictures[i].width()));
        let mut done = 0;
        for batch in order.chunks(BATCH) {
            let sequences = batch.iter().map(|&i| {
                let (width, height) = self.model.layout().pixels(&pictures[i]);
                self.sequence(Some(&self.prompt(prompt, width, height)?), &pictures[i])
            });
            let sequences = sequences.collect::<Result<Vec<_>>>()?;
            let mut nats = self.nats(&sequences.iter().collect::<Vec<_>>(), &run.control())?.into_iter();
            for (&i, sequence) in batch.iter().zip(&sequences) {
                let n = sequence.labelled.len();
                scores[i] = (nats.by_ref().take(n).map(f64::from).sum::<f64>() / n as f64) as f32;
            }
            if scores.iter().any(|score| !score.is_finite()) {
                return Err(Error::Overflow { message: "the transformer gives numbers that are not finite".into() });
            }
            done += batch.len() as u64;
            run.report(Stage::Score, done, pictures.len() as u64, None)?;
        }
        Ok(scores)
    }
}

/// Whether `word` stands in the text as a word of its own.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    find_word(text, word).is_some()
}

/// Where `word` stands in the text as a word of its own, first place.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let edge = |a: Option<char>, b: Option<char>| {
        !(a.is_some_and(char::is_alphanumeric) && b.is_some_and(char::is_alphanumeric))
    };
    text.match_indices(word).map(|(at, _)| at).find(|&at| {
        edge(text[..at].chars().next_back(), word.chars().next())
            && edge(word.chars().next_back(), text[at + word.len()..].chars().next())
    })
}

/// The first thing in the text that looks like an identifier: one short word in square brackets.
fn find_identifier(text: &str) -> Option<&str> {
    text.match_indices('[').find_map(|(at, _)| {
        let inner = &text[at + 1..];
        let end = inner.find(']')?;
        let word = &inner[..end];
        let plain = |c: char| c.is_alphanumeric() || "_-*".contains(c);
        (!word.is_empty() && word.chars().count() <= 16 && word.chars().all(plain)).then(|| &text[at..at + end + 2])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_found_as_whole_words_only() {
        assert_eq!(find_word("a [V] dog", "[V]"), Some(2));
        assert_eq!(find_word("askseb sks dog", "sks"), Some(7));
        assert_eq!(find_word("my sks, please", "sks"), Some(3));
        assert_eq!(find_word("asks", "sks"), None);
        assert_eq!(find_identifier("a [V] dog [W2]"), Some("[V]"));
        assert_eq!(find_identifier("a [two words] ] [ x"), None);
        assert_eq!(find_identifier("a [] dog"), None);
    }
}
