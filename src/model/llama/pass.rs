//! Sequences on their way through the layers and back.

use super::layer::Kept;
use super::transformer::Transformer;
use crate::model::family::{Example, Keep, Loss, Mode, Objective, Piece};
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

/// What the family makes logits with.
pub trait Head {
    /// f32 [N, words] of normed states [N, hidden].
    fn logits(&self, hidden: &Tensor) -> Result<Tensor>;

    /// The gradient of the states for that of the logits, f32.
    fn backward(&self, hidden: &Tensor, gradient: &Tensor) -> Result<Tensor>;
}

/// Examples of a group, in rows of one length.
pub struct Sequences<'a> {
    transformer: &'a Transformer,
    context: Context,
    /// What goes through: states [B, T, hidden], on the way back their gradients.
    x: Tensor,
    /// Of the layers that go backward, the lowest first.
    memories: Vec<Memory>,
    /// Learned vectors that stand in the batch: where, and which row.
    learned: (At, Vec<u32>),
    /// Learned vectors that there are.
    vectors: usize,
}

/// The pieces of a group's examples, filled up behind to one length. Causal attention never looks at the padding, whatever it is.
pub fn padded(group: &[(&Example, f32)]) -> Vec<Vec<Piece>> {
    let longest = group.iter().map(|(e, _)| e.pieces.len()).max().unwrap_or(0);
    let row = |pieces: &[Piece]| {
        let padding = std::iter::repeat_n(Piece::Token(0), longest - pieces.len());
        pieces.iter().copied().chain(padding).collect()
    };
    group.iter().map(|(e, _)| row(&e.pieces)).collect()
}

/// Labelled pieces of a batch.
pub struct Labels {
    /// Where the prediction of each stands.
    pub at: At,
    pub targets: Vec<u32>,
    /// Of each in the total.
    pub weights: Vec<f32>,
}

/// The labels of a group that are to be learned, of which `target` says which of the logits each is about.
pub fn labels(group: &[(&Example, f32)], target: impl Fn(Piece) -> Option<u32>) -> Result<Labels> {
    let longest = group.iter().map(|(e, _)| e.pieces.len()).max().unwrap_or(0);
    let mut labels = Labels { at: vec![], targets: vec![], weights: vec![] };
    for (i, (example, weight)) in group.iter().enumerate() {
        for (label, place) in example.labelled.clone().enumerate() {
            if !example.learns(label) {
                continue;
            }
            let piece = example.pieces[place];
            labels.at.push((i * longest + place - 1) as u32);
            labels.targets.push(target(piece).ok_or_else(|| Error::internal(format!("{piece:?} cannot be a label")))?);
            labels.weights.push(*weight);
        }
    }
    Ok(labels)
}

impl<'a> Sequences<'a> {
    /// `x` are the input embeddings of the rows.
    pub fn new(
        transformer: &'a Transformer,
        rows: &[Vec<Piece>],
        x: Tensor,
        vectors: Option<&Tensor>,
        how: &Mode,
    ) -> Result<Self> {
        let longest = rows.first().map_or(0, Vec::len);
        let context =
            transformer.rotary.causal(longest)?.stopped_by(how.stop.clone()).with_dropout(how.dropout.clone());
        let mut learned: (At, Vec<u32>) = Default::default();
        for (place, piece) in rows.iter().flatten().enumerate() {
            if let Piece::Vector(vector) = piece {
                learned.0.push(place as u32);
                learned.1.push(*vector);
            }
        }
        let vectors = vectors.map_or(Ok(0), |v| v.dim(0))?;
        Ok(Sequences { transformer, context, x, memories: vec![], learned, vectors })
    }

    /// Tokens in it, padding included.
    pub fn tokens(&self) -> usize {
        self.x.elem_count() / self.transformer.shape.hidden
    }

    pub fn forward(&mut self, layer: usize, keep: Keep) -> Result<()> {
        self.context.stop.check()?;
        let layer = self.transformer.layer(layer);
        let (y, memory) = match keep {
            Keep::Nothing => (layer.forward(&self.x, &self.context)?, None),
            Keep::Input => (layer.forward(&self.x, &self.context)?, Some(Memory::Input(self.x.clone()))),
            Keep::All => {
                let (y, kept) = layer.forward_keeping(&self.x, &self.context)?;
                (y, Some(Memory::All(Box::new(kept))))
            }
        };
        self.memories.extend(memory);
        self.x = y;
        Ok(())
    }

    /// What goes through at these places of the batch, [N, hidden].
    pub fn at(&self, places: &[u32]) -> Result<Tensor> {
        let flat = self.x.reshape(((), self.transformer.shape.hidden))?;
        Ok(flat.index_select(&Tensor::new(places, self.x.device())?, 0)?)
    }

    /// Cross entropy over labelled positions plus z-loss, without ever holding all logits: the sum over positions of weight x
    /// (cross entropy + z_loss x logsumexp^2), logits in f32. The gradient goes to the states.
    pub fn loss(&mut self, labels: &Labels, objective: &Objective, head: &dyn Head) -> Result<Loss> {
        self.context.stop.check()?;
        let (b, t, h) = self.x.dims3()?;
        let Labels { at, targets, weights } = labels;
        let seen = self.at(at)?;
        let hidden = self.transformer.final_norm(&seen)?;
        let mut loss = Loss { total: 0.0, nats: Vec::with_capacity(targets.len()) };
        let mut gradients = Vec::new();
        for start in (0..targets.len()).step_by(CHUNK) {
            let len = CHUNK.min(targets.len() - start);
            let weights = &weights[start..start + len];
            let hidden = hidden.narrow(0, start, len)?;
            let z_loss = objective.z_loss;
            let (nats, norms, gradient) =
                ops::cross_entropy(head.logits(&hidden)?, &targets[start..start + len], weights, z_loss)?;
            for ((&weight, &nats), &norm) in weights.iter().zip(&nats).zip(&norms) {
                loss.total += f64::from(weight) * (f64::from(nats) + z_loss * f64::from(norm).powi(2));
            }
            loss.nats.extend(nats);
            if objective.with_gradient {
                gradients.push(head.backward(&hidden, &gradient)?);
            }
        }
        if objective.with_gradient {
            let gradient = self.transformer.final_norm_backward(&Tensor::cat(&gradients, 0)?, &seen)?;
            let whole = Tensor::zeros((b * t, h), self.x.dtype(), self.x.device())?;
            let at = Tensor::new(at.as_slice(), self.x.device())?;
            self.x = whole.index_add(&at, &gradient, 0)?.reshape((b, t, h))?;
        }
        Ok(loss)
    }

    pub fn backward(&mut self, layer: usize, wanted: &Wanted) -> Result<Gradients> {
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

    /// The gradient of the learned vectors, f32 [N, hidden], when all layers went backward.
    pub fn vectors(&self) -> Result<Tensor> {
        let (at, vectors) = &self.learned;
        let device = self.x.device();
        let sum = Tensor::zeros((self.vectors, self.transformer.shape.hidden), DType::F32, device)?;
        if at.is_empty() {
            return Ok(sum);
        }
        let there = self.at(at)?;
        Ok(sum.index_add(&Tensor::new(vectors.as_slice(), device)?, &there.to_dtype(DType::F32)?, 0)?)
    }
}
