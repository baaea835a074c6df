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
pub(super) unsafe fn launch(name: &str, like: &Tensor, grid: Grid, args: &[Arg]) -> Result<()> {
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

pub(super) fn of(t: &Tensor) -> Arg<'_> {
    Arg::Tensor(Some(t))
}

fn count(n: usize) -> Arg<'static> {
    Arg::Count(n as u32)
}

pub(super) fn size(n: usize) -> Arg<'static> {
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

/// x [B, T, heads, d] as it lies, or one number behind the other, and how far two tokens are apart.
fn tokens_apart(x: &Tensor) -> Result<(Tensor, usize)> {
    let ((b, t, heads, d), &[row, token, head, number]) = (x.dims4()?, x.stride()) else {
        unreachable!("four dimensions")
    };
    let apart = if t == 1 { row } else { token };
    let fits =
        (number == 1 || d == 1) && (head == d || heads == 1) && (b == 1 || row == t * apart) && apart >= heads * d;
    match fits || (b * t == 1 && number == 1 && head == d) {
        true => Ok((x.clone(), apart.max(heads * d))),
        false => Ok((x.contiguous()?, heads * d)),
    }
}

/// Cosines or sines [B or 1, T, 1, d / 2] as they lie, or one number behind the other, and how far those of two rows of a batch of `rows`
/// are apart.
fn angles(table: &Tensor, rows: usize) -> Result<(Tensor, usize)> {
    let (b, t, _, half) = table.dims4()?;
    let &[row, token, _, number] = table.stride() else { unreachable!("four dimensions") };
    let (table, row) = match (token == half || t == 1) && (number == 1 || half == 1) {
        true => (table.clone(), row),
        false => (table.contiguous()?, t * half),
    };
    Ok((table, if b == 1 || rows == 1 { 0 } else { row }))
}

/// A block for each token and head, of a warp.
fn of_heads(b: usize, t: usize, heads: usize) -> Grid {
    Grid { blocks: (b * t, heads), threads: 32 }
}

pub fn norm_and_rotate(x: &Tensor, heads: &Heads) -> Result<Tensor> {
    let (b, t, n, d) = x.dims4()?;
    let (x, apart) = tokens_apart(x)?;
    let ((cos, far), (sin, _)) = (angles(heads.cos, b)?, angles(heads.sin, b)?);
    let (weight, bias) = (heads.weight.contiguous()?, heads.bias.contiguous()?);
    let y = empty(x.dims(), &x)?;
    let sizes = [d, t, apart, n / weight.dim(0)?, far].map(count);
    let args = [of(&y), Arg::View(&x), of(&weight), of(&bias), Arg::View(&cos), Arg::View(&sin)];
    let args = [&args[..], &sizes, &[Arg::Number(heads.eps as f32)]].concat();
    // SAFETY: a block for each head of d numbers; weights have a row for each that they serve, angles one for each token; y is new.
    unsafe { launch("norm_turn", &x, of_heads(b, t, n), &args)? };
    Ok(y)
}

pub fn norm_and_rotate_backward(g: &Tensor, x: &Tensor, heads: &Heads) -> Result<Tensor> {
    let (b, t, n, d) = x.dims4()?;
    let (g, (x, apart)) = (g.contiguous()?, tokens_apart(x)?);
    let ((cos, far), (sin, _)) = (angles(heads.cos, b)?, angles(heads.sin, b)?);
    let weight = heads.weight.contiguous()?;
    let dx = empty(x.dims(), &x)?;
    let sizes = [d, t, apart, n / weight.dim(0)?, far].map(count);
    let args = [of(&dx), of(&g), Arg::View(&x), of(&weight), Arg::View(&cos), Arg::View(&sin)];
    let args = [&args[..], &sizes, &[Arg::Number(heads.eps as f32)]].concat();
    // SAFETY: as in `norm_and_rotate`; dx is new.
    unsafe { launch("norm_turn_back", &x, of_heads(b, t, n), &args)? };
    Ok(dx)
}

pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, back: bool) -> Result<Tensor> {
    let (b, t, n, d) = x.dims4()?;
    let (x, apart) = tokens_apart(x)?;
    let ((cos, far), (sin, _)) = (angles(cos, b)?, angles(sin, b)?);
    let y = empty(x.dims(), &x)?;
    let way = Arg::Number(if back { -1.0 } else { 1.0 });
    let args = [of(&y), Arg::View(&x), Arg::View(&cos), Arg::View(&sin)];
    let args = [&args[..], &[d, t, apart, far].map(count), &[way]].concat();
    // SAFETY: a block for each head of d numbers, angles for each token; y is new.
    unsafe { launch("turn", &x, of_heads(b, t, n), &args)? };
    Ok(y)
}

/// New tokens on their way into a cache: queries, keys and values as they are projected, [B, T, heads, d] each.
pub struct New<'a> {
    pub projected: &'a [Tensor; 3],
    /// Weight and bias of the norms of queries and keys, [rows, d] each.
    pub norms: Option<[&'a Tensor; 4]>,
    pub eps: f64,
    /// [B or 1, T, 1, d / 2]
    pub cos: &'a Tensor,
    pub sin: &'a Tensor,
}

/// Puts keys, behind norm and rotation, and values into caches [B, kv, capacity, d]: to the slots from `at` on, or to those given, u32
/// [B or 1, T]. Returns the queries behind the same, [B, T, heads, d].
pub fn turn_and_put(new: &New, caches: [&Tensor; 2], at: usize, slots: Option<&Tensor>) -> Result<Tensor> {
    let [q, k, v] = new.projected;
    let ((b, t, heads, d), kv, capacity) = (q.dims4()?, k.dim(2)?, caches[0].dim(2)?);
    if at + t > capacity || [caches[0].dim(0)?, caches[0].dim(1)?, caches[0].dim(3)?] != [b, kv, d] {
        return Err(Error::internal(format!("{:?} from slot {at} of {:?}", k.dims(), caches[0].dims())));
    }
    let ((q, q_apart), (k, k_apart), (v, v_apart)) = (tokens_apart(q)?, tokens_apart(k)?, tokens_apart(v)?);
    let (k, v, k_apart) = match k_apart == v_apart {
        true => (k, v, k_apart),
        false => (k.contiguous()?, v.contiguous()?, kv * d),
    };
    let ((cos, far), (sin, _)) = (angles(new.cos, b)?, angles(new.sin, b)?);
    let norms =
        new.norms.map(|norms| norms.map(Tensor::contiguous).into_iter().collect::<candle_core::Result<Vec<_>>>());
    let norms = norms.transpose()?;
    let norm = |i: usize| Arg::Tensor(norms.as_ref().map(|norms| &norms[i]));
    let serves = |i: usize, heads: usize| norms.as_ref().map_or(Ok(1), |n| n[i].dim(0).map(|rows| heads / rows));
    let slots = slots.map(Tensor::contiguous).transpose()?;
    let slots_far = slots.as_ref().map_or(0, |slots| if slots.dims()[0] == 1 { 0 } else { t });
    let y = empty(q.dims(), &q)?;
    let tensors = [of(&y), of(caches[0]), of(caches[1]), Arg::View(&q), Arg::View(&k), Arg::View(&v)];
    let rest = [norm(0), norm(1), norm(2), norm(3), Arg::View(&cos), Arg::View(&sin), Arg::Tensor(slots.as_ref())];
    let sizes = [heads, kv, d, t, q_apart, k_apart, capacity, at, serves(0, heads)?, serves(2, kv)?, far, slots_far];
    let args = [&tensors[..], &rest, &sizes.map(count), &[Arg::Number(new.eps as f32)]].concat();
    // SAFETY: a block for each token and each head of the three; weights and angles as in `norm_and_rotate`; the caches have room from
    // `at` on, as was looked at, and given slots are in it: they come of the cache's own numbers. No one reads those slots yet; y is new.
    unsafe { launch("turn_put", &q, of_heads(b, t, heads + 2 * kv), &args)? };
    Ok(y)
}

