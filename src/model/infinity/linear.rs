//! A matrix with its bias and, perhaps, a low-rank change, forward and backward.

use super::ops;
use crate::ops::{add, weight_gradient};
use crate::weight::Weight;
use crate::weights::{Gradients, LowRank, Part, Target, Wanted, WeightId};
use crate::Result;
use candle_core::Tensor;

/// `x W^T + bias`, parts of it borrowed from where they are kept.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    pub weight: &'a Weight,
    /// `[out]`
    pub bias: Option<&'a Tensor>,
    pub low_rank: Option<&'a LowRank>,
}

impl Linear<'_> {
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = ops::linear(x, self.weight)?;
        if let Some(LowRank { down, up, scale }) = self.low_rank {
            y = add(y, &scaled(ops::linear(&ops::linear(x, down)?, up)?, *scale)?)?;
        }
        match self.bias {
            Some(bias) => ops::add_bias(y, bias),
            None => Ok(y),
        }
    }

    /// The gradient of what went in, added to `sum`, unless `input` is false. The gradients of the matrix, which is number `id`, go to
    /// `found` if they are wanted; `x` gives what went in.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        id: WeightId,
        g: &Tensor,
        x: impl Fn() -> Result<Tensor>,
        input: bool,
        sum: Option<Tensor>,
        wanted: &Wanted,
        found: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let (whole, factors) = (wanted.whole(id), wanted.factors(id) && self.low_rank.is_some());
        let x = if whole || factors { Some(x()?) } else { None };
        if let Some(x) = &x {
            wanted.collect(id, found, || weight_gradient(g, x))?;
        }
        let mut dx = match input {
            true => Some(ops::input_gradient(g, self.weight, sum)?),
            false => None,
        };
        let Some(LowRank { down, up, scale }) = self.low_rank.filter(|_| factors || input) else { return Ok(dx) };
        let g = scaled(g.clone(), *scale)?;
        let low = ops::input_gradient(&g, up, None)?;
        if let (true, Some(x)) = (factors, &x) {
            let mut push = |part: Part, gradient: Tensor| found.push((Target { part, weight: id }, gradient));
            push(Part::Down, weight_gradient(&low, x)?);
            push(Part::Up, weight_gradient(&g, &ops::linear(x, down)?)?);
        }
        if input {
            dx = Some(ops::input_gradient(&low, down, dx)?);
        }
        Ok(dx)
    }
}

fn scaled(x: Tensor, scale: f64) -> Result<Tensor> {
    Ok(if scale == 1.0 { x } else { (x * scale)? })
}
