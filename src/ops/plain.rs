//! The building blocks in candle's operations, for any device. Statistics, softmax and loss in f32, the rest in the dtype
//! of the activations. On a GPU `fused` does in one launch what would be many.

use super::{fused, Heads, Rows, Seen};
use crate::device::to_host;
use crate::weight::Weight;
use crate::{Error, Result};
use candle_core::quantized::QMatMul;
use candle_core::{DType, Module, Tensor, D};

/// `a b`. On the CPU, where tests run what a GPU will: layouts that cuBLAS would refuse are refused, and products of bf16, which candle
/// does not have there, are rounded as a GPU rounds them.
pub fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !a.device().is_cpu() {
        return Ok(a.matmul(b)?);
    }
    if !(in_order(a) && in_order(b)) {
        let layouts = [a.stride(), b.stride()];
        return Err(Error::internal(format!("{:?} times {:?} with strides {layouts:?}", a.dims(), b.dims())));
    }
    match a.dtype() {
        DType::BF16 => Ok(a.to_dtype(DType::F32)?.matmul(&b.to_dtype(DType::F32)?)?.to_dtype(DType::BF16)?),
        _ => Ok(a.matmul(b)?),
    }
}

/// Whether the matrices of a tensor lie as cuBLAS takes them: each by rows or by columns, and one behind the other at equal distances
/// (candle's `gemm_config`).
fn in_order(x: &Tensor) -> bool {
    let (dims, stride) = (x.dims(), x.stride());
    let ([outer @ .., rows, columns], [.., down, across]) = (dims, stride) else { return false };
    let by_rows = (*across == 1 || *columns == 1) && (*down == *columns || *rows == 1);
    let by_columns = (*down == 1 || *rows == 1) && (*across == *rows || *columns == 1);
    let steps = match (outer, &stride[..outer.len()]) {
        ([first, second], [far, near]) => *far == near * second || *first == 1 || *second == 1,
        ([] | [_], _) => true,
        _ => false,
    };
    (by_rows || by_columns) && steps
}

/// x [.., width] as [rows, width].
fn flat(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    Ok(x.reshape((x.elem_count() / width, width))?)
}

fn with_width(like: &Tensor, y: Tensor, width: usize) -> Result<Tensor> {
    let mut dims = like.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = width;
    }
    Ok(y.reshape(dims)?)
}

pub fn linear(x: &Tensor, weight: &Weight) -> Result<Tensor> {
    let y = match weight {
        Weight::Dense(w) => product(&flat(x)?, &w.to_dtype(x.dtype())?.t()?)?,
        Weight::Quantised(q) => {
            QMatMul::from_arc(q.tensor()?)?.forward(&flat(x)?.to_dtype(DType::F32)?)?.to_dtype(x.dtype())?
        }
    };
    with_width(x, y, weight.dims()[0])
}

pub fn input_gradient(g: &Tensor, weight: &Weight, sum: Option<Tensor>) -> Result<Tensor> {
    let w = match weight {
        Weight::Dense(w) => w.to_dtype(g.dtype())?,
        Weight::Quantised(_) => weight.to_f32()?.to_dtype(g.dtype())?,
    };
    let dx = with_width(g, product(&flat(g)?.contiguous()?, &w)?, weight.dims()[1])?;
    match sum {
        Some(sum) => Ok((sum + dx)?),
        None => Ok(dx),
    }
}

pub fn weight_gradient(g: &Tensor, x: &Tensor) -> Result<Tensor> {
    Ok(product(&flat(g)?.t()?, &flat(x)?)?.to_dtype(DType::F32)?)
}

pub fn add(a: Tensor, b: &Tensor) -> Result<Tensor> {
    Ok((a + b)?)
}

/// The numbers divided by their root mean square, f32, and one over it.
fn rms(x: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let x = x.to_dtype(DType::F32)?;
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
    Ok((x.broadcast_mul(&scale)?, scale))
}

pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if fused::serve(x) {
        return fused::rms_norm(x, weight, eps);
    }
    Ok(rms(x, eps)?.0.to_dtype(x.dtype())?.broadcast_mul(weight)?)
}

