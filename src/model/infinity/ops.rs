//! The building blocks that only this family has, on tensors: the kernels of this library on the CPU, candle's operations
//! elsewhere. Activations are f32 [B, T, C] everywhere; norms, gates and biases have a row for each of B sequences or one for all.

use crate::kernels::{self, zeros, Cosine};
use crate::ops::{self, change, floats, fused, own_kernels, standardised, Numbers};
use crate::weight::Weight;
use crate::{Error, Result};
use candle_core::{Device, Tensor, D};

fn tensor(values: Vec<f32>, dims: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?)
}

/// Changes the numbers of a contiguous f32 tensor that nobody else holds.
fn in_place(t: Tensor, f: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Tensor> {
    change(&t, |numbers| match numbers {
        Numbers::F32(numbers) => f(numbers),
        Numbers::Bf16(_) => Err(Error::internal("expected f32, found bf16")),
    })?;
    Ok(t)
}

fn width(x: &Tensor) -> Result<usize> {
    Ok(x.dim(D::Minus1)?)
}

/// A row for each sequence or one for all, [groups, C], as [groups, 1, C].
fn spread(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.reshape((rows.elem_count() / width(rows)?, 1, ()))?)
}

/// Factors of products on a GPU are in the dtype of the weights.
fn beside(x: &Tensor, weight: &Weight) -> Result<Tensor> {
    Ok(x.to_dtype(weight.dense_dtype())?)
}

/// `x W^T`
pub fn linear(x: &Tensor, weight: &Weight) -> Result<Tensor> {
    /// From the sixth scale on packing pays: a token's scale is always as long.
    const FEW: usize = 32;
    match own_kernels(x) {
        true => ops::linear_packed(x, weight, FEW),
        false => ops::linear_f32(&beside(x, weight)?, weight),
    }
}

/// `g W`, added to `sum`.
pub fn input_gradient(g: &Tensor, weight: &Weight, sum: Option<Tensor>) -> Result<Tensor> {
    if own_kernels(g) {
        return ops::input_gradient(g, weight, sum);
    }
    ops::input_gradient_f32(&beside(g, weight)?, weight, sum)
}

/// `y + bias` for a bias `[C]`; the numbers of y are taken over.
pub fn add_bias(y: Tensor, bias: &Tensor) -> Result<Tensor> {
    if !own_kernels(&y) {
        return ops::add_bias(y, bias);
    }
    let bias = floats(bias)?;
    in_place(y, |y| {
        kernels::add_gated(y, bias.len(), None, &bias);
        Ok(())
    })
}

/// `(x - mean) / deviation * factor + summand` over the channels.
pub fn layer_norm(x: &Tensor, factor: &Tensor, summand: &Tensor, eps: f64) -> Result<Tensor> {
    if !own_kernels(x) {
        if fused::serve(x) {
            return fused::layer_norm(x, factor, summand, eps);
        }
        return Ok(standardised(x, eps)?.0.broadcast_mul(&spread(factor)?)?.broadcast_add(&spread(summand)?)?);
    }
    let x = x.contiguous()?;
    let mut y = zeros(x.elem_count());
    kernels::layer_norm(&floats(&x)?, width(&x)?, &floats(factor)?, &floats(summand)?, eps as f32, &mut y);
    tensor(y, x.dims())
}

/// The gradients of x and, if wanted, of factor and summand in [`layer_norm`].
pub fn layer_norm_backward(
    g: &Tensor,
    x: &Tensor,
    factor: &Tensor,
    eps: f64,
    wanted: bool,
) -> Result<(Tensor, Option<(Tensor, Tensor)>)> {
    if !own_kernels(g) {
        if !wanted && fused::serve(g) {
            return Ok((fused::layer_norm_backward(g, x, factor, eps)?, None));
        }
        let (hat, scale) = standardised(x, eps)?;
        let groups = factor.elem_count() / width(factor)?;
        let sums = match wanted {
            true => Some((row_sums(&(g * &hat)?, groups)?, row_sums(g, groups)?)),
            false => None,
        };
        let g = g.broadcast_mul(&spread(factor)?)?;
        let along = (&g * &hat)?.mean_keepdim(D::Minus1)?;
        let dx = (g.broadcast_sub(&g.mean_keepdim(D::Minus1)?)? - hat.broadcast_mul(&along)?)?;
        return Ok((dx.broadcast_mul(&scale)?, sums));
    }
    let (g, x) = (g.contiguous()?, x.contiguous()?);
    let mut dx = zeros(x.elem_count());
    let n = width(&x)?;
    let sums =
        kernels::layer_norm_backward(&floats(&g)?, &floats(&x)?, n, &floats(factor)?, eps as f32, &mut dx, wanted);
    let sums = match wanted {
        true => {
            let sums = tensor(sums, &[2, factor.elem_count() / n, n])?;
            Some((sums.get(0)?, sums.get(1)?))
        }
        false => None,
    };
    Ok((tensor(dx, x.dims())?, sums))
}

