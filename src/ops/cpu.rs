//! The building blocks on the CPU: f32 activations in tensors, the arithmetic in [`kernels`](crate::kernels).

use super::{Heads, Rows};
use crate::kernels::{self, zeros, Attention, Left, Matrix};
use crate::weight::Weight;
use crate::{Error, Result};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Storage, Tensor, D};
use half::bf16;
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::{Deref, Range};

/// The numbers of an f32 tensor on the CPU, from its first on.
struct Floats<S> {
    storage: S,
    start: usize,
    end: usize,
}

impl<S: Deref<Target = Storage>> Deref for Floats<S> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(all)) => &all[self.start..self.end],
            // `floats` lets no other storage in.
            _ => &[],
        }
    }
}

/// The numbers from the first to the last of a tensor, whatever lies between them.
pub fn floats(t: &Tensor) -> Result<impl Deref<Target = [f32]> + '_> {
    let (storage, layout) = t.storage_and_layout();
    if !matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))) {
        return Err(Error::internal(format!(
            "expected f32 on the CPU, found {:?} on {:?}",
            t.dtype(),
            t.device().location()
        )));
    }
    let Range { start, end } = span(layout);
    Ok(Floats { storage, start, end })
}

/// Where the numbers of a tensor lie in its storage, from the first to the last.
fn span(layout: &Layout) -> Range<usize> {
    let start = layout.start_offset();
    let length: usize = layout.dims().iter().zip(layout.stride()).map(|(n, s)| n.saturating_sub(1) * s).sum();
    let end = if layout.shape().elem_count() == 0 { start } else { start + length + 1 };
    start..end
}

fn tensor(values: Vec<f32>, dims: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?)
}

/// `x` [.., width] with another last dimension.
fn with_width(x: &Tensor, width: usize) -> Vec<usize> {
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = width;
    }
    dims
}

/// Calls `f` with the numbers of a weight as they lie in memory.
fn matrix<R>(weight: &Weight, f: impl FnOnce(Matrix) -> R) -> Result<R> {
    match weight {
        Weight::Dense(t) => dense(&t.contiguous()?, f),
        Weight::Quantised(q) => {
            let data = q.bytes()?;
            match q.dtype() {
                GgmlDType::Q8_0 => Ok(f(Matrix::Q8_0(&data))),
                GgmlDType::Q4K => Ok(f(Matrix::Q4K(&data))),
                other => Err(Error::internal(format!("a weight in {other:?} is not for the CPU"))),
            }
        }
    }
}

/// The same with those of a tensor of f32 or bf16, from the first to the last, whatever lies between them.
pub(super) fn dense<R>(t: &Tensor, f: impl FnOnce(Matrix) -> R) -> Result<R> {
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(all)) => Ok(f(Matrix::F32(&all[span(layout)]))),
        Storage::Cpu(CpuStorage::BF16(all)) => Ok(f(Matrix::Bf16(&all[span(layout)]))),
        _ => Err(Error::internal(format!("numbers in {:?} are not for the CPU", t.dtype()))),
    }
}

/// Sequences of at most `few` tokens go through the kernel that packs nothing. Their length decides and not that of the batch: what a
/// token gets must not depend on what is drawn beside it, and the two kernels add in different orders.
pub fn linear(x: &Tensor, weight: &Weight, few: usize) -> Result<Tensor> {
    let (n, k) = (weight.dims()[0], weight.dims()[1]);
    let x = x.contiguous()?;
    let m = x.elem_count() / k;
    let length = x.dim(D::Minus2)?;
    let mut y = zeros(m * n);
    let values = floats(&x)?;
    matrix(weight, |w| match length <= few {
        true => kernels::rows(&values, w, &mut y, (m, n, k)),
        false => {
            let left = Left { data: &values, row: k, column: 1 };
            kernels::gemm((m, n, k), left, (w, k, true), (&mut y, n), false)
        }
    })?;
    tensor(y, &with_width(&x, n))
}

