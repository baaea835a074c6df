//! The kernels of fused.cu on tensors of a GPU: what `plain` gives, in one launch each and without anything sent to the GPU.

use super::{Heads, Seen};
use crate::device::kernel::{self, Arg, Grid};
use crate::random::Masked;
use crate::{Error, Result};
use candle_core::{DType, Tensor, D};

/// Whether these kernels serve a tensor: on a GPU, and in their tests where one is played.
pub fn serve(x: &Tensor) -> bool {
    #[cfg(test)]
    if crate::device::twin::used() {
        return !super::own_kernels(x);
    }
    x.device().is_cuda()
}

/// # Safety
/// As [`kernel::launch`].
unsafe fn launch(name: &str, like: &Tensor, grid: Grid, args: &[Arg]) -> Result<()> {
    let dtype = match like.dtype() {
        DType::F32 => "f32",
        DType::BF16 => "bf16",
        other => return Err(Error::internal(format!("{name} of {other:?}"))),
    };
    // SAFETY: the caller's.
    unsafe { kernel::launch(&format!("{name}_{dtype}"), grid, args) }
}

/// Numbers that a kernel is to write, all of them.
fn empty(dims: &[usize], like: &Tensor) -> Result<Tensor> {
    // SAFETY: whoever calls this has every number written before one is read.
    Ok(unsafe { Tensor::empty(dims, like.dtype(), like.device())? })
}

fn of(t: &Tensor) -> Arg<'_> {
    Arg::Tensor(Some(t))
}

fn count(n: usize) -> Arg<'static> {
    Arg::Count(n as u32)
}

fn size(n: usize) -> Arg<'static> {
    Arg::Size(n as u64)
}

/// Rows and width; no tensor has a row more than a grid has blocks.
fn rows(x: &Tensor) -> Result<(usize, usize)> {
    let width = x.dim(D::Minus1)?;
    Ok((x.elem_count() / width.max(1), width))
}

pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let (x, (rows, n)) = (x.contiguous()?, rows(x)?);
    let y = empty(x.dims(), &x)?;
    let args = [of(&y), of(&x), of(weight), count(n), Arg::Number(eps as f32)];
    // SAFETY: a block for each row of n numbers; y is new.
    unsafe { launch("rms_norm", &x, Grid::rows(rows, n), &args)? };
    Ok(y)
}

/// The norm of a sum, and the sum.
pub fn add_and_norm(a: &Tensor, b: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let (a, b, (rows, n)) = (a.contiguous()?, b.contiguous()?, rows(a)?);
    let (y, sum) = (empty(a.dims(), &a)?, empty(a.dims(), &a)?);
    let args = [of(&y), of(&sum), of(&a), of(&b), of(weight), count(n), Arg::Number(eps as f32)];
    // SAFETY: a block for each row of n numbers; y and sum are new.
    unsafe { launch("add_rms_norm", &a, Grid::rows(rows, n), &args)? };
    Ok((y, sum))
}

pub fn rms_norm_backward(g: &Tensor, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let (g, x, (rows, n)) = (g.contiguous()?, x.contiguous()?, rows(x)?);
    let dx = empty(x.dims(), &x)?;
    let args = [of(&dx), of(&g), of(&x), of(weight), count(n), Arg::Number(eps as f32)];
    // SAFETY: a block for each row of n numbers; dx is new.
    unsafe { launch("rms_norm_back", &x, Grid::rows(rows, n), &args)? };
    Ok(dx)
}

/// For factor and summand of as many rows as there are groups of consecutive rows of x.
pub fn layer_norm(x: &Tensor, factor: &Tensor, summand: &Tensor, eps: f64) -> Result<Tensor> {
    let (x, (rows, n)) = (x.contiguous()?, rows(x)?);
    let (factor, summand) = (factor.contiguous()?, summand.contiguous()?);
    let y = empty(x.dims(), &x)?;
    let shared = count(rows / (factor.elem_count() / n));
    let args = [of(&y), of(&x), of(&factor), of(&summand), count(n), shared, Arg::Number(eps as f32)];
    // SAFETY: a block for each row of n numbers; y is new.
    unsafe { launch("layer_norm", &x, Grid::rows(rows, n), &args)? };
    Ok(y)
}

