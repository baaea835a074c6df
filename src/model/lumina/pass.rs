//! Sequences on their way through the layers and back.

use super::layer::Kept;
use super::transformer::Transformer;
use super::Lumina;
use crate::model::family::{Example, Keep, Loss, Mode, NextToken, Objective, Pass, Piece};
use crate::model::places::Context;
use crate::ops;
use crate::weights::{Gradients, Wanted};
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// Positions whose logits are held at once; 256 rows of a 65536-word vocabulary are 64 MB.
pub const CHUNK: usize = 256;

/// What a layer needs on the way back.
enum Memory {
    Input(Tensor),
    All(Box<Kept>),
}

/// Where something stands in the batch, row by row of its longest.
type At = Vec<u32>;

pub struct LuminaPass<'a> {
    transformer: &'a Transformer,
    context: Context,
    /// What goes through: states [B, T, hidden], on the way back their gradients.
    x: Tensor,
    /// Of the layers that go backward, the lowest first.
    memories: Vec<Memory>,
    labels: Labels,
    /// Learned vectors that stand in the batch: where, and which row.
    learned: (At, Vec<u32>),
    /// Learned vectors that there are.
    vectors: usize,
}

/// Labelled tokens of a batch.
struct Labels {
    /// Where the prediction of each stands.
    at: At,
    targets: Vec<u32>,
    /// Of each in the total.
    weights: Vec<f32>,
}

impl<'a> LuminaPass<'a> {
    pub fn new(
        model: &'a Lumina,
        group: &[(&Example, f32)],
        vectors: Option<&Tensor>,
        how: &Mode,
    ) -> Result<LuminaPass<'a>> {
        let rows: Vec<&[Piece]> = group.iter().map(|(e, _)| e.pieces.as_slice()).collect();
        let longest = rows.iter().map(|r| r.len()).max().unwrap_or(0);
        // Causal attention never looks at the padding, whatever it is.
        let padded: Vec<Vec<Piece>> = rows.iter().map(|r| padded(r, longest)).collect();
        let padded: Vec<&[Piece]> = padded.iter().map(Vec::as_slice).collect();
        let transformer = &model.transformer;
        let context =
            transformer.rotary.causal(longest)?.stopped_by(how.stop.clone()).with_dropout(how.dropout.clone());
        let mut learned: (At, Vec<u32>) = Default::default();
        for (row, pieces) in rows.iter().enumerate() {
            for (place, piece) in pieces.iter().enumerate() {
                if let Piece::Vector(vector) = piece {
                    learned.0.push((row * longest + place) as u32);
                    learned.1.push(*vector);
                }
            }
        }
        Ok(LuminaPass {
            transformer,
            context,
            x: model.embed(&padded, vectors)?,
            memories: vec![],
            labels: labels(group, longest)?,
            learned,
            vectors: vectors.map_or(Ok(0), |v| v.dim(0))?,
        })
    }
}

fn padded(pieces: &[Piece], length: usize) -> Vec<Piece> {
    let padding = std::iter::repeat_n(Piece::Token(0), length - pieces.len());
    pieces.iter().copied().chain(padding).collect()
}

fn labels(group: &[(&Example, f32)], longest: usize) -> Result<Labels> {
    let mut labels = Labels { at: vec![], targets: vec![], weights: vec![] };
    for (i, (example, weight)) in group.iter().enumerate() {
        for place in example.labelled.clone() {
            labels.at.push((i * longest + place - 1) as u32);
            labels.targets.push(match example.pieces[place] {
                Piece::Token(id) => id,
                Piece::Vector(_) => return Err(Error::internal("a learned vector cannot be a label")),
            });
            labels.weights.push(*weight);
        }
    }
    Ok(labels)
}