/// The blocks of a matrix of whole blocks: bit for bit those of candle's quantiser.
pub fn quantise(numbers: &Tensor, dtype: GgmlDType) -> Result<Vec<u8>> {
    /// Blocks that one thread makes at a time.
    const PIECE: usize = 1 << 10;
    let (size, bytes) = (dtype.block_size(), dtype.type_size());
    let numbers = match numbers.dtype() {
        DType::F32 | DType::BF16 => numbers.flatten_all()?,
        _ => numbers.flatten_all()?.to_dtype(DType::F32)?,
    };
    let kernel = match dtype {
        GgmlDType::Q8_0 => kernels::q8_0,
        GgmlDType::Q4K => kernels::q4_k,
        other => return Err(Error::internal(format!("{other:?} is not a format of weights"))),
    };
    let mut blocks = vec![0u8; numbers.elem_count() / size * bytes];
    matrix(&Weight::Dense(numbers.clone()), |all| {
        blocks.par_chunks_mut(PIECE * bytes).enumerate().try_for_each(|(piece, to)| {
            for block in kernel(all, PIECE * piece, to) {
                // Numbers of their own: `quantize` reads all of a tensor's storage.
                let some = numbers.narrow(0, (PIECE * piece + block) * size, size)?;
                let made = QTensor::quantize(&some.to_dtype(DType::F32)?.force_contiguous()?, dtype)?;
                to[block * bytes..(block + 1) * bytes].copy_from_slice(&made.data()?);
            }
            Ok::<_, Error>(())
        })
    })??;
    Ok(blocks)
}

pub fn input_gradient(g: &Tensor, weight: &Weight, sum: Option<Tensor>) -> Result<Tensor> {
    let (n, k) = (weight.dims()[0], weight.dims()[1]);
    let g = g.contiguous()?;
    let m = g.elem_count() / n;
    let values = floats(&g)?;
    let product = |to: &mut [f32], add: bool| {
        let left = Left { data: &values, row: n, column: 1 };
        matrix(weight, |w| kernels::gemm((m, k, n), left, (w, k, false), (to, k), add))
    };
    match sum {
        Some(sum) => {
            change_floats(&sum, |to| product(to, true))?;
            Ok(sum)
        }
        None => {
            let mut dx = zeros(m * k);
            product(&mut dx, false)?;
            tensor(dx, &with_width(&g, k))
        }
    }
}

pub fn weight_gradient(g: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (g, x) = (g.contiguous()?, x.contiguous()?);
    let (n, k) = (g.dims()[g.rank() - 1], x.dims()[x.rank() - 1]);
    let m = g.elem_count() / n;
    let mut dw = zeros(n * k);
    let values = floats(&g)?;
    let left = Left { data: &values, row: 1, column: n };
    kernels::gemm((n, k, m), left, (Matrix::F32(&floats(&x)?), k, false), (&mut dw, k), false);
    tensor(dw, &[n, k])
}

pub fn add(a: Tensor, b: &Tensor) -> Result<Tensor> {
    let b = b.contiguous()?;
    let values = floats(&b)?;
    change_floats(&a, |a| {
        kernels::add(a, &values);
        Ok(())
    })?;
    Ok(a)
}

pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.contiguous()?;
    let mut y = zeros(x.elem_count());
    kernels::rms_norm(&floats(&x)?, &floats(weight)?, eps as f32, &mut y);
    tensor(y, x.dims())
}

pub fn rms_norm_backward(
    g: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
    with_weight: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let (g, x) = (g.contiguous()?, x.contiguous()?);
    let mut dx = zeros(x.elem_count());
    let mut dw = with_weight.then(|| zeros(weight.elem_count()));
    kernels::rms_norm_backward(&floats(&g)?, &floats(&x)?, &floats(weight)?, eps as f32, &mut dx, dw.as_deref_mut());
    Ok((tensor(dx, x.dims())?, dw.map(|dw| tensor(dw, weight.dims())).transpose()?))
}