pub fn layer_norm_backward(g: &Tensor, x: &Tensor, factor: &Tensor, eps: f64) -> Result<Tensor> {
    let (g, x, (rows, n)) = (g.contiguous()?, x.contiguous()?, rows(x)?);
    let factor = factor.contiguous()?;
    let dx = empty(x.dims(), &x)?;
    let shared = count(rows / (factor.elem_count() / n));
    let args = [of(&dx), of(&g), of(&x), of(&factor), count(n), shared, Arg::Number(eps as f32)];
    // SAFETY: a block for each row of n numbers; dx is new.
    unsafe { launch("layer_norm_back", &x, Grid::rows(rows, n), &args)? };
    Ok(dx)
}

/// Blocks for each token and head of x [B, T, heads, d]; d, T, and whether each row of the batch has angles of its own.
fn heads_of(x: &Tensor, cos: &Tensor) -> Result<(Grid, [Arg<'static>; 2], Arg<'static>)> {
    let (b, t, heads, d) = x.dims4()?;
    let grid = Grid { blocks: (b * t, heads), threads: 32 };
    Ok((grid, [count(d), count(t)], count(usize::from(cos.dim(0)? == b))))
}

pub fn norm_and_rotate(x: &Tensor, of_heads: &Heads) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (grid, [d, t], each) = heads_of(&x, of_heads.cos)?;
    let serves = count(x.dim(2)? / of_heads.weight.dim(0)?);
    let (weight, bias) = (of_heads.weight.contiguous()?, of_heads.bias.contiguous()?);
    let y = empty(x.dims(), &x)?;
    let (cos, sin, eps) = (of(of_heads.cos), of(of_heads.sin), Arg::Number(of_heads.eps as f32));
    let args = [of(&y), of(&x), of(&weight), of(&bias), cos, sin, d, t, serves, each, eps];
    // SAFETY: a block for each head of d numbers; weights have a row for each `serves` heads, angles one for each token; y is new.
    unsafe { launch("norm_turn", &x, grid, &args)? };
    Ok(y)
}

pub fn norm_and_rotate_backward(g: &Tensor, x: &Tensor, of_heads: &Heads) -> Result<Tensor> {
    let (g, x) = (g.contiguous()?, x.contiguous()?);
    let (grid, [d, t], each) = heads_of(&x, of_heads.cos)?;
    let serves = count(x.dim(2)? / of_heads.weight.dim(0)?);
    let weight = of_heads.weight.contiguous()?;
    let dx = empty(x.dims(), &x)?;
    let (cos, sin, eps) = (of(of_heads.cos), of(of_heads.sin), Arg::Number(of_heads.eps as f32));
    let args = [of(&dx), of(&g), of(&x), of(&weight), cos, sin, d, t, serves, each, eps];
    // SAFETY: as in `norm_and_rotate`; dx is new.
    unsafe { launch("norm_turn_back", &x, grid, &args)? };
    Ok(dx)
}

pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, back: bool) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (grid, [d, t], each) = heads_of(&x, cos)?;
    let y = empty(x.dims(), &x)?;
    let way = Arg::Number(if back { -1.0 } else { 1.0 });
    // SAFETY: a block for each head of d numbers, angles for each token; y is new.
    unsafe { launch("turn", &x, grid, &[of(&y), of(&x), of(cos), of(sin), d, t, each, way])? };
    Ok(y)
}

/// Puts new keys and values [B, T, kv, d] into caches [B, kv, capacity, d] from slot `at` on.
pub fn put(caches: [&Tensor; 2], new: [&Tensor; 2], at: usize) -> Result<()> {
    let (b, t, heads, d) = new[0].dims4()?;
    let capacity = caches[0].dim(2)?;
    if at + t > capacity || [caches[0].dim(0)?, caches[0].dim(1)?, caches[0].dim(3)?] != [b, heads, d] {
        return Err(Error::internal(format!("{:?} from slot {at} of {:?}", new[0].dims(), caches[0].dims())));
    }
    let new = [new[0].contiguous()?, new[1].contiguous()?];
    let sizes = [heads, t, d, capacity, at].map(count);
    let args = [&[of(caches[0]), of(caches[1]), of(&new[0]), of(&new[1])][..], &sizes].concat();
    // SAFETY: a block for each token and head; the caches have room, as was looked at, and no one reads those slots yet.
    unsafe { launch("put", &new[0], Grid { blocks: (b * t, heads), threads: 32 }, &args) }
}

