//! The numeric building blocks of a transformer layer, forward and backward.
//!
//! Each has two forms that give the same numbers: `cpu` calls the kernels of this library, with f32 activations whatever
//! the weights are in (what is kept for the way back may be bf16, see [`Room`]); `plain` is made of candle's operations, for
//! GPUs, with activations in the dtype of the weights. Of what would be many of those, a GPU gets kernels of our own, `fused`.
//! No operation here records a graph: what a backward pass needs is handed to it.

mod adamw;
mod attention;
mod cpu;
pub(crate) mod fused;
mod plain;
mod pointwise;
mod room;

pub use adamw::{adamw, Factors};
pub use attention::SCORES;
pub use cpu::{change, floats, quantise, Numbers};
pub use plain::{input_gradient_f32, product as matmul, standardised, COLUMNS};
pub use pointwise::{difference, gelu, gelu_backward, ln, positive_part, product, quotient, root, square, sum};
pub use room::{widened, Room};

use crate::device::to_host;
use crate::kernels;
use crate::weight::{Format, Weight};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::cell::Cell;

thread_local! {
    static PLAIN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with the operations that a GPU gets, on this thread, wherever the tensors are; for tests.
pub fn plainly<R>(f: impl FnOnce() -> R) -> R {
    let before = PLAIN.replace(true);
    let result = f();
    PLAIN.set(before);
    result
}

/// Whether the kernels of this library serve this tensor.
pub(crate) fn own_kernels(t: &Tensor) -> bool {
    own_kernels_on(t.device())
}

/// Whether the kernels of this library serve tensors there.
pub(crate) fn own_kernels_on(device: &Device) -> bool {
    device.is_cpu() && !PLAIN.get()
}

/// As [`kernels::together`], where kernels of this library serve tensors on the device; a GPU has no use for threads that wait.
pub(crate) fn together<R>(device: &Device, work: impl FnOnce() -> R) -> R {
    match own_kernels_on(device) {
        true => kernels::together(work),
        false => work(),
    }
}

/// The norm of queries or keys with the rotary positions behind it.
pub struct Heads<'a> {
    /// [rows, d] each; a row serves heads / rows consecutive heads.
    pub weight: &'a Tensor,
    pub bias: &'a Tensor,
    pub eps: f64,
    /// [B or 1, T, 1, d / 2] each.
    pub cos: &'a Tensor,
    pub sin: &'a Tensor,
}

/// What each token sees.
pub struct Rows<'a> {
    /// From slot to before slot, [B or 1, T].
    pub spans: &'a [(u32, u32)],
    /// The same on the device, for `plain` only; none if all is seen.
    pub seen: Option<&'a Seen>,
    /// Whether the result of a token must not depend on the other tokens of the pass, to the bit.
    pub one_by_one: bool,
}

/// What each token sees, on the device: the first and the last slot, u32 [B or 1, T or 1] each, or all before or behind.
#[derive(Clone)]
pub struct Seen {
    pub first: Option<Tensor>,
    pub last: Option<Tensor>,
}

impl Seen {
    /// For spans of `rows` rows of the batch, or of one for all; none if they see all of the slots.
    pub fn new(spans: &[(u32, u32)], rows: usize, slots: usize, device: &Device) -> Result<Option<Self>> {
        let limits = |of: fn(&(u32, u32)) -> u32, needless: u32| -> Result<Option<Tensor>> {
            let values: Vec<u32> = spans.iter().map(of).collect();
            let needed = values.iter().any(|&value| value != needless);
            Ok(needed.then(|| Tensor::from_vec(values, (rows, spans.len() / rows.max(1)), device)).transpose()?)
        };
        let (first, last) = (limits(|span| span.0, 0)?, limits(|span| span.1 - 1, slots as u32 - 1)?);
        Ok((first.is_some() || last.is_some()).then_some(Seen { first, last }))
    }
}

/// Picks the form that serves the tensor.
macro_rules! either {
    ($which:expr, $name:ident($($arg:expr),*)) => {
        if own_kernels($which) { cpu::$name($($arg),*) } else { plain::$name($($arg),*) }
    };
}

