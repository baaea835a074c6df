//! Janus's way through the layers and back, with the head behind them and the aligner before.

use super::Janus;
use crate::model::family::{Example, Keep, Loss, Mode, NextToken, Objective, Pass, Piece};
use crate::model::llama::{labels, padded, Head, Labels, Sequences, CHUNK};
use crate::ops;
use crate::weights::{sum, Gradients, Wanted};
use crate::{Error, Result};
use candle_core::Tensor;

pub struct JanusPass<'a> {
    model: &'a Janus,
    sequences: Sequences<'a>,
    labels: Labels,
    /// Codes that stand in the batch: where, and which.
    codes: (Vec<u32>, Vec<u32>),
    /// What the head was given where something is labelled, and what it was judged by, if the way back follows.
    judged: Option<(Tensor, Objective)>,
}

impl<'a> JanusPass<'a> {
    pub fn new(
        model: &'a Janus,
        group: &[(&Example, f32)],
        vectors: Option<&Tensor>,
        how: &Mode,
    ) -> Result<JanusPass<'a>> {
        let rows = padded(group);
        let x = model.embed(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), vectors)?;
        let code = |piece| match piece {
            Piece::Code(code) => Some(code),
            _ => None,
        };
        let pieces = rows.iter().flatten().enumerate();
        let codes = pieces.filter_map(|(place, piece)| Some((place as u32, code(*piece)?))).unzip();
        Ok(JanusPass {
            model,
            sequences: Sequences::new(&model.transformer, &rows, x, vectors, how)?,
            labels: labels(group, code)?,
            codes,
            judged: None,
        })
    }

    /// The gradients that are wanted of the head. The logits are made once more, so that those of all labels need not wait
    /// until it is known whether the head learns.
    fn head_gradients(&self, wanted: &Wanted) -> Result<Gradients> {
        let Some((states, objective)) = &self.judged else {
            return Err(Error::internal("the head goes backward that was not judged"));
        };
        let hidden = self.model.transformer.final_norm(states)?;
        let (head, Labels { targets, weights, .. }) = (self.model.head(), &self.labels);
        let mut sums = Gradients::new();
        for start in (0..targets.len()).step_by(CHUNK) {
            let len = CHUNK.min(targets.len() - start);
            let (hidden, range) = (hidden.narrow(0, start, len)?, start..start + len);
            let (targets, weights) = (&targets[range.clone()], &weights[range]);
            let (_, _, g) = ops::cross_entropy(head.logits(&hidden)?, targets, weights, objective.z_loss)?;
            let mut found = Gradients::new();
            head.gradients(&g.to_dtype(hidden.dtype())?, &hidden, wanted, &mut found)?;
            sums = sum([sums, found])?;
        }
        Ok(sums)
    }

    /// The gradients that are wanted of the aligner, when all layers went backward.
    fn aligner_gradients(&self, wanted: &Wanted) -> Result<Gradients> {
        let (places, codes) = &self.codes;
        let codes = Tensor::new(codes.as_slice(), self.model.transformer.device())?;
        let vectors = self.model.code_vectors.index_select(&codes, 0)?.to_dtype(self.model.transformer.dtype())?;
        let mut found = Gradients::new();
        self.model.aligner().gradients(&self.sequences.at(places)?, &vectors, wanted, &mut found)?;
        Ok(found)
    }
}

impl Pass for JanusPass<'_> {
    fn tokens(&self) -> usize {
        self.sequences.tokens()
    }

    fn forward(&mut self, layer: usize, keep: Keep) -> Result<()> {
        self.sequences.forward(layer, keep)
    }

    fn loss(&mut self, objective: &Objective) -> Result<Loss> {
        let states = objective.with_gradient.then(|| self.sequences.at(&self.labels.at)).transpose()?;
        self.judged = states.map(|states| (states, *objective));
        self.sequences.loss(&self.labels, objective, &self.model.head())
    }

    fn backward(&mut self, layer: usize, wanted: &Wanted) -> Result<Gradients> {
        let mut found = self.sequences.backward(layer, wanted)?;
        if layer + 1 == self.model.facts.layers && self.model.head().is_wanted(wanted) {
            found.extend(self.head_gradients(wanted)?);
        }
        if layer == 0 && self.model.aligner().is_wanted(wanted) {
            found.extend(self.aligner_gradients(wanted)?);
        }
        found.sort_by_key(|(target, _)| *target);
        Ok(found)
    }

    fn vectors(&mut self) -> Result<Tensor> {
        self.sequences.vectors()
    }
}
