//! Lumina's way through the layers and back: the head is a row for each word.

use super::Lumina;
use crate::model::family::{Example, Keep, Loss, Mode, NextToken, Objective, Pass, Piece};
use crate::model::llama::{labels, padded, Head, Labels, Sequences};
use crate::ops;
use crate::weight::Weight;
use crate::weights::{Gradients, Wanted};
use crate::Result;
use candle_core::Tensor;

pub struct LuminaPass<'a> {
    sequences: Sequences<'a>,
    labels: Labels,
    head: &'a Weight,
}

impl<'a> LuminaPass<'a> {
    pub fn new(
        model: &'a Lumina,
        group: &[(&Example, f32)],
        vectors: Option<&Tensor>,
        how: &Mode,
    ) -> Result<LuminaPass<'a>> {
        let rows = padded(group);
        let x = model.embed(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), vectors)?;
        let target = |piece| match piece {
            Piece::Token(id) => Some(id),
            _ => None,
        };
        Ok(LuminaPass {
            sequences: Sequences::new(&model.transformer, &rows, x, vectors, how)?,
            labels: labels(group, target)?,
            head: model.head(),
        })
    }
}

/// The head is frozen, so the gradient goes to the states only.
impl Head for Weight {
    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        ops::linear_f32(hidden, self)
    }

    fn backward(&self, hidden: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        ops::input_gradient(&gradient.to_dtype(hidden.dtype())?, self, None)
    }
}

impl Pass for LuminaPass<'_> {
    fn tokens(&self) -> usize {
        self.sequences.tokens()
    }

    fn forward(&mut self, layer: usize, keep: Keep) -> Result<()> {
        self.sequences.forward(layer, keep)
    }

    fn loss(&mut self, objective: &Objective) -> Result<Loss> {
        self.sequences.loss(&self.labels, objective, self.head)
    }

    fn backward(&mut self, layer: usize, wanted: &Wanted) -> Result<Gradients> {
        self.sequences.backward(layer, wanted)
    }

    fn vectors(&mut self) -> Result<Tensor> {
        self.sequences.vectors()
    }
}
