//! Attention in candle's operations, for GPUs: of a block of queries at a time, to the slots that they see. So the scores of all tokens
//! for all are never there at once, and what causal attention hides is not computed.

use super::plain::{in_order, product};
use super::{fused, Rows, Seen};
use crate::device::kernel;
use crate::{Error, Result};
use candle_core::{DType, Tensor, D};

/// Scores that are held at once, as long as those of one query are not more; in tests so few that there are several blocks.
pub const SCORES: usize = if cfg!(test) { 1 << 12 } else { 1 << 26 };

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

/// Queries that are attended for at a time.
struct Block {
    first: usize,
    count: usize,
    /// They see nothing from this slot on.
    end: usize,
}

/// Of queries [B, heads, T, d] to so many slots.
fn blocks(q: &Tensor, slots: usize, rows: &Rows) -> Result<Vec<Block>> {
    /// Products of fewer rows are slow; more rows at once are taken in whole steps of it.
    const STEP: usize = if cfg!(test) { 1 } else { 64 };
    let (b, heads, t, _) = q.dims4()?;
    let at_once = (SCORES / (b * heads * slots).max(1)).max(1);
    let at_once = if at_once > STEP { at_once / STEP * STEP } else { at_once };
    let end = |first: usize, count: usize| {
        let rows = rows.spans.chunks(t).map(|row| &row[first.min(row.len())..(first + count).min(row.len())]);
        rows.flatten().map(|span| span.1 as usize).max().unwrap_or(slots).min(slots)
    };
    let block = |first: usize| {
        let count = at_once.min(t - first);
        Block { first, count, end: end(first, count) }
    };
    Ok((0..t).step_by(at_once).map(block).collect())
}

impl Block {
    /// What the block's queries see.
    fn seen(&self, all: Option<&Seen>) -> Result<Option<Seen>> {
        let of = |limit: &Option<Tensor>| -> Result<Option<Tensor>> {
            Ok(match limit {
                Some(limit) if limit.dim(1)? > 1 => Some(limit.narrow(1, self.first, self.count)?),
                other => other.clone(),
            })
        };
        all.map(|seen| Ok(Seen { first: of(&seen.first)?, last: of(&seen.last)? })).transpose()
    }

    /// The block's rows of queries, or of what belongs to them, [B, heads, T, d].
    fn of(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.narrow(2, self.first, self.count)?)
    }

    /// What is seen of keys or values [B, heads, S, d].
    fn sees(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.narrow(2, 0, self.end)?)
    }

    /// Probabilities [B, heads, count, end].
    fn probabilities(&self, q: &Tensor, k: &Tensor, rows: &Rows) -> Result<Tensor> {
        let scores = product(&self.of(q)?, &self.sees(k)?.t()?)?;
        softmax(&scores, self.seen(rows.seen)?.as_ref(), scale(q)?)
    }
}

/// What scores are multiplied with, of heads [.., d].
fn scale(q: &Tensor) -> Result<f64> {
    Ok((q.dim(D::Minus1)? as f64).powf(-0.5))
}

pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, rows: &Rows, keep: bool) -> Result<(Tensor, Option<Tensor>)> {
    let dtype = q.dtype();
    let q = &q.to_dtype(k.dtype())?;
    let (b, t, heads, d) = q.dims4()?;
    let o = match !keep && fused::attends(q, k, v) {
        true => fused::attend(q, k, v, rows.seen, scale(q)?)?,
        false => {
            let share = heads / k.dim(1)?;
            let (q, k, v) = (q.transpose(1, 2)?.contiguous()?, repeat(k, share)?, repeat(v, share)?);
            let of = |block: Block| -> Result<Tensor> {
                Ok(product(&block.probabilities(&q, &k, rows)?, &block.sees(&v)?)?.transpose(1, 2)?)
            };
            Tensor::cat(&blocks(&q, k.dim(2)?, rows)?.into_iter().map(of).collect::<Result<Vec<_>>>()?, 1)?
        }
    };
    let o = o.reshape((b, t, heads * d))?.to_dtype(dtype)?;
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
    let ((b, t, heads, d), (_, kv, slots, _)) = (q.dims4()?, k.dims4()?);
    let (dtype, share) = (q.dtype(), heads / kv);
    let by_heads = |x: &Tensor| x.transpose(1, 2)?.contiguous();
    let (q, g) = (by_heads(q)?, by_heads(&g.reshape((b, t, heads, d))?)?);
    let (k, v) = (repeat(k, share)?, repeat(v, share)?);
    // Sums over the blocks.
    let sums = || Tensor::zeros((b, heads, slots, d), DType::F32, q.device());
    let (dk, dv, mut dq) = (sums()?, sums()?, Vec::new());
    for block in blocks(&q, slots, rows)? {
        let p = block.probabilities(&q, &k, rows)?;
        let g = block.of(&g)?;
        add_product(&dv, &p, &g)?;
        let ds = softmax_backward(&product(&g, &block.sees(&v)?.t()?)?, &p, scale(&q)?)?;
        drop(p);
        dq.push(product(&ds, &block.sees(&k)?)?.transpose(1, 2)?);
        add_product(&dk, &ds, &block.of(&q)?)?;
    }
    drop((q, g, k, v));
    let shared = |x: Tensor| -> Result<Tensor> {
        let x = x.reshape((b, kv, share, slots, d))?;
        let x = if share == 1 { x.squeeze(2)? } else { x.sum(2)? };
        Ok(x.to_dtype(dtype)?.transpose(1, 2)?.contiguous()?)
    };
    Ok((Tensor::cat(&dq, 1)?.contiguous()?, shared(dk)?, shared(dv)?))
}

/// Adds `a^T b` to the first rows of `sum` [B, heads, S, d], f32, which nobody else holds; a is [B, heads, n, end], b [B, heads, n, d].
fn add_product(sum: &Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    if !sum.device().is_cpu() {
        return kernel::add_product(sum, a, b);
    }
    let first = sum.narrow(2, 0, a.dim(3)?)?;
    // Without rounding, as cuBLAS adds it to f32.
    let (a, b) = (a.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?.contiguous()?);
    let more = product(&a.transpose(2, 3)?, &b)?;
    sum.slice_set(&(first + more)?.contiguous()?, 2, 0)?;
    Ok(())
}
