//! The training loss: cross entropy over labelled positions plus z-loss, without ever holding all logits.

use super::transformer::Transformer;
use crate::model::ops;
use crate::Result;
use candle_core::{DType, Tensor, D};

/// Positions whose logits are held at once; 64 rows of a 65536-word vocabulary are 16 MB.
const CHUNK: usize = 64;

/// The result of [`Transformer::loss`].
pub struct Loss {
    /// Weighted sum of cross entropy plus `z_loss` x log-normaliser squared; a scalar that can be differentiated.
    pub total: Tensor,
    /// Cross entropy of each position in nats, without z-loss.
    pub nats: Vec<f32>,
}

impl Transformer {
    /// Scores hidden states [N, hidden] against the tokens that should follow.
    ///
    /// total = sum over positions of weight x (cross entropy + z_loss x logsumexp^2), logits in f32. The head is frozen,
    /// so its gradient with respect to the hidden states is computed on the way, chunk by chunk.
    pub fn loss(&self, hidden: &Tensor, targets: &[u32], weights: &[f32], z_loss: f64) -> Result<Loss> {
        let wanted = hidden.track_op();
        let states = hidden.detach();
        let (n, device, dtype) = (targets.len(), hidden.device(), hidden.dtype());
        let mut nats = Vec::with_capacity(n);
        let mut total = 0f64;
        let mut gradients = Vec::new();
        for start in (0..n).step_by(CHUNK) {
            let len = CHUNK.min(n - start);
            let rows = states.narrow(0, start, len)?;
            let logits = ops::linear(&rows, &self.lm_head)?.to_dtype(DType::F32)?;
            let target = Tensor::new(&targets[start..start + len], device)?.unsqueeze(1)?;
            let max = logits.max_keepdim(D::Minus1)?;
            let exp = logits.broadcast_sub(&max)?.exp()?;
            let sum = exp.sum_keepdim(D::Minus1)?;
            let norm = (sum.log()? + max)?; // logsumexp, [len, 1]
            let loss = (&norm - logits.gather(&target, 1)?)?.flatten_all()?.to_vec1::<f32>()?;
            let norms = norm.flatten_all()?.to_vec1::<f32>()?;
            for i in 0..len {
                total += weights[start + i] as f64 * (loss[i] as f64 + z_loss * (norms[i] as f64).powi(2));
            }
            nats.extend(loss);
            if wanted {
                // d/dlogits = weight (softmax (1 + 2 z_loss logsumexp) - one-hot of the target)
                let weight = Tensor::new(&weights[start..start + len], device)?.unsqueeze(1)?;
                let factor = ((norm * (2.0 * z_loss))? + 1.0)?.div(&sum)?.mul(&weight)?;
                let d = exp.broadcast_mul(&factor)?.scatter_add(&target, &weight.neg()?, 1)?;
                gradients.push(d.to_dtype(dtype)?.matmul(&self.lm_head)?);
            }
        }
        let total = Tensor::new(total as f32, device)?;
        if !wanted {
            return Ok(Loss { total, nats });
        }
        let gradient = Tensor::cat(&gradients, 0)?;
        let total = ops::custom_gradient(hidden, total, move |g| gradient.broadcast_mul(&g.to_dtype(dtype)?))?;
        Ok(Loss { total, nats })
    }
}
