//! The building blocks in candle's operations, for any device. Statistics, softmax and loss in f32, the rest in the dtype
//! of the activations. On a GPU `fused` does in one launch what would be many.

pub use super::attention::{attention, attention_backward};
use super::{fused, Heads};
use crate::device::{kernel, to_host};
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
pub fn in_order(x: &Tensor) -> bool {
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

/// As [`linear`], in f32 as it comes out of the sums.
pub fn linear_f32(x: &Tensor, weight: &Weight) -> Result<Tensor> {
    let rows = flat(x)?;
    let y = match weight {
        Weight::Dense(w) if rows.dtype() == DType::BF16 => {
            product_f32(&rows.contiguous()?, &w.to_dtype(DType::BF16)?, true, None)?
        }
        Weight::Dense(w) => product(&rows, &w.to_dtype(x.dtype())?.t()?)?,
        Weight::Quantised(q) => QMatMul::from_arc(q.tensor()?)?.forward(&rows.to_dtype(DType::F32)?)?,
    };
    with_width(x, y, weight.dims()[0])
}

/// See [`kernel::product_f32`].
fn product_f32(x: &Tensor, weight: &Tensor, across: bool, sum: Option<Tensor>) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return kernel::product_f32(x, weight, across, sum);
    }
    let weight = weight.to_dtype(DType::F32)?;
    let y = x.to_dtype(DType::F32)?.matmul(&if across { weight.t()? } else { weight })?;
    Ok(match sum {
        Some(sum) => (sum + y)?,
        None => y,
    })
}

/// As `input_gradient` for a bf16 gradient, but f32 as it comes out of the sums, and so is `sum`.
pub fn input_gradient_f32(g: &Tensor, weight: &Weight, sum: Option<Tensor>) -> Result<Tensor> {
    let w = match weight {
        Weight::Dense(w) => w.to_dtype(g.dtype())?,
        Weight::Quantised(_) => weight.to_f32()?.to_dtype(g.dtype())?,
    };
    let sum = sum.map(|sum| flat(&sum)?.contiguous().map_err(Error::from)).transpose()?;
    let dx = match g.dtype() {
        DType::BF16 => product_f32(&flat(g)?.contiguous()?, &w, false, sum)?,
        _ => {
            let dx = product(&flat(g)?.contiguous()?, &w)?;
            match sum {
                Some(sum) => (sum + dx)?,
                None => dx,
            }
        }
    };
    with_width(g, dx, weight.dims()[1])
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

/// Numbers that a convolution makes of its input at once, nine for each place and channel: half a gigabyte, in tests so few that there
/// are several bands. Where candle counts more than 32 bits hold, the rest of a picture stays unwritten.
pub const COLUMNS: usize = if cfg!(test) { 1 << 14 } else { 1 << 27 };

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