pub fn rms_norm_backward(
    g: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
    with_weight: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    if !with_weight && fused::serve(x) {
        return Ok((fused::rms_norm_backward(g, x, weight, eps)?, None));
    }
    let (hat, scale) = rms(x, eps)?;
    let g = g.to_dtype(DType::F32)?;
    let dw = with_weight.then(|| flat(&(&g * &hat)?)?.sum(0).map_err(crate::Error::from)).transpose()?;
    let g = g.broadcast_mul(&weight.to_dtype(DType::F32)?)?;
    let mean = (&g * &hat)?.mean_keepdim(D::Minus1)?;
    let dx = (g - hat.broadcast_mul(&mean)?)?.broadcast_mul(&scale)?.to_dtype(x.dtype())?;
    Ok((dx, dw))
}

/// The numbers less their mean, divided by their standard deviation, f32, and one over it.
pub fn standardised(x: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let x = x.to_dtype(DType::F32)?;
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
    Ok((x.broadcast_mul(&scale)?, scale))
}

/// Turns by the angles, or back.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, back: bool) -> Result<Tensor> {
    if fused::serve(x) {
        return fused::rotate(x, cos, sin, back);
    }
    let half = x.dim(D::Minus1)? / 2;
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let (ac, bs) = (a.broadcast_mul(cos)?, b.broadcast_mul(sin)?);
    let (bc, a_s) = (b.broadcast_mul(cos)?, a.broadcast_mul(sin)?);
    Ok(match back {
        false => Tensor::cat(&[(ac - bs)?, (bc + a_s)?], D::Minus1)?,
        true => Tensor::cat(&[(ac + bs)?, (bc - a_s)?], D::Minus1)?,
    })
}

pub fn norm_and_rotate(x: &Tensor, heads: &Heads) -> Result<Tensor> {
    if fused::serve(x) {
        return fused::norm_and_rotate(x, heads);
    }
    let n = x.dim(2)?;
    let (weight, bias) = (super::per_head(heads.weight, n)?, super::per_head(heads.bias, n)?);
    let hat = standardised(x, heads.eps)?.0.to_dtype(x.dtype())?;
    rotate(&hat.broadcast_mul(&weight)?.broadcast_add(&bias)?, heads.cos, heads.sin, false)
}

pub fn norm_and_rotate_backward(
    g: &Tensor,
    x: &Tensor,
    heads: &Heads,
    with_weight: bool,
) -> Result<(Tensor, Option<(Tensor, Tensor)>)> {
    if !with_weight && fused::serve(x) {
        return Ok((fused::norm_and_rotate_backward(g, x, heads)?, None));
    }
    let (_, _, n, d) = x.dims4()?;
    let weight = super::per_head(heads.weight, n)?;
    let (hat, scale) = standardised(x, heads.eps)?;
    let g = rotate(g, heads.cos, heads.sin, true)?.to_dtype(DType::F32)?;
    let rows = heads.weight.dim(0)?;
    let reduce = |t: &Tensor| super::per_row(&t.reshape(((), n, d))?.sum(0)?, rows);
    let sums = with_weight.then(|| Ok::<_, crate::Error>((reduce(&(&g * &hat)?)?, reduce(&g)?))).transpose()?;
    let g = g.broadcast_mul(&weight.to_dtype(DType::F32)?)?;
    let mean = g.mean_keepdim(D::Minus1)?;
    let along = (&g * &hat)?.mean_keepdim(D::Minus1)?;
    let dx = (g.broadcast_sub(&mean)? - hat.broadcast_mul(&along)?)?.broadcast_mul(&scale)?;
    Ok((dx.to_dtype(x.dtype())?, sums))
}

/// Each key/value head serves n query heads: [B, kv, S, d] -> [B, kv n, S, d].
fn repeat(x: &Tensor, n: usize) -> Result<Tensor> {
    let (b, kv, s, d) = x.dims4()?;
    match n {
        // A cache is used where it lies.
        1 if in_order(x) => Ok(x.clone()),
        1 => Ok(x.contiguous()?),
        n => Ok(x.unsqueeze(2)?.expand((b, kv, n, s, d))?.reshape((b, kv * n, s, d))?),
    }
}