/// Whether [`attend`] takes queries [B, T, heads, d] to keys and values [B, kv, S, d]: few, and caches that lie as they should.
pub fn attends(q: &Tensor, k: &Tensor, v: &Tensor) -> bool {
    /// The most queries: with more the products of matrices pay.
    const FEW: usize = 32;
    let (t, d) = (q.dims()[1], q.dims()[3]);
    let lies = |x: &Tensor| {
        let ([b, kv, slots, d], &[row, head, slot, number]) = (x.dims(), x.stride()) else { return false };
        number == 1 && (slot == *d || *slots == 1) && (row == kv * head || *b == 1) && (*kv == 1 || head >= slots * d)
    };
    let heads_apart = |x: &Tensor| if x.dims()[1] == 1 { x.stride()[0] } else { x.stride()[1] };
    serve(q) && t <= FEW && d.is_multiple_of(4) && d <= 128 && lies(k) && lies(v) && heads_apart(k) == heads_apart(v)
}

/// Attention, see [`attends`], of queries in the dtype of keys and values: [B, T, heads, d].
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, seen: Option<&Seen>, scale: f64) -> Result<Tensor> {
    /// As the kernel has them.
    const QUERIES: usize = 4;
    let q = q.contiguous()?;
    let ((b, t, heads, d), (_, kv, slots, _)) = (q.dims4()?, k.dims4()?);
    let far = if kv == 1 { k.stride()[0] } else { k.stride()[1] };
    let o = empty(q.dims(), &q)?;
    let limits = Limits::new(seen, b, t)?;
    let [first, last] = limits.tensors();
    let sizes = [heads, heads / kv, t, slots, d, far].map(count);
    let args = [&[of(&o), of(&q), Arg::View(k), Arg::View(v), first, last][..], &sizes, &limits.steps];
    let args = [&args.concat()[..], &[Arg::Number(scale as f32)]].concat();
    let grid = Grid { blocks: (b * heads, t.div_ceil(QUERIES)), threads: 512 };
    // SAFETY: a block for each row and head and each QUERIES queries; keys and values lie as `attends` has looked; o is new.
    unsafe { launch("attend", &q, grid, &args)? };
    Ok(o)
}

/// What each token sees, as kernels take it.
struct Limits {
    first: Option<Tensor>,
    last: Option<Tensor>,
    /// How far the numbers of two rows of the batch and of two tokens are apart, of both; 0 where there is one for all.
    steps: [Arg<'static>; 4],
}

impl Limits {
    fn new(seen: Option<&Seen>, b: usize, t: usize) -> Result<Self> {
        let (first, last) = seen.map_or((None, None), |seen| (seen.first.as_ref(), seen.last.as_ref()));
        let (first, last) = (first.map(Tensor::contiguous).transpose()?, last.map(Tensor::contiguous).transpose()?);
        let steps = |limit: &Option<Tensor>| -> Result<[usize; 2]> {
            let Some(limit) = limit else { return Ok([0; 2]) };
            let (rows, tokens) = limit.dims2()?;
            if ![1, b].contains(&rows) || ![1, t].contains(&tokens) {
                return Err(Error::internal(format!("limits {:?} of {b} rows of {t} tokens", limit.dims())));
            }
            Ok([if rows == 1 { 0 } else { tokens }, usize::from(tokens > 1)])
        };
        let ([a, b], [c, d]) = (steps(&first)?, steps(&last)?);
        Ok(Limits { first, last, steps: [a, b, c, d].map(count) })
    }