/// Probabilities of scores [B, heads, T, S] times `scale`, in their dtype.
pub fn softmax(scores: &Tensor, seen: Option<&Seen>, scale: f64) -> Result<Tensor> {
    let scores = scores.contiguous()?;
    let (b, heads, t, slots) = scores.dims4()?;
    let p = empty(scores.dims(), &scores)?;
    let (first, last) = seen.map_or((None, None), |seen| (seen.first.as_ref(), seen.last.as_ref()));
    let (first, last) = (first.map(Tensor::contiguous).transpose()?, last.map(Tensor::contiguous).transpose()?);
    // How far the numbers of two rows of the batch and of two tokens are apart; 0 where there is one for all.
    let far = |limit: &Option<Tensor>| -> Result<[Arg; 2]> {
        let Some(limit) = limit else { return Ok([count(0); 2]) };
        let (rows, tokens) = limit.dims2()?;
        if ![1, b].contains(&rows) || ![1, t].contains(&tokens) {
            return Err(Error::internal(format!("limits {:?} of scores {:?}", limit.dims(), scores.dims())));
        }
        Ok([count(if rows == 1 { 0 } else { tokens }), count(usize::from(tokens > 1))])
    };
    let ([first_far, first_near], [last_far, last_near]) = (far(&first)?, far(&last)?);
    let (first, last) = (Arg::Tensor(first.as_ref()), Arg::Tensor(last.as_ref()));
    let sizes = [count(heads), count(t), count(slots)];
    let args = [of(&p), of(&scores), first, last, sizes[0], sizes[1], sizes[2]];
    let args = [&args[..], &[first_far, first_near, last_far, last_near, Arg::Number(scale as f32)]].concat();
    // SAFETY: a block for each row of slots; limits have the shape that was looked at; p is new.
    unsafe { launch("softmax", &scores, Grid::rows(b * heads * t, slots), &args)? };
    Ok(p)
}

/// The gradient of the scores in [`softmax`], whose result was p.
pub fn softmax_backward(dp: &Tensor, p: &Tensor, scale: f64) -> Result<Tensor> {
    let (dp, (rows, slots)) = (dp.contiguous()?, rows(p)?);
    let ds = empty(p.dims(), p)?;
    let args = [of(&ds), of(&dp), of(p), count(slots), Arg::Number(scale as f32)];
    // SAFETY: a block for each row of slots; ds is new.
    unsafe { launch("softmax_back", p, Grid::rows(rows, slots), &args)? };
    Ok(ds)
}

pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (gate, up, n) = (gate.contiguous()?, up.contiguous()?, gate.elem_count());
    let y = empty(gate.dims(), &gate)?;
    // SAFETY: all have n numbers; y is new.
    unsafe { launch("silu_mul", &gate, Grid::each(n), &[of(&y), of(&gate), of(&up), size(n)])? };
    Ok(y)
}

pub fn silu_mul_backward(g: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    let (g, gate, up, n) = (g.contiguous()?, gate.contiguous()?, up.contiguous()?, gate.elem_count());
    let both = empty(&[&[2], gate.dims()].concat(), &gate)?;
    let args = [of(&both), of(&g), of(&gate), of(&up), size(n)];
    // SAFETY: all have n numbers, `both` twice as many, and is new.
    unsafe { launch("silu_mul_back", &gate, Grid::each(n), &args)? };
    Ok((both.get(0)?, both.get(1)?))
}

/// `sum + x * gate`, or without a sum; a row of the gate serves as many consecutive numbers as the others.
pub fn gated(sum: Option<&Tensor>, x: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let (x, gate, n, width) = (x.contiguous()?, gate.contiguous()?, x.elem_count(), x.dim(D::Minus1)?);
    let sum = sum.map(Tensor::contiguous).transpose()?;
    let y = empty(x.dims(), &x)?;
    let serves = size(n / (gate.elem_count() / width));
    let args = [of(&y), Arg::Tensor(sum.as_ref()), of(&x), of(&gate), size(n), count(width), serves];
    // SAFETY: all have n numbers, the gate a row for each `serves` of them; y is new.
    unsafe { launch("gated", &x, Grid::each(n), &args)? };
    Ok(y)
}

pub fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (x, n) = (x.contiguous()?, x.elem_count());
    let y = empty(x.dims(), &x)?;
    let args = [of(&y), of(&x), of(bias), size(n), count(bias.elem_count())];
    // SAFETY: both have n numbers; y is new.
    unsafe { launch("biased", &x, Grid::each(n), &args)? };
    Ok(y)
}

/// What a head is turned by, see `cosine_turn_f32`: strengths [heads], cosines and sines [T, d / 2].
pub struct Cosine<'a> {
    pub first: usize,
    pub strength: &'a Tensor,
    pub cos: &'a Tensor,
    pub sin: &'a Tensor,
}