/// What is added to scores [B, heads, T, S]: 0 for what is seen, minus infinity for the rest.
fn mask(seen: &Seen, slots: usize, dtype: DType) -> Result<Tensor> {
    let row = |limit: &Tensor| -> Result<(Tensor, Tensor)> {
        let (b, t) = limit.dims2()?;
        let each = Tensor::arange(0, slots as u32, limit.device())?.reshape((1, 1, 1, slots))?;
        Ok((each, limit.reshape((b, 1, t, 1))?))
    };
    let begun = seen.first.as_ref().map(|first| row(first).and_then(|(each, at)| Ok(each.broadcast_ge(&at)?)));
    let reached = seen.last.as_ref().map(|last| row(last).and_then(|(each, at)| Ok(each.broadcast_le(&at)?)));
    let both = match (begun.transpose()?, reached.transpose()?) {
        (Some(begun), Some(reached)) => begun.broadcast_mul(&reached)?,
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return Err(Error::internal("limits that limit nothing")),
    };
    // ln 1 = 0, ln 0 = minus infinity.
    Ok(both.to_dtype(DType::F32)?.log()?.to_dtype(dtype)?)
}

/// Probabilities of scores [B, heads, T, S] times `scale`, in their dtype.
fn softmax(scores: &Tensor, seen: Option<&Seen>, scale: f64) -> Result<Tensor> {
    if fused::serve(scores) {
        return fused::softmax(scores, seen, scale);
    }
    let scores = (scores * scale)?;
    let scores = match seen {
        Some(seen) => scores.broadcast_add(&mask(seen, scores.dim(D::Minus1)?, scores.dtype())?)?,
        None => scores,
    };
    Ok(candle_nn::ops::softmax_last_dim(&scores.to_dtype(DType::F32)?.contiguous()?)?.to_dtype(scores.dtype())?)
}

/// The gradient of the scores in [`softmax`], whose result was p.
fn softmax_backward(dp: &Tensor, p: &Tensor, scale: f64) -> Result<Tensor> {
    if fused::serve(dp) {
        return fused::softmax_backward(dp, p, scale);
    }
    let (wide, dtype) = (p.to_dtype(DType::F32)?, dp.dtype());
    let dp = dp.to_dtype(DType::F32)?;
    let along = (&dp * &wide)?.sum_keepdim(D::Minus1)?;
    Ok(((wide * dp.broadcast_sub(&along)?)? * scale)?.to_dtype(dtype)?)
}

/// Queries as [B, heads, T, d], keys and values as [B, heads, S, d], and the probabilities [B, heads, T, S].
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, rows: &Rows) -> Result<[Tensor; 4]> {
    let (_, _, heads, d) = q.dims4()?;
    let n = heads / k.dim(1)?;
    let q = q.transpose(1, 2)?.contiguous()?;
    let (k, v) = (repeat(k, n)?, repeat(v, n)?);
    let p = softmax(&product(&q, &k.t()?)?, rows.seen, (d as f64).powf(-0.5))?;
    Ok([q, k, v, p])
}

/// Scores that are held at once, as long as those of one head are not more; in tests so few that there are several portions.
pub const SCORES: usize = if cfg!(test) { 1 << 14 } else { 1 << 26 };

/// Numbers that a convolution makes of its input at once, nine for each place and channel: half a gigabyte, in tests so few that there
/// are several bands. Where candle counts more than 32 bits hold, the rest of a picture stays unwritten.
pub const COLUMNS: usize = if cfg!(test) { 1 << 14 } else { 1 << 27 };

/// Key/value heads that are attended to at a time: first and count.
fn portions(q: &Tensor, k: &Tensor) -> Result<Vec<(usize, usize)>> {
    let (b, t, heads, _) = q.dims4()?;
    let (_, kv, slots, _) = k.dims4()?;
    let one = b * t * slots * (heads / kv);
    let at_once = (SCORES / one.max(1)).clamp(1, kv);
    Ok((0..kv).step_by(at_once).map(|first| (first, at_once.min(kv - first))).collect())
}

pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, rows: &Rows, keep: bool) -> Result<(Tensor, Option<Tensor>)> {
    let dtype = q.dtype();
    let q = &q.to_dtype(k.dtype())?;
    let (b, t, heads, d) = q.dims4()?;
    let share = heads / k.dim(1)?;
    let mut parts = Vec::new();
    for (first, count) in portions(q, k)? {
        let q = q.narrow(2, first * share, count * share)?;
        let [_, _, v, p] = attend(&q, &k.narrow(1, first, count)?, &v.narrow(1, first, count)?, rows)?;
        parts.push(product(&p, &v)?.transpose(1, 2)?);
    }
    let o = Tensor::cat(&parts, 2)?.reshape((b, t, heads * d))?.to_dtype(dtype)?;
    // The backward pass takes the probabilities anew: to keep them would cost more than all else.
    let kept = keep.then(|| Tensor::zeros(1, DType::F32, q.device())).transpose()?;
    Ok((o, kept))
}

