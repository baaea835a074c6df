//! The operations of the VQ-GAN with the kernels of this library, a picture at a time.

use super::layers::{Conv1x1, Conv3x3, GroupNorm, Reading, EPSILON};
use crate::kernels::{self, gemm, Left, Matrix, Planes};
use crate::ops::{change, floats, Numbers};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Numbers of unfolded pixels held at once; 8 MiB stay in the cache.
const UNFOLDED: usize = 1 << 21;
/// Pixels whose attention to all others is computed at once.
const QUERIES_AT_ONCE: usize = 1024;

fn map(values: Vec<f32>, b: usize, c: usize, h: usize, w: usize) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, (b, c, h, w), &Device::Cpu)?)
}

pub(super) fn conv3x3(conv: &Conv3x3, x: &Tensor, reading: Reading, sum: Option<Tensor>) -> Result<Tensor> {
    let (b, channels, height, width) = x.dims4()?;
    let doubled = reading.doubled;
    let (h, w) = if doubled { (2 * height, 2 * width) } else { (height, width) };
    let x = x.contiguous()?;
    let (x, weight, bias) = (floats(&x)?, floats(&conv.weight)?, floats(&conv.bias)?);
    let size = bias.len() * h * w;
    let all = |to: &mut [f32], add: bool| -> Result<()> {
        for (data, y) in x.chunks_exact(channels * height * width).zip(to.chunks_exact_mut(size)) {
            let swish = reading.swish.map(|norm| factors(norm, data)).transpose()?;
            let swish = swish.as_ref().map(|(factor, summand)| (&factor[..], &summand[..]));
            kernels::conv3x3(Planes { data, channels, height, width, swish, doubled }, &weight, &bias, y, add);
        }
        Ok(())
    };
    let Some(sum) = sum else {
        let mut y = kernels::zeros(b * size);
        all(&mut y, false)?;
        return map(y, b, bias.len(), h, w);
    };
    change(&sum, |numbers| match numbers {
        Numbers::F32(to) => all(to, true),
        Numbers::Bf16(_) => Err(Error::internal("a map in bf16")),
    })?;
    Ok(sum)
}

/// The factor and the summand of each channel of a picture that make the norm.
fn factors(norm: &GroupNorm, x: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
    Ok(kernels::group_norm(x, norm.groups, &floats(&norm.weight)?, &floats(&norm.bias)?, EPSILON))
}

pub(super) fn group_norm(norm: &GroupNorm, x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let x = x.contiguous()?;
    let x = floats(&x)?;
    let mut y = Vec::with_capacity(x.len());
    for x in x.chunks_exact(c * h * w) {
        let (factor, summand) = factors(norm, x)?;
        for (x, (factor, summand)) in x.chunks_exact(h * w).zip(factor.into_iter().zip(summand)) {
            y.extend(x.iter().map(|x| factor * x + summand));
        }
    }
    map(y, b, c, h, w)
}

/// A matrix product over every second pixel's neighbours, some rows of the picture at a time.
pub(super) fn halve(conv: &Conv3x3, x: &Tensor) -> Result<Tensor> {
    let (b, c, height, width) = x.dims4()?;
    let (h, w) = (height / 2, width / 2);
    let x = x.contiguous()?;
    let (x, weight, bias) = (floats(&x)?, floats(&conv.weight)?, floats(&conv.bias)?);
    let out = bias.len();
    let mut y = kernels::zeros(b * out * h * w);
    let band = (UNFOLDED / (9 * c * w).max(1)).clamp(1, h.max(1));
    let mut neighbours = kernels::zeros(9 * c * band * w);
    for (x, y) in x.chunks_exact(c * height * width).zip(y.chunks_exact_mut(out * h * w)) {
        for (y, &bias) in y.chunks_exact_mut(h * w).zip(bias.iter()) {
            y.fill(bias);
        }
        for top in (0..h).step_by(band) {
            let rows = band.min(h - top);
            let pixels = rows * w;
            // [9 in, pixels]: by channel, then by neighbour, as the weights lie.
            neighbours.par_chunks_exact_mut(pixels).take(9 * c).enumerate().for_each(|(index, line)| {
                let (plane, (dy, dx)) = (&x[index / 9 * height * width..], (index % 9 / 3, index % 3));
                for (row, to) in line.chunks_exact_mut(w).enumerate() {
                    let from = 2 * (top + row) + dy;
                    // Below and to the right of the picture there are zeros.
                    to.fill(0.0);
                    if from < height {
                        let from = &plane[from * width + dx..(from + 1) * width];
                        to.iter_mut().zip(from.chunks(2)).for_each(|(to, from)| *to = from[0]);
                    }
                }
            });
            let (left, right) = (Left { data: &weight, row: 9 * c, column: 1 }, Matrix::F32(&neighbours));
            gemm((out, pixels, 9 * c), left, (right, pixels, false), (&mut y[top * w..], h * w), true);
        }
    }
    map(y, b, out, h, w)
}

pub(super) fn conv1x1(conv: &Conv1x1, x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let x = x.contiguous()?;
    let (x, weight, bias) = (floats(&x)?, floats(&conv.weight)?, floats(&conv.bias)?);
    let (n, out) = (h * w, bias.len());
    let mut y = kernels::zeros(b * out * n);
    for (x, y) in x.chunks_exact(c * n).zip(y.chunks_exact_mut(out * n)) {
        for (y, &bias) in y.chunks_exact_mut(n).zip(bias.iter()) {
            y.fill(bias);
        }
        gemm((out, n, c), Left { data: &weight, row: c, column: 1 }, (Matrix::F32(x), n, false), (y, n), true);
    }
    map(y, b, out, h, w)
}

/// Queries, keys and values [B, C, h, w]; what each pixel gets, [B, C, h, w].
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = q.dims4()?;
    let (n, scale) = (h * w, (c as f32).powf(-0.5));
    let (q, k, v) = (floats(q)?, floats(k)?, floats(v)?);
    let mut y = kernels::zeros(b * c * n);
    let mut scores = kernels::zeros(QUERIES_AT_ONCE.min(n) * n);
    for (picture, y) in y.chunks_exact_mut(c * n).enumerate() {
        let own = picture * c * n..(picture + 1) * c * n;
        let (q, k, v) = (&q[own.clone()], &k[own.clone()], &v[own]);
        for first in (0..n).step_by(QUERIES_AT_ONCE) {
            let some = QUERIES_AT_ONCE.min(n - first);
            let scores = &mut scores[..some * n];
            let left = Left { data: &q[first..], row: 1, column: n };
            gemm((some, n, c), left, (Matrix::F32(k), n, false), (scores, n), false);
            kernels::softmax(scores, n, scale);
            // [C, some] = v scores^T
            let left = Left { data: v, row: n, column: 1 };
            gemm((c, some, n), left, (Matrix::F32(scores), n, true), (&mut y[first..], n), false);
        }
    }
    map(y, b, c, h, w)
}