/// `x W^T` for x [.., in] and W [out, in].
pub fn linear(x: &Tensor, weight: &Weight) -> Result<Tensor> {
    /// Prompts and windows of drafts: what they give may not depend on how many tokens a pass has.
    const FEW: usize = 256;
    linear_packed(x, weight, FEW)
}

/// As [`linear`], where packing is to begin behind sequences of `few` tokens: of models in which a token always comes in a
/// sequence of the same length.
pub fn linear_packed(x: &Tensor, weight: &Weight, few: usize) -> Result<Tensor> {
    match own_kernels(x) {
        true => cpu::linear(x, weight, few),
        false => plain::linear(x, weight),
    }
}

/// As [`linear`], but in f32 as it comes out of the sums, whatever x is in: logits, which a head in bf16 would give in steps of a tenth.
pub fn linear_f32(x: &Tensor, weight: &Weight) -> Result<Tensor> {
    match own_kernels(x) {
        true => linear(x, weight),
        false => plain::linear_f32(x, weight),
    }
}

/// `y + bias` for a bias `[width]`; the numbers of y are taken over.
pub fn add_bias(y: Tensor, bias: &Tensor) -> Result<Tensor> {
    if fused::serve(&y) {
        return fused::add_bias(&y, &bias.to_dtype(y.dtype())?);
    }
    sum(&y, &bias.to_dtype(y.dtype())?)
}

/// Rows of a table [n, width] by their numbers, u32 [B, T]: [times B, T, width], all of them `times` times. With `of`, u32, they are numbers
/// of its numbers.
pub fn rows(table: &Tensor, ids: &Tensor, of: Option<&Tensor>, times: usize) -> Result<Tensor> {
    let ((b, t), flat) = (ids.dims2()?, ids.flatten_all()?);
    let rows = match fused::serve(table) {
        true => fused::rows_of(table, &flat, of, times)?,
        false => {
            let ids = of.map_or(Ok(flat.clone()), |of| of.index_select(&flat, 0))?;
            Tensor::cat(&vec![table.index_select(&ids, 0)?; times], 0)?
        }
    };
    Ok(rows.reshape((times * b, t, ()))?)
}

/// Errors if products with weights of this format are wrong there. The kernels of a GPU for them do not say so themselves where the
/// library has no code for that GPU: they leave what was in memory.
pub fn try_out(format: Format, device: &Device) -> Result<()> {
    let (out, inner) = (32, 512);
    let numbers = |rows: usize, step: usize| -> Result<Tensor> {
        let values = (0..rows * inner).map(|i| (i * step % 101) as f32 / 50.0 - 1.0).collect();
        Ok(Tensor::from_vec(values, (rows, inner), device)?)
    };
    let weight = format.weight(numbers(out, 37)?)?;
    let exact = weight.to_f32()?.to_device(device)?.t()?;
    // Few rows and many are two kernels.
    for rows in [2, 16] {
        let x = numbers(rows, 29)?;
        let values = |t: Tensor| -> Result<Vec<f32>> { Ok(to_host(&t.flatten_all()?)?.to_vec1()?) };
        let (found, expected) = (values(linear(&x, &weight)?)?, values(matmul(&x, &exact)?)?);
        let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        // A comparison with what is no number is false.
        if !found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 0.03 * most) {
            let message = format!(
                "products with {} weights come out wrong on this device; use dtype bf16, or a library built for its GPU",
                format.name()
            );
            return Err(Error::Device { message });
        }
    }
    Ok(())
}

/// The gradient of x in [`linear`]: `g W`, added to `sum` (whose numbers are taken over) if there is one.
pub fn input_gradient(g: &Tensor, weight: &Weight, sum: Option<Tensor>) -> Result<Tensor> {
    either!(g, input_gradient(g, weight, sum))
}

/// The gradient of W in [`linear`]: `g^T x`, f32.
pub fn weight_gradient(g: &Tensor, x: &Tensor) -> Result<Tensor> {
    either!(g, weight_gradient(g, x))
}

/// `a + b`; the numbers of `a` are taken over.
pub fn add(a: Tensor, b: &Tensor) -> Result<Tensor> {
    either!(&a, add(a, b))
}

/// Root-mean-square norm over the last dimension, statistics in f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    either!(x, rms_norm(x, weight, eps))
}

