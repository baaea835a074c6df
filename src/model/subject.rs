//! What training learned about one subject, and the small file it is kept in.

use super::lumina::transformer::Transformer;
use super::Model;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

/// How one weight differs from the model's own.
#[derive(Clone, Debug)]
pub enum Change {
    /// To be added to the weight; its shape.
    Delta(Tensor),
    /// `up` [out, rank] times `down` [rank, in] is to be added.
    LowRank { down: Tensor, up: Tensor },
}

/// One recorded training loss: computed at `step` of `stage` before its update.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LossRecord {
    /// `embedding` or `layers`.
    pub stage: String,
    /// From 0.
    pub step: u64,
    /// Cross entropy and z-loss as one number, in nats per labelled token.
    pub loss: f32,
}

/// A learned subject. It belongs to the model it was trained on.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The word that stands for the subject in a prompt, `[V]` by default.
    pub identifier: String,
    pub class_word: String,
    /// [vectors, hidden], f32, on the CPU.
    pub vectors: Tensor,
    /// By the weight's name in the checkpoint.
    pub changes: BTreeMap<String, Change>,
    /// Fingerprint of the model, see [`Model::fingerprint`].
    pub model: String,
    /// The preset it was trained with.
    pub method: String,
    /// All options of the training, as JSON.
    pub options: serde_json::Value,
    pub losses: Vec<LossRecord>,
}

impl Subject {
    /// Errors if the subject was trained on another model.
    pub fn check_model(&self, model: &Model) -> Result<()> {
        if self.model == model.fingerprint() {
            return Ok(());
        }
        Err(Error::WrongModel { subject: self.model.clone(), model: format!("{} ({})", model.fingerprint(), model.name()) })
    }

    /// The same subject with the layers put back to the model's own: only its vectors remain.
    pub fn without_layers(&self) -> Subject {
        Subject { changes: BTreeMap::new(), ..self.clone() }
    }

    /// Adds the changes to a transformer's weights; the sum is made in f32.
    pub fn apply(&self, transformer: &mut Transformer) -> Result<()> {
        let mut left = self.changes.len();
        for (index, layer) in transformer.layers.iter_mut().enumerate() {
            for (name, weight) in layer.weights_mut() {
                let Some(change) = self.changes.get(&format!("model.layers.{index}.{name}")) else { continue };
                let (dtype, device) = (weight.dtype(), weight.device().clone());
                let delta = match change {
                    Change::Delta(delta) => delta.to_device(&device)?.to_dtype(DType::F32)?,
                    Change::LowRank { down, up } => {
                        let (down, up) = (down.to_device(&device)?, up.to_device(&device)?);
                        up.to_dtype(DType::F32)?.matmul(&down.to_dtype(DType::F32)?)?
                    }
                };
                *weight = (weight.to_dtype(DType::F32)? + delta)?.to_dtype(dtype)?;
                left -= 1;
            }
        }
        match left {
            0 => Ok(()),
            _ => Err(Error::invalid("subject", "changes weights that the model does not have")),
        }
    }
}