/// `sum + x * gate`
pub fn gated_sum(sum: &Tensor, x: &Tensor, gate: &Tensor) -> Result<Tensor> {
    if !own_kernels(sum) {
        if fused::serve(sum) {
            return fused::gated(Some(sum), x, gate);
        }
        return Ok((sum + x.broadcast_mul(&spread(gate)?)?)?);
    }
    let (x, gate) = (floats(x)?, floats(gate)?);
    in_place(sum.force_contiguous()?, |y| {
        kernels::add_gated(y, width(sum)?, Some(&x), &gate);
        Ok(())
    })
}

/// The gradient of x in [`gated_sum`], and with `x` that of the gate.
pub fn gate_backward(g: &Tensor, x: Option<&Tensor>, gate: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    let n = width(g)?;
    let groups = gate.elem_count() / n;
    if !own_kernels(g) {
        let sum = x.map(|x| row_sums(&(g * x)?, groups)).transpose()?;
        if fused::serve(g) {
            return Ok((fused::gated(None, g, gate)?, sum));
        }
        return Ok((g.broadcast_mul(&spread(gate)?)?, sum));
    }
    let g = g.contiguous()?;
    let mut dx = zeros(g.elem_count());
    let sums = match x {
        Some(x) => kernels::gate_backward(&floats(&g)?, n, Some(&floats(x)?), &floats(gate)?, &mut dx),
        None => kernels::gate_backward(&floats(&g)?, n, None, &floats(gate)?, &mut dx),
    };
    let sums = x.map(|_| tensor(sums, &[groups, n])).transpose()?;
    Ok((tensor(dx, g.dims())?, sums))
}

/// Sums over the rows of each of some groups: [groups, C].
pub fn row_sums(g: &Tensor, groups: usize) -> Result<Tensor> {
    let n = width(g)?;
    if !own_kernels(g) {
        return Ok(g.reshape((groups, (), n))?.sum(1)?);
    }
    let g = g.contiguous()?;
    let sums = kernels::row_sums(&floats(&g)?, n, groups);
    tensor(sums, &[groups, n])
}

/// `gelu(x)` in its tanh form, or `gelu(x) * up`.
pub fn gelu(x: &Tensor, up: Option<&Tensor>) -> Result<Tensor> {
    if !own_kernels(x) {
        let y = x.gelu()?;
        return Ok(match up {
            Some(up) => (y * up)?,
            None => y,
        });
    }
    let mut y = zeros(x.elem_count());
    match up {
        Some(up) => kernels::gelu_tanh(&floats(x)?, Some(&floats(up)?), &mut y),
        None => kernels::gelu_tanh(&floats(x)?, None, &mut y),
    }
    tensor(y, x.dims())
}

/// The gradient of x in [`gelu`] without `up`; the numbers of x are taken over.
pub fn gelu_backward(g: &Tensor, x: Tensor) -> Result<Tensor> {
    if !own_kernels(g) {
        let square = x.sqr()?;
        let v = (&x * ((&square * 0.044715)? + 1.0)?)?;
        let s = candle_nn::ops::sigmoid(&(v * 1.595_769_121_605_731)?)?;
        let slope = (((square * (3.0 * 0.044715))? + 1.0)? * 1.595_769_121_605_731)?;
        let slope = (&s + ((&x * &s)? * (1.0 - &s)?)?.mul(&slope)?)?;
        return Ok((g * slope)?);
    }
    let g = g.contiguous()?;
    let gs = floats(&g)?;
    in_place(x, |x| {
        kernels::gelu_tanh_backward(&gs, x);
        Ok(())
    })
}

/// Where queries or keys lie in a wider matrix, and what is done with them.
#[derive(Clone, Copy)]
pub struct Turning<'a> {
    /// First channel.
    pub first: usize,
    /// What each head's vectors of length one are multiplied by, `[heads]`
    pub strength: &'a Tensor,
    /// [T, d / 2] each
    pub cos: &'a Tensor,
    pub sin: &'a Tensor,
}