pub fn cosine_turn(x: &Tensor, by: &Cosine) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (b, t, pitch) = x.dims3()?;
    let (heads, d) = (by.strength.elem_count(), 2 * by.cos.dim(D::Minus1)?);
    let (cos, sin) = (by.cos.contiguous()?, by.sin.contiguous()?);
    let y = empty(&[b, t, heads, d], &x)?;
    let sizes = [count(d), count(t), count(pitch), count(by.first)];
    let args = [&[of(&y), of(&x), of(by.strength), of(&cos), of(&sin)][..], &sizes].concat();
    // SAFETY: a block for each head of d numbers, which lie in rows of `pitch`; y is new.
    unsafe { launch("cosine_turn", &x, Grid { blocks: (b * t, heads), threads: 32 }, &args)? };
    Ok(y)
}

/// Writes the gradient of x to its place in `dx`, whose numbers nobody else holds; returns that of the strengths, [B T, heads].
pub fn cosine_turn_backward(g: &Tensor, x: &Tensor, by: &Cosine, dx: &Tensor) -> Result<Tensor> {
    let (g, x) = (g.contiguous()?, x.contiguous()?);
    let (b, t, pitch) = x.dims3()?;
    let (heads, d) = (by.strength.elem_count(), 2 * by.cos.dim(D::Minus1)?);
    let (cos, sin) = (by.cos.contiguous()?, by.sin.contiguous()?);
    let ds = empty(&[b * t, heads], &x)?;
    let sizes = [count(d), count(t), count(pitch), count(by.first)];
    let args = [&[of(dx), of(&ds), of(&g), of(&x), of(by.strength), of(&cos), of(&sin)][..], &sizes].concat();
    // SAFETY: a block for each head of d numbers, which lie in rows of `pitch` in x and dx.
    unsafe { launch("cosine_turn_back", &x, Grid { blocks: (b * t, heads), threads: 32 }, &args)? };
    Ok(ds)
}

/// Numbers of each example in x [B, ..], thinned out by its mask.
pub fn dropout(x: &Tensor, of_examples: &[Masked]) -> Result<Tensor> {
    let x = x.contiguous()?;
    let y = empty(x.dims(), &x)?;
    for (example, masked) in of_examples.iter().enumerate() {
        let (x, y) = (x.get(example)?, y.get(example)?);
        let Masked { site, purpose, step, seed: [low, high], threshold, kept } = *masked;
        let n = x.elem_count();
        let counts = [n as u32, site, purpose, step, low, high].map(Arg::Count);
        let args = [&[of(&y), of(&x)][..], &counts, &[Arg::Size(threshold), Arg::Number(kept)]].concat();
        // SAFETY: both have n numbers; y is new.
        unsafe { launch("dropout", &x, Grid::each(n.div_ceil(4)), &args)? };
    }
    Ok(y)
}

/// What codes are drawn from, f32 [pictures, places, codes]: see `sample::logits`.
pub fn scores(logits: &Tensor, guidance: Option<f32>, k: usize, temperature: f32) -> Result<Tensor> {
    let logits = logits.contiguous()?;
    let (rows, places, codes) = logits.dims3()?;
    let pictures = if guidance.is_some() { rows / 2 } else { rows };
    let y = empty(&[pictures, places, codes], &logits)?;
    let numbers = [Arg::Number(guidance.unwrap_or(1.0)), Arg::Number(temperature)];
    let args = [of(&y), of(&logits), count(codes), count(pictures * places), count(k), numbers[0], numbers[1]];
    // SAFETY: a block for each row of codes; under guidance there are as many rows behind; y is new.
    unsafe { launch("scores", &logits, Grid::rows(pictures * places, codes), &args)? };
    Ok(y)
}

/// The codes of the largest of scores + noise, u32 [pictures, places]; `unsound` where scores are not numbers.
pub fn draw(scores: &Tensor, noise: &Tensor, unsound: u32) -> Result<Tensor> {
    let (scores, noise) = (scores.contiguous()?, noise.contiguous()?);
    let (pictures, places, codes) = scores.dims3()?;
    // SAFETY: the kernel writes every number.
    let drawn = unsafe { Tensor::empty((pictures, places), DType::U32, scores.device())? };
    let args = [of(&drawn), of(&scores), of(&noise), count(codes), Arg::Count(unsound)];
    // SAFETY: a block for each row of codes; drawn is new.
    unsafe { launch("draw", &scores, Grid::rows(pictures * places, codes), &args)? };
    Ok(drawn)
}
