//! The training loss: cross entropy over labelled positions plus z-loss, without ever holding all logits.

use super::transformer::Transformer;
use crate::model::ops;
use crate::Result;
use candle_core::{DType, Tensor};

/// Positions whose logits are held at once; 256 rows of a 65536-word vocabulary are 64 MB.
pub const CHUNK: usize = 256;

/// The result of [`Transformer::loss`].
pub struct Loss {
    /// Weighted sum of cross entropy plus `z_loss` x log-normaliser squared.
    pub total: f64,
    /// Cross entropy of each position in nats, without z-loss.
    pub nats: Vec<f32>,
    /// The gradient of `total` with respect to the hidden states, [N, hidden], if it was asked for.
    pub gradient: Option<Tensor>,
}

impl Transformer {
    /// Scores hidden states [N, hidden], N above 0, against the tokens that should follow.
    ///
    /// total = sum over positions of weight x (cross entropy + z_loss x logsumexp^2), logits in f32. The head is frozen,
    /// so the gradient goes to the hidden states only; it is computed chunk by chunk.
    pub fn loss(
        &self,
        hidden: &Tensor,
        targets: &[u32],
        weights: &[f32],
        z_loss: f64,
        with_gradient: bool,
    ) -> Result<Loss> {
        let mut loss = Loss { total: 0.0, nats: Vec::with_capacity(targets.len()), gradient: None };
        let mut gradients = Vec::new();
        for start in (0..targets.len()).step_by(CHUNK) {
            let len = CHUNK.min(targets.len() - start);
            let rows = hidden.narrow(0, start, len)?;
            let weights = &weights[start..start + len];
            let logits = ops::linear(&rows, &self.lm_head)?.to_dtype(DType::F32)?;
            let (nats, norms, gradient) = ops::cross_entropy(logits, &targets[start..start + len], weights, z_loss)?;
            for ((&weight, &nats), &norm) in weights.iter().zip(&nats).zip(&norms) {
                loss.total += f64::from(weight) * (f64::from(nats) + z_loss * f64::from(norm).powi(2));
            }
            loss.nats.extend(nats);
            if with_gradient {
                gradients.push(ops::input_gradient(&gradient.to_dtype(hidden.dtype())?, &self.lm_head, None)?);
            }
        }
        if with_gradient {
            loss.gradient = Some(Tensor::cat(&gradients, 0)?);
        }
        Ok(loss)
    }
}