impl Turning<'_> {
    fn sizes(&self) -> Result<(usize, usize)> {
        Ok((self.strength.elem_count(), 2 * width(self.cos)?))
    }

    fn kernel<R>(&self, pitch: usize, f: impl FnOnce(Cosine) -> R) -> Result<R> {
        let (heads, d) = self.sizes()?;
        let (strength, cos, sin) = (self.strength.contiguous()?, self.cos.contiguous()?, self.sin.contiguous()?);
        let (strength, cos, sin) = (floats(&strength)?, floats(&cos)?, floats(&sin)?);
        Ok(f(Cosine { heads, d, pitch, strength: &strength, cos: &cos, sin: &sin }))
    }

    fn fused(&self) -> fused::Cosine<'_> {
        fused::Cosine { first: self.first, strength: self.strength, cos: self.cos, sin: self.sin }
    }

    /// Heads [B, T, heads, d] and the inverse of their lengths, [B, T, heads, 1].
    fn heads(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (heads, d) = self.sizes()?;
        let (b, t, _) = x.dims3()?;
        let x = x.narrow(2, self.first, heads * d)?.reshape((b, t, heads, d))?;
        let length = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
        Ok((x, length.recip()?))
    }

    /// Even and odd channels by the angles, or back.
    fn rotate(&self, x: &Tensor, back: bool) -> Result<Tensor> {
        let (b, t, heads, d) = x.dims4()?;
        let pairs = x.reshape((b, t, heads, d / 2, 2))?;
        let part = |i: usize| pairs.narrow(4, i, 1)?.squeeze(4);
        let (p, q) = (part(0)?, part(1)?);
        let (cos, sin) = (self.cos.unsqueeze(1)?, self.sin.unsqueeze(1)?);
        let sin = if back { sin.neg()? } else { sin };
        let first = (p.broadcast_mul(&cos)? - q.broadcast_mul(&sin)?)?;
        let second = (q.broadcast_mul(&cos)? + p.broadcast_mul(&sin)?)?;
        Ok(Tensor::stack(&[first, second], 4)?.reshape((b, t, heads, d))?)
    }

    fn strengths(&self) -> Result<Tensor> {
        Ok(self.strength.reshape(((), 1))?)
    }
}

/// Heads of length `strength`, turned by their positions: [B, T, heads, d] of x [B, T, ..].
pub fn turn(x: &Tensor, by: &Turning) -> Result<Tensor> {
    if !own_kernels(x) {
        if fused::serve(x) {
            return fused::cosine_turn(x, &by.fused());
        }
        let (heads, inverse) = by.heads(x)?;
        return by.rotate(&heads.broadcast_mul(&inverse)?.broadcast_mul(&by.strengths()?)?, false);
    }
    let (heads, d) = by.sizes()?;
    let (b, t, pitch) = x.dims3()?;
    let mut y = zeros(b * t * heads * d);
    let values = floats(x)?;
    by.kernel(pitch, |kernel| kernel.forward(&values[by.first..], &mut y))?;
    tensor(y, &[b, t, heads, d])
}

/// As [`turn`] of queries and keys, and with the values behind them: keys and values go to the slots from `at` on of caches
/// [B, heads, slots, d]. Returns the queries, in the dtype of the caches.
pub fn turn_and_put(x: &Tensor, queries: &Turning, keys: &Turning, caches: [&Tensor; 2], at: usize) -> Result<Tensor> {
    if fused::serve(x) {
        return fused::cosine_put(x, &queries.fused(), caches, at);
    }
    let ((b, t, _), (heads, d), dtype) = (x.dims3()?, queries.sizes()?, caches[0].dtype());
    let v = x.narrow(2, 2 * heads * d, heads * d)?.reshape((b, t, heads, d))?;
    for (cache, new) in caches.into_iter().zip([turn(x, keys)?, v]) {
        cache.slice_set(&new.transpose(1, 2)?.to_dtype(dtype)?.contiguous()?, 2, at)?;
    }
    Ok(turn(x, queries)?.to_dtype(dtype)?)
}