    fn tensors(&self) -> [Arg<'_>; 2] {
        [Arg::Tensor(self.first.as_ref()), Arg::Tensor(self.last.as_ref())]
    }
}

/// Probabilities of scores [B, heads, T, S] times `scale`, in their dtype.
pub fn softmax(scores: &Tensor, seen: Option<&Seen>, scale: f64) -> Result<Tensor> {
    let scores = scores.contiguous()?;
    let (b, heads, t, slots) = scores.dims4()?;
    let p = empty(scores.dims(), &scores)?;
    let limits = Limits::new(seen, b, t)?;
    let [first, last] = limits.tensors();
    let args = [&[of(&p), of(&scores), first, last][..], &[heads, t, slots].map(count), &limits.steps].concat();
    let args = [&args[..], &[Arg::Number(scale as f32)]].concat();
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

/// Gate and up [.., width] as they lie, or one number behind the other, and how far two rows are apart.
fn rows_apart(gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor, usize)> {
    let (dims, stride) = (gate.dims(), gate.stride());
    let [.., width] = dims else { return Err(Error::internal("a gate without numbers")) };
    // All dimensions but the last must be one.
    let apart = (0..dims.len() - 1).rev().find(|&i| dims[i] > 1).map_or(*width, |i| stride[i]);
    let mut next = apart;
    let even = (0..dims.len() - 1).rev().filter(|&i| dims[i] > 1).all(|i| {
        let fits = stride[i] == next;
        next = stride[i] * dims[i];
        fits
    });
    match even && apart >= *width && stride[dims.len() - 1] == 1 && up.stride() == stride {
        true => Ok((gate.clone(), up.clone(), apart)),
        false => Ok((gate.contiguous()?, up.contiguous()?, *width)),
    }
}

pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (n, width) = (gate.elem_count(), gate.dim(D::Minus1)?);
    let (gate, up, apart) = rows_apart(gate, up)?;
    let y = empty(gate.dims(), &gate)?;
    let args = [of(&y), Arg::View(&gate), Arg::View(&up), size(n), count(width), count(apart)];
    // SAFETY: all have n numbers in rows of `width`; y is new.
    unsafe { launch("silu_mul", &gate, Grid::each(n), &args)? };
    Ok(y)
}

pub fn silu_mul_backward(g: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    let (n, width) = (gate.elem_count(), gate.dim(D::Minus1)?);
    let (g, (gate, up, apart)) = (g.contiguous()?, rows_apart(gate, up)?);
    let both = empty(&[&[2], gate.dims()].concat(), &gate)?;
    let args = [of(&both), of(&g), Arg::View(&gate), Arg::View(&up), size(n), count(width), count(apart)];
    // SAFETY: all have n numbers in rows of `width`, `both` twice as many, and is new.
    unsafe { launch("silu_mul_back", &gate, Grid::each(n), &args)? };
    Ok((both.get(0)?, both.get(1)?))
}

/// Rows of a table [.., width] by their numbers, u32 [n]: all of them `times` times. With `of`, u32, they are numbers of its numbers.
pub fn rows_of(table: &Tensor, ids: &Tensor, of_ids: Option<&Tensor>, times: usize) -> Result<Tensor> {
    let (ids, n, width) = (ids.contiguous()?, ids.elem_count(), table.dim(D::Minus1)?);
    let y = empty(&[times * n, width], table)?;
    let args = [of(&y), of(table), of(&ids), Arg::Tensor(of_ids), count(n), count(width)];
    // SAFETY: a block for each row; the numbers are those of rows, as everywhere in this library; y is new.
    unsafe { launch("rows", table, Grid::rows(times * n, width), &args)? };
    Ok(y)
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

/// Of projections x [B, T, 3 heads d], f32: puts keys, of length one and turned, and values to the slots from `at` on of caches
/// [B, heads, capacity, d]. Returns the queries, of length `strength` and turned, [B, T, heads, d] in the dtype of the caches.
pub fn cosine_put(x: &Tensor, by: &Cosine, caches: [&Tensor; 2], at: usize) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (b, t, _) = x.dims3()?;
    let (heads, d, capacity) = (by.strength.elem_count(), 2 * by.cos.dim(D::Minus1)?, caches[0].dim(2)?);
    if at + t > capacity || caches[0].dims() != [b, heads, capacity, d] {
        return Err(Error::internal(format!("{t} tokens from slot {at} of {:?}", caches[0].dims())));
    }
    let (cos, sin) = (by.cos.contiguous()?, by.sin.contiguous()?);
    let q = empty(&[b, t, heads, d], caches[0])?;
    let args = [of(&q), of(caches[0]), of(caches[1]), of(&x), of(by.strength), of(&cos), of(&sin)];
    let args = [&args[..], &[heads, d, t, capacity, at].map(count)].concat();
    // SAFETY: a block for each token and head of the three; the caches have room, as was looked at, and no one reads those slots yet; q
    // is new.
    unsafe { launch("cosine_put", &q, of_heads(b, t, 3 * heads), &args)? };
    Ok(q)
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

/// Where places of pictures find their noise in a table [pictures, rows, codes].
pub enum Of<'a> {
    /// The first place of each picture in this row of its own, the next in those behind.
    Row(usize),
    /// Each in the row given for it, u32 [pictures, places].
    Rows(&'a Tensor),
}

/// What is asked for a drawing anew, u32 [pictures, ..]: of each place its draft, the row of q that it was drawn from, and two random
/// numbers; and one of each place behind.
pub struct Asked<'a> {
    pub drafts: &'a Tensor,
    pub from: &'a Tensor,
    pub keep: &'a Tensor,
    pub anew: &'a Tensor,
    pub behind: &'a Tensor,
}

/// Codes of the places of pictures, u32, and of those behind, drawn by [`Coupling`](crate::sample); and the probabilities that they were
/// drawn from, f32 [pictures, n, codes].
pub fn couple(scores: &Tensor, q: Option<&Tensor>, asked: &Asked, unsound: u32) -> Result<(Tensor, Tensor)> {
    let scores = scores.contiguous()?;
    let (pictures, n, codes) = scores.dims3()?;
    let places = n + asked.behind.dim(1)?;
    let p = empty(scores.dims(), &scores)?;
    // SAFETY: the kernel writes every number.
    let drawn = unsafe { Tensor::empty((pictures, places), DType::U32, scores.device())? };
    let given = [asked.drafts, asked.from, asked.keep, asked.anew, asked.behind].map(of);
    let args = [of(&drawn), of(&p), of(&scores), Arg::Tensor(q)];
    let args = [&args[..], &given, &[codes, places, n].map(count), &[Arg::Count(unsound)]].concat();
    // SAFETY: a block for each place; rows of q and drafts are those that there are; drawn and p are new.
    unsafe { launch("couple", &scores, Grid::rows(pictures * places, codes), &args)? };
    Ok((drawn, p))
}

/// The codes of the largest of scores + noise, u32 [pictures, places]; `unsound` where scores are not numbers. Of scores
/// [pictures, n, codes] the last is that of all places behind.
pub fn draw(scores: &Tensor, noise: &Tensor, of_places: &Of, places: usize, unsound: u32) -> Result<Tensor> {
    let (scores, noise) = (scores.contiguous()?, noise.contiguous()?);
    let (pictures, n, codes) = scores.dims3()?;
    // SAFETY: the kernel writes every number.
    let drawn = unsafe { Tensor::empty((pictures, places), DType::U32, scores.device())? };
    let (at, given) = match of_places {
        Of::Row(at) => (*at, None),
        Of::Rows(rows) => (0, Some(*rows)),
    };
    let sizes = [codes, places, n, noise.dim(1)?, at].map(count);
    let args =
        [&[of(&drawn), of(&scores), of(&noise), Arg::Tensor(given)][..], &sizes, &[Arg::Count(unsound)]].concat();
    // SAFETY: a block for each place; rows of noise are those of the table; drawn is new.
    unsafe { launch("draw", &scores, Grid::rows(pictures * places, codes), &args)? };
    Ok(drawn)
}
