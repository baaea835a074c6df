//! One way forward and back through the transformer, block by block, for sequences of one schedule that are taught together.

use super::condition::{self, Gradients as TextGradients};
use super::layer::{Context, Kept};
use super::loss::{label_loss, teacher_loss, Likeness};
use super::schedule::Schedule;
use super::transformer::Transformer;
use crate::device::to_host;
use crate::model::family::Keep;
use crate::weights::{Gradients, Wanted};
use crate::{Error, Result};
use candle_core::{Device, Tensor};

enum Memory {
    Input(Tensor),
    All(Box<Kept>),
}

/// What the logits of all sequences, one behind the other, are compared with; weights are those of the tokens.
pub enum Objective<'a> {
    /// Bits, 0 or 1.
    Labels { labels: &'a [u32], weights: &'a [f32] },
    /// The logits of another model.
    Teacher { logits: &'a [f32], weights: &'a [f32], likeness: Likeness },
}

/// Sequences on their way.
pub struct Pass<'a> {
    transformer: &'a Transformer,
    schedule: Schedule,
    context: Context<'a>,
    texts: Vec<condition::Kept>,
    /// What the next block is given; on the way back the gradient of what the last one gave.
    state: Tensor,
    memories: Vec<Option<Memory>>,
    to: TextGradients,
}

impl<'a> Pass<'a> {
    /// `features` of each text, [n, text]; `inputs` of all scales but the first, [B, T - 1, bits]; `drops` as in [`Context`].
    pub fn new(
        transformer: &'a Transformer,
        features: &[Tensor],
        inputs: &Tensor,
        schedule: &Schedule,
        drops: Option<Vec<[Vec<f32>; 2]>>,
    ) -> Result<Self> {
        let (texts, kept) = transformer.conditioner.forward(features)?;
        let state = transformer.sequence(&texts, inputs)?;
        let mut context = transformer.context(&texts, schedule, 0..schedule.scales().len())?;
        context.drops = drops;
        let to = texts.gradients()?;
        Ok(Pass { transformer, schedule: schedule.clone(), context, texts: kept, state, memories: vec![], to })
    }

    /// Goes through a block; they come in their order.
    pub fn forward(&mut self, index: usize, keep: Keep) -> Result<()> {
        if index != self.memories.len() {
            return Err(Error::internal("blocks come in their order"));
        }
        let x = self.transformer.input(self.state.clone(), index, &self.schedule)?;
        let (y, kept) = self.transformer.layer(index).forward(&x, &self.context, None, keep == Keep::All)?;
        self.memories.push(match (kept, keep) {
            (Some(kept), _) => Some(Memory::All(Box::new(kept))),
            (None, Keep::Input) => Some(Memory::Input(x)),
            (None, _) => None,
        });
        self.state = y;
        Ok(())
    }

    /// The logits, [B, T, 2 bits].
    pub fn logits(&self) -> Result<Tensor> {
        self.transformer.logits(&self.state, &self.context.texts)
    }

    /// The loss behind the last block; turns round. `texts` says whether gradients go to the texts' features.
    pub fn loss(&mut self, objective: Objective, texts: bool) -> Result<f64> {
        let logits = self.logits()?;
        self.turn(&logits, objective, texts)
    }

    /// As [`Pass::loss`] with logits that are there already.
    pub fn turn(&mut self, logits: &Tensor, objective: Objective, texts: bool) -> Result<f64> {
        let values = to_host(&logits.flatten_all()?)?.to_vec1::<f32>()?;
        let loss = match objective {
            Objective::Labels { labels, weights } => label_loss(&values, labels, weights)?,
            Objective::Teacher { logits, weights, likeness } => teacher_loss(&values, logits, weights, likeness)?,
        };
        let g = Tensor::from_vec(loss.gradient, logits.shape(), &Device::Cpu)?.to_device(logits.device())?;
        self.state = self.transformer.logits_backward(&g, &self.state, &self.context.texts, texts, &mut self.to)?;
        Ok(loss.total)
    }

    /// Goes back through a block, the last one first, and gives the gradients that are wanted of its weights.
    pub fn backward(&mut self, index: usize, wanted: &Wanted, texts: bool) -> Result<Gradients> {
        let layer = self.transformer.layer(index);
        let kept = match self.memories.pop().flatten() {
            Some(Memory::All(kept)) => *kept,
            Some(Memory::Input(x)) => {
                let (_, kept) = layer.forward(&x, &self.context, None, true)?;
                kept.ok_or_else(|| Error::internal("a block kept nothing"))?
            }
            None => return Err(Error::internal("a block that kept nothing is gone back through")),
        };
        // What comes is let go of as soon as it has done its service.
        let g = std::mem::replace(&mut self.state, self.context.cos.clone());
        let (g, found) = layer.backward(g, kept, &self.context, wanted, texts, &mut self.to)?;
        self.state = g;
        Ok(found)
    }

    /// The gradients of the texts' features, [n, text] each, behind the first block.
    pub fn features(&mut self) -> Result<Vec<Tensor>> {
        self.transformer.sequence_backward(&self.state, &mut self.to)?;
        self.transformer.conditioner.backward(&self.context.texts, std::mem::take(&mut self.texts), &self.to)
    }

    /// Tokens in it.
    pub fn tokens(&self) -> usize {
        self.context.texts.lengths.len() * self.schedule.total()
    }
}