/// Calls `f` with what the kernel needs; rows of weight and bias are repeated for the heads that share them.
fn rotary<R>(x: &Tensor, heads: &Heads, f: impl FnOnce(kernels::Rotary) -> R) -> Result<R> {
    let (_, _, n, d) = x.dims4()?;
    let (weight, bias) = (super::per_head(heads.weight, n)?, super::per_head(heads.bias, n)?);
    let (cos, sin) = (heads.cos.contiguous()?, heads.sin.contiguous()?);
    let (weight, bias, cos, sin) = (floats(&weight)?, floats(&bias)?, floats(&cos)?, floats(&sin)?);
    let eps = heads.eps as f32;
    Ok(f(kernels::Rotary { heads: n, d, weight: &weight, bias: &bias, eps, cos: &cos, sin: &sin }))
}

pub fn norm_and_rotate(x: &Tensor, heads: &Heads) -> Result<Tensor> {
    let x = x.contiguous()?;
    let mut y = zeros(x.elem_count());
    let values = floats(&x)?;
    rotary(&x, heads, |r| r.forward(&values, &mut y))?;
    tensor(y, x.dims())
}

pub fn norm_and_rotate_backward(
    g: &Tensor,
    x: &Tensor,
    heads: &Heads,
    with_weight: bool,
) -> Result<(Tensor, Option<(Tensor, Tensor)>)> {
    let (g, x) = (g.contiguous()?, x.contiguous()?);
    let (_, _, n, d) = x.dims4()?;
    let mut dx = zeros(x.elem_count());
    let mut sums = with_weight.then(|| (zeros(n * d), zeros(n * d)));
    let (gs, xs) = (floats(&g)?, floats(&x)?);
    rotary(&x, heads, |r| {
        r.backward(&gs, &xs, &mut dx, sums.as_mut().map(|(w, b)| (w.as_mut_slice(), b.as_mut_slice())))
    })?;
    let rows = heads.weight.dim(0)?;
    let reduce = |sum: Vec<f32>| super::per_row(&tensor(sum, &[n, d])?, rows);
    let sums = sums.map(|(w, b)| Ok::<_, crate::Error>((reduce(w)?, reduce(b)?))).transpose()?;
    Ok((tensor(dx, x.dims())?, sums))
}

/// With `back` the other way round.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, back: bool) -> Result<Tensor> {
    let (x, cos, sin) = (x.contiguous()?, cos.contiguous()?, sin.contiguous()?);
    let (_, _, heads, d) = x.dims4()?;
    let mut y = zeros(x.elem_count());
    kernels::rotate(&floats(&x)?, (heads, d), &floats(&cos)?, &floats(&sin)?, back, &mut y);
    tensor(y, x.dims())
}

/// Sizes of an attention for the kernel; keys [B, kv, S, d] may be a view.
fn attention_of<'a>(q: &Tensor, k: &Tensor, v: &Tensor, rows: &'a Rows) -> Result<Attention<'a>> {
    let (batch, tokens, heads, d) = q.dims4()?;
    let (_, kv_heads, slots, _) = k.dims4()?;
    let stride = k.stride();
    if stride[3] != 1 || v.stride() != stride || v.dims() != k.dims() {
        return Err(Error::internal(format!("keys and values lie differently: {:?} and {:?}", k.layout(), v.layout())));
    }
    let strides = [stride[0], stride[1], stride[2]];
    Ok(Attention { batch, tokens, heads, kv_heads, d, slots, strides, spans: rows.spans })
}

pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, rows: &Rows, keep: bool) -> Result<(Tensor, Option<Tensor>)> {
    let q = q.contiguous()?;
    let (batch, tokens, heads, d) = q.dims4()?;
    let sizes = attention_of(&q, k, v, rows)?;
    let mut o = zeros(q.elem_count());
    let mut normalisers = if keep { zeros(batch * heads * tokens) } else { vec![] };
    let qs = floats(&q)?;
    dense(k, |ks| {
        dense(v, |vs| match rows.one_by_one {
            true => sizes.rows(&qs, ks, vs, &mut o),
            false => sizes.forward(&qs, ks, vs, &mut o, &mut normalisers),
        })
    })??;
    let normalisers = keep.then(|| tensor(normalisers, &[batch, heads, tokens])).transpose()?;
    Ok((tensor(o, &[batch, tokens, heads * d])?, normalisers))
}

