//! AdamW as `torch.optim.AdamW` does it, and the gradient clip of `torch.nn.utils.clip_grad_norm_`.

use crate::Result;
use candle_core::{DType, Tensor, Var};

/// PyTorch's default, which Lumina keeps.
const EPS: f64 = 1e-8;

/// The optimizer's memory of a list of tensors, all f32.
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    /// Updates so far.
    steps: u64,
    /// Running means of the gradient and of its square, of each tensor.
    moments: Vec<(Tensor, Tensor)>,
}

/// What the optimizer is to do with one tensor.
pub struct Update<'a> {
    pub value: &'a Var,
    pub gradient: &'a Tensor,
    pub learning_rate: f64,
    /// Decoupled: the value shrinks by learning rate x decay.
    pub weight_decay: f64,
}

impl AdamW {
    pub fn new<'a>(values: impl Iterator<Item = &'a Var>, beta1: f64, beta2: f64) -> Result<Self> {
        let moments = values.map(|v| Ok((v.zeros_like()?, v.zeros_like()?))).collect::<Result<_>>()?;
        Ok(AdamW { beta1, beta2, steps: 0, moments })
    }

    /// Goes on from an earlier state.
    pub fn resume(beta1: f64, beta2: f64, steps: u64, moments: Vec<(Tensor, Tensor)>) -> Self {
        AdamW { beta1, beta2, steps, moments }
    }

    pub fn steps(&self) -> u64 {
        self.steps
    }

    pub fn moments(&self) -> &[(Tensor, Tensor)] {
        &self.moments
    }

    /// One update of all tensors, in the order in which they were given to [`AdamW::new`].
    pub fn step(&mut self, updates: &[Update]) -> Result<()> {
        self.steps += 1;
        let n = self.steps as f64;
        let (bias1, bias2) = (1.0 - self.beta1.powf(n), 1.0 - self.beta2.powf(n));
        for (update, (mean, square)) in updates.iter().zip(&mut self.moments) {
            let g = update.gradient;
            *mean = ((&*mean * self.beta1)? + (g * (1.0 - self.beta1))?)?;
            *square = ((&*square * self.beta2)? + (g.sqr()? * (1.0 - self.beta2))?)?;
            let size = ((square.sqrt()? / bias2.sqrt())? + EPS)?;
            let change = (mean.div(&size)? * (update.learning_rate / bias1))?;
            let kept = (update.value.as_detached_tensor() * (1.0 - update.learning_rate * update.weight_decay))?;
            update.value.set(&(kept - change)?)?;
        }
        Ok(())
    }
}

/// The norm of all gradients taken as one vector.
pub fn norm(gradients: &[Tensor]) -> Result<f64> {
    let mut total = 0.0;
    for g in gradients {
        total += g.to_dtype(DType::F32)?.sqr()?.sum_all()?.to_scalar::<f32>()? as f64;
    }
    Ok(total.sqrt())
}

/// Scales gradients of norm `norm` down to `limit` if they are longer.
pub fn clip(gradients: &mut [Tensor], norm: f64, limit: f64) -> Result<()> {
    let scale = limit / (norm + 1e-6);
    if scale < 1.0 {
        for g in gradients {
            *g = (&*g * scale)?;
        }
    }
    Ok(())
}