/// The gradient of x in [`turn`], which goes to its place in `dx` [B, T, ..], and that of the strengths, `[heads]`.
pub fn turn_backward(g: &Tensor, x: &Tensor, by: &Turning, dx: Tensor) -> Result<(Tensor, Tensor)> {
    let (heads, d) = by.sizes()?;
    let (b, t, pitch) = x.dims3()?;
    if !own_kernels(g) {
        if fused::serve(g) {
            let strengths = fused::cosine_turn_backward(g, x, &by.fused(), &dx)?.sum(0)?;
            return Ok((dx, strengths));
        }
        let (values, inverse) = by.heads(x)?;
        let hat = values.broadcast_mul(&inverse)?;
        let back = by.rotate(g, true)?;
        let along = (&back * &hat)?.sum_keepdim(D::Minus1)?;
        let strengths = along.reshape((b * t, heads))?.sum(0)?;
        let own = (back - hat.broadcast_mul(&along)?)?.broadcast_mul(&inverse)?.broadcast_mul(&by.strengths()?)?;
        let own = own.reshape((b, t, heads * d))?;
        dx.slice_set(&own, 2, by.first)?;
        return Ok((dx, strengths));
    }
    let g = g.contiguous()?;
    let (gs, xs) = (floats(&g)?, floats(x)?);
    let mut strengths = Vec::new();
    let dx = in_place(dx, |dx| {
        strengths = by.kernel(pitch, |kernel| kernel.backward(&gs, &xs[by.first..], &mut dx[by.first..]))?;
        Ok(())
    })?;
    Ok((dx, tensor(strengths, &[heads])?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::plainly;
    use crate::ops::testing::{assert_close, random};
    use candle_core::DType;

    /// Results by the kernels and by candle's operations agree.
    fn compare(what: &str, f: impl Fn() -> Result<Vec<Tensor>>) {
        for (i, (own, plain)) in f().unwrap().iter().zip(plainly(|| f().unwrap())).enumerate() {
            assert_close(own, &plain, &format!("{what}, result {i}"));
        }
    }

    #[test]
    fn kernels_give_what_plain_operations_give() {
        for (b, t, c) in [(2, 5, 70), (3, 33, 24), (1, 100, 64), (2, 1, 16)] {
            let (x, g) = (random(&[b, t, c]), random(&[b, t, c]));
            for groups in [b, 1] {
                let (m, s) = (random(&[groups, c]), random(&[groups, c]));
                compare("norm", || Ok(vec![layer_norm(&x, &m, &s, 1e-6)?]));
                compare("norm backward", || {
                    let (dx, sums) = layer_norm_backward(&g, &x, &m, 1e-6, true)?;
                    let (dm, ds) = sums.unwrap();
                    Ok(vec![dx, dm, ds, layer_norm_backward(&g, &x, &m, 1e-6, false)?.0])
                });
                compare("gate", || Ok(vec![gated_sum(&x, &g, &m)?]));
                compare("gate backward", || {
                    let (dx, dm) = gate_backward(&g, Some(&x), &m)?;
                    Ok(vec![dx, dm.unwrap(), gate_backward(&g, None, &m)?.0])
                });
                compare("sums", || Ok(vec![row_sums(&g, groups)?]));
            }
            let bias = random(&[c]);
            compare("bias", || Ok(vec![add_bias(x.copy()?, &bias)?]));
            compare("gelu", || Ok(vec![gelu(&x, None)?, gelu(&x, Some(&g))?, gelu_backward(&g, x.copy()?)?]));
        }
    }

    #[test]
    fn turned_heads_go_into_caches_as_into_tensors() {
        let (b, t, heads, d, at) = (2, 3, 2, 8, 2);
        let x = random(&[b, t, 3 * heads * d]);
        let (strength, cos, sin) = (random(&[heads]), random(&[t, d / 2]), random(&[t, d / 2]));
        let ones = Tensor::ones(heads, DType::F32, &Device::Cpu).unwrap();
        let by = |first, strength| Turning { first, strength, cos: &cos, sin: &sin };
        let (queries, keys) = (by(0, &strength), by(heads * d, &ones));
        let expected = [turn(&x, &queries).unwrap(), turn(&x, &keys).unwrap()];
        let put = || {
            let cache = || Tensor::zeros((b, heads, 7, d), DType::F32, &Device::Cpu).unwrap();
            let (k, v) = (cache(), cache());
            let q = turn_and_put(&x, &queries, &keys, [&k, &v], at).unwrap();
            let there = |cache: Tensor| cache.narrow(2, at, t).unwrap().transpose(1, 2).unwrap();
            assert_close(&q, &expected[0], "queries");
            assert_close(&there(k), &expected[1], "keys");
            let values = x.narrow(2, 2 * heads * d, heads * d).unwrap().reshape((b, t, heads, d)).unwrap();
            assert_close(&there(v), &values, "values");
        };
        plainly(put);
        crate::device::twin::with_each(|| plainly(put));
    }

    /// As compiled for the CPU; `plainly` calls them then.
    #[test]
    fn the_kernels_for_gpus_give_what_those_of_the_cpu_give() {
        crate::device::twin::with_each(|| {
            kernels_give_what_plain_operations_give();
            turned_heads_and_their_gradients_are_those_of_plain_operations();
        });
    }

    #[test]
    fn turned_heads_and_their_gradients_are_those_of_plain_operations() {
        for (b, t, heads, d) in [(2, 5, 3, 8), (1, 40, 2, 20), (3, 1, 1, 64)] {
            let x = random(&[b, t, 3 * heads * d]);
            let (strength, cos, sin) = (random(&[heads]), random(&[t, d / 2]), random(&[t, d / 2]));
            let g = random(&[b, t, heads, d]);
            for part in 0..3 {
                let by = Turning { first: part * heads * d, strength: &strength, cos: &cos, sin: &sin };
                compare("turn", || Ok(vec![turn(&x, &by)?]));
                compare("turn backward", || {
                    let (dx, strengths) = turn_backward(&g, &x, &by, x.zeros_like()?)?;
                    Ok(vec![dx, strengths])
                });
            }
        }
    }
}