pub fn attention_backward(
    g: &Tensor,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    o: &Tensor,
    normalisers: &Tensor,
    rows: &Rows,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (g, q, o) = (g.contiguous()?, q.contiguous()?, o.contiguous()?);
    let sizes = attention_of(&q, k, v, rows)?;
    let (gs, qs, ks, vs) = (floats(&g)?, floats(&q)?, floats(k)?, floats(v)?);
    let mut dq = zeros(q.elem_count());
    let (mut dk, mut dv) = (zeros(ks.len()), zeros(vs.len()));
    sizes.backward(&gs, (&qs, &ks, &vs), &floats(&o)?, &floats(normalisers)?, &mut dq, &mut dk, &mut dv);
    // Keys came as a view of [B, T, kv, d]; their gradients lie the same.
    let (b, kv, t, d) = k.dims4()?;
    if k.stride() != [t * kv * d, d, kv * d, 1] {
        return Err(Error::internal("gradients are for keys [B, T, kv, d] seen as [B, kv, T, d]"));
    }
    Ok((tensor(dq, q.dims())?, tensor(dk, &[b, t, kv, d])?, tensor(dv, &[b, t, kv, d])?))
}

pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let mut y = zeros(gate.elem_count());
    kernels::silu_mul(&floats(gate)?, &floats(up)?, &mut y);
    tensor(y, gate.dims())
}

pub fn silu_mul_backward(g: &Tensor, gate: Tensor, up: Tensor) -> Result<(Tensor, Tensor)> {
    let g = g.contiguous()?;
    let gs = floats(&g)?;
    change_floats(&gate, |gate| {
        change_floats(&up, |up| {
            kernels::silu_mul_backward(&gs, gate, up);
            Ok(())
        })
    })?;
    Ok((gate, up))
}

pub fn cross_entropy(logits: &Tensor, targets: &[u32], weights: &[f32], z_loss: f32) -> Result<(Vec<f32>, Vec<f32>)> {
    let (rows, n) = logits.dims2()?;
    let (mut nats, mut norms) = (zeros(rows), zeros(rows));
    change_floats(logits, |logits| {
        kernels::cross_entropy(logits, n, targets, weights, z_loss, &mut nats, &mut norms);
        Ok(())
    })?;
    Ok((nats, norms))
}

/// Changes the numbers of a contiguous f32 tensor.
fn change_floats(t: &Tensor, f: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
    change(t, |numbers| match numbers {
        Numbers::F32(numbers) => f(numbers),
        Numbers::Bf16(_) => Err(Error::internal("expected f32, found bf16")),
    })
}

/// The numbers of a tensor.
pub enum Numbers<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

/// Changes the numbers of a contiguous tensor on the CPU where they lie. Who calls it owns all tensors that share them.
pub fn change(t: &Tensor, f: impl FnOnce(Numbers) -> Result<()>) -> Result<()> {
    struct Change<F>(Cell<Option<F>>, Cell<Option<Error>>);
    impl<F: FnOnce(Numbers) -> Result<()>> InplaceOp1 for Change<F> {
        fn name(&self) -> &'static str {
            "change"
        }
        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
            let (Some((start, end)), Some(f)) = (layout.contiguous_offsets(), self.0.take()) else {
                candle_core::bail!("only contiguous numbers are changed in place");
            };
            let result = match storage {
                CpuStorage::F32(all) => f(Numbers::F32(&mut all[start..end])),
                CpuStorage::BF16(all) => f(Numbers::Bf16(&mut all[start..end])),
                _ => candle_core::bail!("only f32 and bf16 are changed in place"),
            };
            self.1.set(result.err());
            Ok(())
        }
    }
    let operation = Change(Cell::new(Some(f)), Cell::new(None));
    t.inplace_op1(&operation)?;
    operation.1.take().map_or(Ok(()), Err)
}
