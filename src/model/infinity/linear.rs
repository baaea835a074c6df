//! A matrix of a layer with its bias and, perhaps, a low-rank change, forward and backward.

use super::ops;
use crate::model::weight::Weight;
use crate::Result;
use candle_core::Tensor;

/// Adds `up down` to a matrix [out, in].
#[derive(Clone)]
pub struct LowRank {
    /// [rank, in]
    pub down: Weight,
    /// [out, rank]
    pub up: Weight,
}

/// `x W^T + bias`, parts of it borrowed from where they are kept.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    pub weight: &'a Weight,
    /// [out]
    pub bias: Option<&'a Tensor>,
    pub low_rank: Option<&'a LowRank>,
}

/// What gradients of a [`Linear`] are wanted.
#[derive(Clone, Copy, Default)]
pub struct Asked {
    pub weight: bool,
    pub bias: bool,
    pub low_rank: bool,
}

/// Gradients of a [`Linear`], f32; those that were not asked for are none.
#[derive(Default)]
pub struct Found {
    pub weight: Option<Tensor>,
    pub bias: Option<Tensor>,
    /// Of down and up.
    pub low_rank: Option<(Tensor, Tensor)>,
}

impl Linear<'_> {
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = ops::linear(x, self.weight)?;
        if let Some(LowRank { down, up }) = self.low_rank {
            y = crate::model::ops::add(y, &ops::linear(&ops::linear(x, down)?, up)?)?;
        }
        match self.bias {
            Some(bias) => ops::add_bias(y, bias),
            None => Ok(y),
        }
    }

    /// The gradients of what is asked for, where `x` is what went in; the gradient of x is added to `sum`, unless `input` is false.
    pub fn backward(
        &self,
        g: &Tensor,
        x: impl Fn() -> Result<Tensor>,
        asked: Asked,
        input: bool,
        sum: Option<Tensor>,
    ) -> Result<(Option<Tensor>, Found)> {
        let mut found = Found::default();
        let change = self.low_rank.filter(|_| asked.low_rank || input);
        let x = if asked.weight || change.is_some() && asked.low_rank { Some(x()?) } else { None };
        if let (true, Some(x)) = (asked.weight, &x) {
            found.weight = Some(crate::model::ops::weight_gradient(g, x)?);
        }
        if asked.bias {
            found.bias = Some(ops::row_sums(g, 1)?.squeeze(0)?);
        }
        let mut dx = match input {
            true => Some(ops::input_gradient(g, self.weight, sum)?),
            false => None,
        };
        if let Some(LowRank { down, up }) = change {
            let low = ops::input_gradient(g, up, None)?;
            if let (true, Some(x)) = (asked.low_rank, &x) {
                let of_down = crate::model::ops::weight_gradient(&low, x)?;
                let of_up = crate::model::ops::weight_gradient(g, &ops::linear(x, down)?)?;
                found.low_rank = Some((of_down, of_up));
            }
            if input {
                dx = Some(ops::input_gradient(&low, down, dx)?);
            }
        }
        Ok((dx, found))
    }
}