pub fn attention_backward(
    g: &Tensor,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    _o: &Tensor,
    _kept: &Tensor,
    rows: &Rows,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (b, t, heads, d) = q.dims4()?;
    let share = heads / k.dim(1)?;
    let g = g.reshape((b, t, heads, d))?;
    let (mut dq, mut dk, mut dv) = (Vec::new(), Vec::new(), Vec::new());
    for (first, count) in portions(q, k)? {
        let some = |x: &Tensor| x.narrow(2, first * share, count * share);
        let of = |x: &Tensor| x.narrow(1, first, count);
        let part = portion_backward(&some(&g)?, (&some(q)?, &of(k)?, &of(v)?), rows)?;
        dq.push(part.0);
        dk.push(part.1);
        dv.push(part.2);
    }
    Ok((Tensor::cat(&dq, 2)?, Tensor::cat(&dk, 2)?, Tensor::cat(&dv, 2)?))
}

/// Gradients of queries [B, T, heads, d] and of keys and values [B, S, kv, d], for some heads.
fn portion_backward(
    g: &Tensor,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    rows: &Rows,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (b, _, heads, d) = q.dims4()?;
    let (_, kv, slots, _) = k.dims4()?;
    let [q, k, v, p] = attend(q, k, v, rows)?;
    let g = g.transpose(1, 2)?.contiguous()?;
    let dv = product(&p.t()?, &g)?;
    let ds = softmax_backward(&product(&g, &v.t()?)?, &p, (d as f64).powf(-0.5))?;
    drop(p);
    let (dq, dk) = (product(&ds, &k)?, product(&ds.t()?, &q)?);
    let shared = |x: Tensor| -> Result<Tensor> {
        let x = x.reshape((b, kv, heads / kv, slots, d))?;
        let x = if heads == kv { x.squeeze(2)? } else { x.sum(2)? };
        Ok(x.transpose(1, 2)?.contiguous()?)
    };
    Ok((dq.transpose(1, 2)?.contiguous()?, shared(dk)?, shared(dv)?))
}

pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if fused::serve(gate) {
        return fused::silu_mul(gate, up);
    }
    Ok((gate.silu()? * up)?)
}

pub fn silu_mul_backward(g: &Tensor, gate: Tensor, up: Tensor) -> Result<(Tensor, Tensor)> {
    if fused::serve(&gate) {
        return fused::silu_mul_backward(g, &gate, &up);
    }
    let sigmoid = candle_nn::ops::sigmoid(&gate)?;
    let silu = (&gate * &sigmoid)?;
    // silu' = s (1 + x (1 - s)) = s + silu (1 - s)
    let slope = (&sigmoid + (&silu * (1.0 - &sigmoid)?)?)?;
    Ok((((g * &up)? * slope)?, (g * silu)?))
}

pub fn cross_entropy(
    logits: Tensor,
    targets: &[u32],
    weights: &[f32],
    z_loss: f64,
) -> Result<(Vec<f32>, Vec<f32>, Tensor)> {
    let device = logits.device();
    let target = Tensor::new(targets, device)?.unsqueeze(1)?;
    let max = logits.max_keepdim(D::Minus1)?;
    let exp = logits.broadcast_sub(&max)?.exp()?;
    let sum = exp.sum_keepdim(D::Minus1)?;
    let norm = (sum.log()? + max)?; // logsumexp, [N, 1]
    let nats = to_host(&(&norm - logits.gather(&target, 1)?)?.flatten_all()?)?.to_vec1::<f32>()?;
    let norms = to_host(&norm.flatten_all()?)?.to_vec1::<f32>()?;
    // d/dlogits = weight (softmax (1 + 2 z_loss logsumexp) - one-hot of the target)
    let weight = Tensor::new(weights, device)?.unsqueeze(1)?;
    let factor = ((norm * (2.0 * z_loss))? + 1.0)?.div(&sum)?.mul(&weight)?;
    let gradient = exp.broadcast_mul(&factor)?.scatter_add(&target, &weight.neg()?, 1)?;
    Ok((nats, norms, gradient))
}
