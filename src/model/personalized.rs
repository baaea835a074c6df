//! A model together with the subjects it is to draw: prompts with learned words in them, and the pass that scores pictures.

use super::family::{Condition, Example, Family, Keep, Mode, Objective};
use super::subject::Subject;
use super::words::{has_word, Word};
use super::Model;
use crate::ops::together;
use crate::run::{Control, Run, Stage};
use crate::tokens::Tokens;
use crate::{Error, Result};
use candle_core::Tensor;
use std::sync::Arc;

/// A view of a model with subjects: shares every weight that no subject changed.
#[derive(Clone)]
pub struct Personalized<'m> {
    pub model: &'m Model,
    /// The model's own, with changed weights.
    pub family: Arc<dyn Family>,
    pub words: Vec<Word>,
    /// All learned vectors, [N, width] f32; None if there are none.
    pub vectors: Option<Tensor>,
}

impl<'m> Personalized<'m> {
    /// Applies subjects to a model. Each must have been trained on this model, and their identifiers must differ.
    pub fn new(model: &'m Model, subjects: &[&Subject]) -> Result<Self> {
        let mut view = Personalized { model, family: model.family().clone(), words: vec![], vectors: None };
        let mut weights = view.family.weights().clone();
        let mut vectors = Vec::new();
        let mut rows = 0;
        for subject in subjects {
            subject.check_model(model)?;
            if view.words.iter().any(|w| w.identifier == subject.identifier) {
                let message =
                    format!("two subjects have the identifier {}; train one of them with another", subject.identifier);
                return Err(Error::invalid("subjects", message));
            }
            let (count, width) = subject.vectors.dims2()?;
            let expected = model.facts().width;
            if width != expected {
                let message = format!("has vectors of {width} numbers; the model's have {expected}");
                return Err(Error::invalid("subject", message));
            }
            let count = count as u32;
            view.words.push(Word { identifier: subject.identifier.clone(), vectors: rows..rows + count });
            vectors.push(subject.vectors.to_device(model.device())?);
            rows += count;
            weights.apply(&subject.changes)?;
        }
        if !vectors.is_empty() {
            view.vectors = Some(Tensor::cat(&vectors, 0)?);
            view.family = view.family.with(weights);
        }
        Ok(view)
    }

    /// What a prompt says to the model about a picture of `width` x `height` pixels.
    pub fn condition(&self, prompt: &str, width: u32, height: u32) -> Result<Condition> {
        if prompt.trim().is_empty() {
            return Err(Error::invalid("prompt", "is empty"));
        }
        self.family.condition(prompt, &self.words, width, height)
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

    /// A picture under a prompt, to learn from or to score.
    pub fn example(&self, prompt: &str, tokens: &Tokens) -> Result<Example> {
        let (width, height) = self.family.pixels(tokens);
        self.family.example(&self.condition(prompt, width, height)?, tokens)
    }

    /// The nats of each label of a batch, in order. Ends with an error once `stop` is cancelled.
    pub fn nats(&self, examples: &[&Example], stop: &Control) -> Result<Vec<f32>> {
        let group: Vec<(&Example, f32)> = examples.iter().map(|e| (*e, 0.0)).collect();
        let how = Mode { stop: stop.clone(), ..Mode::default() };
        let mut pass = self.family.pass(&group, self.vectors.as_ref(), &how)?;
        together(self.family.device(), || {
            for layer in 0..self.family.facts().layers {
                pass.forward(layer, Keep::Nothing)?;
            }
            Ok(pass.loss(&Objective { z_loss: 0.0, with_gradient: false })?.nats)
        })
    }

    /// Mean nats per label of each picture under a prompt. Pictures of equal size are scored together. Reports each picture
    /// scored.
    pub fn score(&self, prompt: &str, pictures: &[Tokens], run: &mut Run) -> Result<Vec<f32>> {
        /// Sequences of one pass; enough to fill the machine, few enough to hold.
        const BATCH: usize = 4;
        let mut scores = vec![0f32; pictures.len()];
        let mut order: Vec<usize> = (0..pictures.len()).collect();
        order.sort_by_key(|&i| (pictures[i].height(), pictures[i].width()));
        let mut done = 0;
        for batch in order.chunks(BATCH) {
            let examples = batch.iter().map(|&i| self.example(prompt, &pictures[i])).collect::<Result<Vec<_>>>()?;
            let mut nats = self.nats(&examples.iter().collect::<Vec<_>>(), &run.control())?.into_iter();
            for (&i, example) in batch.iter().zip(&examples) {
                let n = example.labelled.len();
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
