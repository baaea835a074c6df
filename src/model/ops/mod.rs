//! The numeric building blocks of a transformer layer, forward and backward.
//!
//! Each has two forms that give the same numbers: [`cpu`] calls the kernels of this library, with f32 activations whatever
//! the weights are in; [`plain`] is made of candle's operations, for GPUs, with activations in the dtype of the weights.
//! No operation here records a graph: what a backward pass needs is handed to it.

mod cpu;
mod plain;

pub use cpu::{change, floats, Numbers};

use crate::model::weight::Weight;
use crate::Result;
use candle_core::Tensor;
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
    t.device().is_cpu() && !PLAIN.get()
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
    /// The same as what is added to the scores, [B or 1, 1, T, S]; for [`plain`] only.
    pub mask: Option<&'a Tensor>,
    /// Whether the result of a token must not depend on the other tokens of the pass, to the bit.
    pub one_by_one: bool,
}

/// Picks the form that serves the tensor.
macro_rules! either {
    ($which:expr, $name:ident($($arg:expr),*)) => {
        if own_kernels($which) { cpu::$name($($arg),*) } else { plain::$name($($arg),*) }
    };
}

/// `x W^T` for x [.., in] and W [out, in].
pub fn linear(x: &Tensor, weight: &Weight) -> Result<Tensor> {
    either!(x, linear(x, weight))
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

/// The gradients of x and, if asked for, of weight and bias (f32) in [`norm_and_rotate`].
pub fn norm_and_rotate_backward(
    g: &Tensor,
    x: &Tensor,
    heads: &Heads,
    with_weight: bool,
) -> Result<(Tensor, Option<(Tensor, Tensor)>)> {
    either!(x, norm_and_rotate_backward(g, x, heads, with_weight))
}

/// Attention of queries [B, T, heads, d] to keys and values [B, kv, S, d], which may be views: [B, T, heads d]. With `keep`
/// also what the backward pass wants of it, if anything.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, rows: &Rows, keep: bool) -> Result<(Tensor, Option<Tensor>)> {
    either!(q, attention(q, k, v, rows, keep))
}

/// The gradients of queries [B, T, heads, d], keys and values [B, T, kv, d] in [`attention`], whose result was `o` and `kept`.
/// Keys and values are [B, T, kv, d] seen as [B, kv, T, d].
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