/// `a + b`, and its [`rms_norm`] before it; the numbers of `a` are taken over.
pub fn add_and_norm(a: Tensor, b: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    if fused::serve(&a) {
        return fused::add_and_norm(&a, b, weight, eps);
    }
    let sum = add(a, b)?;
    Ok((rms_norm(&sum, weight, eps)?, sum))
}

/// The gradients of x and, if asked for, of the weight (f32) in [`rms_norm`].
pub fn rms_norm_backward(
    g: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
    with_weight: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    either!(x, rms_norm_backward(g, x, weight, eps, with_weight))
}

/// Layer norm over d, then rotary positions (half-split: channel j pairs with j + d / 2), of x [B, T, heads, d].
pub fn norm_and_rotate(x: &Tensor, heads: &Heads) -> Result<Tensor> {
    either!(x, norm_and_rotate(x, heads))
}

/// Rotary positions alone of x [B, T, heads, d]; cos and sin are [B or 1, T, 1, d / 2].
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    either!(x, rotate(x, cos, sin, false))
}

/// The gradient of x in [`rotate`].
pub fn rotate_backward(g: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    either!(g, rotate(g, cos, sin, true))
}

/// The gradients of x and, if asked for, of weight and bias (f32) in [`norm_and_rotate`].
pub fn norm_and_rotate_backward(
    g: &Tensor,
    x: &Tensor,
    heads: &Heads,
    with_weight: bool,
) -> Result<(Tensor, Option<(Tensor, Tensor)>)> {
    either!(x, norm_and_rotate_backward(g, x, heads, with_weight))
}

/// Attention of queries [B, T, heads, d] to keys and values [B, kv, S, d], which may be views and, where they come from a cache, bf16:
/// [B, T, heads d]. With `keep` also what the backward pass wants of it, if anything.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, rows: &Rows, keep: bool) -> Result<(Tensor, Option<Tensor>)> {
    either!(q, attention(q, k, v, rows, keep))
}

/// The gradients of queries [B, T, heads, d], keys and values [B, S, kv, d] in [`attention`], whose result was `o` and `kept`.
/// Keys and values are [B, S, kv, d] seen as [B, kv, S, d].
pub fn attention_backward(
    g: &Tensor,
    qkv: (&Tensor, &Tensor, &Tensor),
    o: &Tensor,
    kept: &Tensor,
    rows: &Rows,
) -> Result<(Tensor, Tensor, Tensor)> {
    either!(g, attention_backward(g, qkv, o, kept, rows))
}

/// `silu(gate) * up`
pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    either!(gate, silu_mul(gate, up))
}

/// The gradients of gate and up in [`silu_mul`]; the numbers of both are taken over.
pub fn silu_mul_backward(g: &Tensor, gate: Tensor, up: Tensor) -> Result<(Tensor, Tensor)> {
    either!(g, silu_mul_backward(g, gate, up))
}

/// Cross entropy in nats and log-normaliser of each row of logits [N, vocabulary], f32. Returns with them the gradient of
/// `sum of weight * (nats + z_loss * normaliser^2)`; the numbers of the logits are taken over.
pub fn cross_entropy(
    logits: Tensor,
    targets: &[u32],
    weights: &[f32],
    z_loss: f64,
) -> Result<(Vec<f32>, Vec<f32>, Tensor)> {
    if !own_kernels(&logits) {
        return plain::cross_entropy(logits, targets, weights, z_loss);
    }
    let (nats, norms) = cpu::cross_entropy(&logits, targets, weights, z_loss as f32)?;
    Ok((nats, norms, logits))
}

/// Rows [n, d] that serve `heads` heads, one for each: [heads, d].
fn per_head(rows: &Tensor, heads: usize) -> Result<Tensor> {
    let (n, d) = rows.dims2()?;
    match n == heads {
        true => Ok(rows.contiguous()?),
        false => Ok(rows.unsqueeze(1)?.expand((n, heads / n, d))?.reshape((heads, d))?),
    }
}

/// Sums [heads, d] over the heads that share a row: [n, d].
fn per_row(heads: &Tensor, n: usize) -> Result<Tensor> {
    let (all, d) = heads.dims2()?;
    match n == all {
        true => Ok(heads.clone()),
        false => Ok(heads.reshape((n, all / n, d))?.sum(1)?),
    }
}

/// What tests of operations say results with.
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