impl Pass for LuminaPass<'_> {
    fn tokens(&self) -> usize {
        self.x.elem_count() / self.transformer.config.hidden_size
    }

    fn forward(&mut self, layer: usize, keep: Keep) -> Result<()> {
        self.context.stop.check()?;
        let layer = self.transformer.layer(layer);
        let (y, memory) = match keep {
            Keep::Nothing => (layer.forward(&self.x, &self.context, None)?, None),
            Keep::Input => (layer.forward(&self.x, &self.context, None)?, Some(Memory::Input(self.x.clone()))),
            Keep::All => {
                let (y, kept) = layer.forward_keeping(&self.x, &self.context)?;
                (y, Some(Memory::All(Box::new(kept))))
            }
        };
        self.memories.extend(memory);
        self.x = y;
        Ok(())
    }

    /// Cross entropy over labelled positions plus z-loss, without ever holding all logits: the sum over positions of weight x
    /// (cross entropy + z_loss x logsumexp^2), logits in f32. The head is frozen, so the gradient goes to the states only.
    fn loss(&mut self, objective: &Objective) -> Result<Loss> {
        self.context.stop.check()?;
        let (b, t, h) = self.x.dims3()?;
        let Labels { at, targets, weights } = &self.labels;
        let at = Tensor::new(at.as_slice(), self.x.device())?;
        let seen = self.x.reshape((b * t, h))?.index_select(&at, 0)?;
        let hidden = self.transformer.final_norm(&seen)?;
        let head = self.transformer.head();
        let mut loss = Loss { total: 0.0, nats: Vec::with_capacity(targets.len()) };
        let mut gradients = Vec::new();
        for start in (0..targets.len()).step_by(CHUNK) {
            let len = CHUNK.min(targets.len() - start);
            let weights = &weights[start..start + len];
            let logits = ops::linear(&hidden.narrow(0, start, len)?, head)?.to_dtype(DType::F32)?;
            let z_loss = objective.z_loss;
            let (nats, norms, gradient) = ops::cross_entropy(logits, &targets[start..start + len], weights, z_loss)?;
            for ((&weight, &nats), &norm) in weights.iter().zip(&nats).zip(&norms) {
                loss.total += f64::from(weight) * (f64::from(nats) + z_loss * f64::from(norm).powi(2));
            }
            loss.nats.extend(nats);
            if objective.with_gradient {
                gradients.push(ops::input_gradient(&gradient.to_dtype(hidden.dtype())?, head, None)?);
            }
        }
        if objective.with_gradient {
            let gradient = self.transformer.final_norm_backward(&Tensor::cat(&gradients, 0)?, &seen)?;
            let whole = Tensor::zeros((b * t, h), self.x.dtype(), self.x.device())?;
            self.x = whole.index_add(&at, &gradient, 0)?.reshape((b, t, h))?;
        }
        Ok(loss)
    }

    fn backward(&mut self, layer: usize, wanted: &Wanted) -> Result<Gradients> {
        self.context.stop.check()?;
        let layer = self.transformer.layer(layer);
        let kept = match self.memories.pop() {
            Some(Memory::All(kept)) => *kept,
            Some(Memory::Input(x)) => layer.forward_keeping(&x, &self.context)?.1,
            None => return Err(Error::internal("a layer goes backward that kept nothing")),
        };
        // What comes is let go of as soon as it has done its service.
        let g = std::mem::replace(&mut self.x, self.transformer.norm.clone());
        let (g, gradients) = layer.backward(g, kept, &self.context, wanted)?;
        self.x = g;
        Ok(gradients)
    }

    fn vectors(&mut self) -> Result<Tensor> {
        let (_, _, h) = self.x.dims3()?;
        let (at, vectors) = &self.learned;
        let device = self.x.device();
        let sum = Tensor::zeros((self.vectors, h), DType::F32, device)?;
        if at.is_empty() {
            return Ok(sum);
        }
        let there = self.x.reshape(((), h))?.index_select(&Tensor::new(at.as_slice(), device)?, 0)?;
        Ok(sum.index_add(&Tensor::new(vectors.as_slice(), device)?, &there.to_dtype(DType::F32)?, 0)?)
    }
}
