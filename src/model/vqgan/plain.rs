//! The operations of the VQ-GAN in candle's.

use super::layers::{Conv1x1, Conv3x3, GroupNorm, Reading, EPSILON};
use crate::ops::{matmul, COLUMNS};
use crate::Result;
use candle_core::{Tensor, D};

/// Pixels whose attention to all others is computed at once.
const QUERIES_AT_ONCE: usize = 1024;

/// A 3x3 convolution of x, which has its border already, in bands of rows.
fn convolved(x: &Tensor, weight: &Tensor, stride: usize) -> Result<Tensor> {
    let (_, c, height, width) = x.dims4()?;
    let (rows, columns) = ((height - 3) / stride + 1, (width - 3) / stride + 1);
    let band = (COLUMNS / (9 * c * columns)).clamp(1, rows);
    let mut bands = Vec::new();
    for first in (0..rows).step_by(band) {
        let count = band.min(rows - first);
        let x = x.narrow(2, first * stride, (count - 1) * stride + 3)?;
        bands.push(x.contiguous()?.conv2d(weight, 0, stride, 1, 1)?);
    }
    match bands.len() {
        1 => Ok(bands.swap_remove(0)),
        _ => Ok(Tensor::cat(&bands, 2)?),
    }
}

pub(super) fn conv3x3(conv: &Conv3x3, x: &Tensor, reading: Reading, sum: Option<Tensor>) -> Result<Tensor> {
    let x = match reading.swish {
        Some(norm) => group_norm(norm, x)?.silu()?,
        None => x.clone(),
    };
    let (_, _, h, w) = x.dims4()?;
    let x = if reading.doubled { x.upsample_nearest2d(2 * h, 2 * w)? } else { x };
    let x = x.pad_with_zeros(3, 1, 1)?.pad_with_zeros(2, 1, 1)?;
    let y = with_bias(convolved(&x, &conv.weight, 1)?, &conv.bias)?;
    match sum {
        Some(sum) => Ok((sum + y)?),
        None => Ok(y),
    }
}

pub(super) fn halve(conv: &Conv3x3, x: &Tensor) -> Result<Tensor> {
    let x = x.pad_with_zeros(3, 0, 1)?.pad_with_zeros(2, 0, 1)?;
    with_bias(convolved(&x, &conv.weight, 2)?, &conv.bias)
}

/// `bias` has a number for each channel.
fn with_bias(y: Tensor, bias: &Tensor) -> Result<Tensor> {
    Ok(y.broadcast_add(&bias.reshape((1, (), 1, 1))?)?)
}

pub(super) fn conv1x1(conv: &Conv1x1, x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let out = conv.weight.dim(0)?;
    let weight = conv.weight.broadcast_as((b, out, c))?;
    with_bias(matmul(&weight, &x.reshape((b, c, h * w))?)?.reshape((b, out, h, w))?, &conv.bias)
}

pub(super) fn group_norm(norm: &GroupNorm, x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let g = norm.groups;
    // Sums of rows first, then of the row sums: a plain running sum of millions of f32 loses digits.
    let grouped = x.reshape((b, g, c / g * h, w))?;
    let mean = grouped.mean(3)?.mean_keepdim(2)?.unsqueeze(3)?; // [B, G, 1, 1]
    let variance = grouped.broadcast_sub(&mean)?.sqr()?.mean(3)?.mean_keepdim(2)?; // [B, G, 1]
    let scale = (variance + EPSILON)?.sqrt()?.recip()?;
    // One factor and one summand per channel instead of four passes over the pixels.
    let factor = scale.broadcast_mul(&norm.weight.reshape((1, g, c / g))?)?; // [B, G, C/G]
    let summand = norm.bias.reshape((1, g, c / g))?.broadcast_sub(&factor.broadcast_mul(&mean.squeeze(3)?)?)?;
    let (factor, summand) = (factor.reshape((b, c, 1, 1))?, summand.reshape((b, c, 1, 1))?);
    Ok(x.broadcast_mul(&factor)?.broadcast_add(&summand)?)
}

/// Queries, keys and values [B, C, h, w]; what each pixel gets, [B, C, h, w].
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = q.dims4()?;
    let n = h * w;
    let q = q.reshape((b, c, n))?.transpose(1, 2)?;
    let (k, v) = (k.reshape((b, c, n))?, v.reshape((b, c, n))?);
    let mut parts = Vec::with_capacity(n.div_ceil(QUERIES_AT_ONCE));
    for start in (0..n).step_by(QUERIES_AT_ONCE) {
        let q = q.narrow(1, start, QUERIES_AT_ONCE.min(n - start))?.contiguous()?; // [B, some, C]
        let scores = (matmul(&q, &k)? * (c as f64).powf(-0.5))?;
        let scores = candle_nn::ops::softmax(&scores, D::Minus1)?; // [B, some, N]
        parts.push(matmul(&v, &scores.transpose(1, 2)?)?); // [B, C, some]
    }
    Ok(Tensor::cat(&parts, 2)?.reshape((b, c, h, w))?)
}
