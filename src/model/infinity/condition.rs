//! What the transformer is told of its texts (arXiv 2412.04431, section 3.3): what cross-attention reads, and one pooled vector a
//! text that begins the sequence and steers the norms. Forward, and backward to the texts' features.
//!
//! Weights of this part do not learn. Everything is f32.

use super::config::{Config, EPS};
use super::layer::Steady;
use super::linear::Linear;
use super::ops;
use crate::files::checkpoint::Checkpoint;
use crate::ops::{add, attention, attention_backward, own_kernels, rms_norm, rms_norm_backward, Rows, Seen};
use crate::weight::Weight;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::sync::{Arc, OnceLock};

/// A matrix and its bias.
#[derive(Clone)]
pub struct Dense {
    pub weight: Weight,
    pub bias: Tensor,
}

impl Dense {
    pub fn load(checkpoint: &Checkpoint, name: &str, out: usize, inner: usize, device: &Device) -> Result<Self> {
        let get = |part: &str, dims: &[usize]| checkpoint.get(&format!("{name}.{part}"), dims, DType::F32, device);
        Ok(Dense { weight: get("weight", &[out, inner])?.into(), bias: get("bias", &[out])? })
    }

    fn linear(&self) -> Linear<'_> {
        Linear { weight: &self.weight, bias: Some(&self.bias), low_rank: None }
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear().forward(x)
    }

    /// The gradient of what went in.
    pub fn back(&self, g: &Tensor, sum: Option<Tensor>) -> Result<Tensor> {
        ops::input_gradient(g, &self.weight, sum)
    }
}

/// The weights between texts and blocks.
#[derive(Clone)]
pub struct Conditioner {
    norm: Tensor,
    /// [heads, d]
    query: Tensor,
    key_value: Weight,
    value_bias: Tensor,
    pool: Dense,
    source: [Dense; 2],
    adaptive: Dense,
    head: Dense,
    /// [rows, text]
    pub unconditional: Tensor,
    /// Of the transformer.
    blocks: usize,
}

/// Texts as the transformer has them: B of them, side by side, the shorter ones with zeros behind.
#[derive(Clone)]
pub struct Texts {
    /// Features that count, of each text.
    pub lengths: Vec<usize>,
    /// What cross-attention reads, [B, L, C].
    pub source: Tensor,
    /// [B, C]
    pub pooled: Tensor,
    /// Gates, factors less one and summands of all blocks: gate, gate, factor, factor, summand, summand, [B, 6, C].
    pub adaptive: Tensor,
    /// Factor less one and summand before the head, [B, 2, C].
    pub head: Tensor,
    /// What each block makes of them and its vectors once, for all passes.
    pub steady: Arc<Vec<OnceLock<Steady>>>,
}

/// What [`Conditioner::backward`] needs of the forward pass of one text.
pub struct Kept {
    features: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mixed: Tensor,
    normalisers: Tensor,
    inner: Tensor,
}

/// Gradients of a [`Texts`], zero to begin with.
pub struct Gradients {
    pub source: Tensor,
    pub pooled: Tensor,
    pub adaptive: Tensor,
    pub head: Tensor,
}

impl Texts {
    /// What `tokens` tokens of each text see of it.
    pub fn spans(&self, tokens: usize) -> Vec<(u32, u32)> {
        self.lengths.iter().flat_map(|&n| std::iter::repeat_n((0, n as u32), tokens)).collect()
    }

    /// The same of every token on the device, for attention's plain form.
    pub fn seen(&self) -> Result<Option<Seen>> {
        let (b, slots, _) = self.source.dims3()?;
        if own_kernels(&self.source) {
            return Ok(None);
        }
        Seen::new(&self.spans(1), b, slots, self.source.device())
    }

    pub fn gradients(&self) -> Result<Gradients> {
        Ok(Gradients {
            source: zeros_like(&self.source)?,
            pooled: zeros_like(&self.pooled)?,
            adaptive: zeros_like(&self.adaptive)?,
            head: zeros_like(&self.head)?,
        })
    }
}

/// Zeros of their own, to be added to in place.
fn zeros_like(t: &Tensor) -> Result<Tensor> {
    Ok(Tensor::zeros(t.shape(), DType::F32, t.device())?)
}

impl Conditioner {
    pub fn load(checkpoint: &Checkpoint, config: &Config, device: &Device) -> Result<Self> {
        let (c, text) = (config.width, config.text);
        let get = |name: &str, dims: &[usize]| checkpoint.get(name, dims, DType::F32, device);
        let dense = |name: &str, out: usize, inner: usize| Dense::load(checkpoint, name, out, inner, device);
        let query = get("text_proj_for_sos.ca.mat_q", &[1, config.pool_heads, c / config.pool_heads])?.squeeze(0)?;
        Ok(Conditioner {
            norm: get("text_norm.weight", &[text])?,
            query,
            key_value: get("text_proj_for_sos.ca.mat_kv.weight", &[2 * c, text])?.into(),
            value_bias: get("text_proj_for_sos.ca.v_bias", &[c])?,
            pool: dense("text_proj_for_sos.ca.proj", c, c)?,
            source: [dense("text_proj_for_ca.0", c, text)?, dense("text_proj_for_ca.2", c, c)?],
            adaptive: dense("shared_ada_lin.1", 6 * c, c)?,
            head: dense("head_nm.ada_lin.1", 2 * c, c)?,
            unconditional: get("cfg_uncond", &[config.text_rows, text])?,
            blocks: config.blocks.len(),
        })
    }

    /// The text that stands for none, as long as the one it is set against.
    pub fn unguided(&self, length: usize) -> Result<Tensor> {
        let rows = self.unconditional.dims()[0];
        if length > rows {
            let message = format!("a prompt of {length} tokens; at most {rows} are read, shorten it");
            return Err(Error::invalid("prompt", message));
        }
        Ok(self.unconditional.narrow(0, 0, length)?)
    }

    /// Of the features of each text, [n, text]. Each text runs alone, so that what it gives does not depend on those beside it.
    pub fn forward(&self, features: &[Tensor]) -> Result<(Texts, Vec<Kept>)> {
        let device = self.norm.device();
        let lengths: Vec<usize> = features.iter().map(|f| f.dims()[0]).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let (mut parts, mut kept) = ([vec![], vec![], vec![], vec![]], vec![]);
        for features in features {
            let ([source, pooled, adaptive, head], own) =
                self.one(&features.to_device(device)?.to_dtype(DType::F32)?)?;
            let source = padded(source, longest)?;
            parts.iter_mut().zip([source, pooled, adaptive, head]).for_each(|(all, own)| all.push(own));
            kept.push(own);
        }
        let [source, pooled, adaptive, head] = parts;
        let all = |parts: Vec<Tensor>| Tensor::cat(&parts, 0);
        let texts = Texts {
            lengths,
            source: all(source)?,
            pooled: all(pooled)?,
            adaptive: all(adaptive)?,
            head: all(head)?,
            steady: Arc::new((0..self.blocks).map(|_| OnceLock::new()).collect()),
        };
        Ok((texts, kept))
    }

    /// The parts of [`Texts`] of one text.
    fn one(&self, features: &Tensor) -> Result<([Tensor; 4], Kept)> {
        let n = features.dims()[0];
        if n == 0 {
            return Err(Error::internal("a text without features"));
        }
        let features = features.unsqueeze(0)?;
        let normed = rms_norm(&features, &self.norm, EPS)?;
        let (heads, d) = self.query.dims2()?;
        let c = heads * d;
        let queries = self.query.reshape((1, 1, heads, d))?;
        let both = ops::linear(&normed, &self.key_value)?;
        let keys = both.narrow(2, 0, c)?.contiguous()?.reshape((1, n, heads, d))?;
        let values =
            ops::add_bias(both.narrow(2, c, c)?.force_contiguous()?, &self.value_bias)?.reshape((1, n, heads, d))?;
        let spans = [(0, n as u32)];
        let rows = Rows { spans: &spans, seen: None, one_by_one: false };
        let (mixed, normalisers) = attention(&queries, &keys.transpose(1, 2)?, &values.transpose(1, 2)?, &rows, true)?;
        let normalisers = normalisers.ok_or_else(|| Error::internal("attention kept nothing"))?;
        let pooled = self.pool.forward(&mixed)?.squeeze(1)?;
        let active = pooled.silu()?;
        let adaptive = self.adaptive.forward(&active)?.reshape((1, 6, c))?;
        let head = self.head.forward(&active)?.reshape((1, 2, c))?;
        let inner = self.source[0].forward(&normed)?;
        let source = self.source[1].forward(&ops::gelu(&inner, None)?)?;
        let kept = Kept { features, queries, keys, values, mixed, normalisers, inner };
        Ok(([source, pooled, adaptive, head], kept))
    }

    /// The gradients of each text's features, [n, text].
    pub fn backward(&self, texts: &Texts, kept: Vec<Kept>, of: &Gradients) -> Result<Vec<Tensor>> {
        let c = texts.source.dims()[2];
        let back = |(row, kept): (usize, Kept)| -> Result<Tensor> {
            let row_of = |t: &Tensor| t.narrow(0, row, 1)?.contiguous();
            let pooled = row_of(&texts.pooled)?;
            let g = self.adaptive.back(&row_of(&of.adaptive)?.reshape((1, 6 * c))?, None)?;
            let g = self.head.back(&row_of(&of.head)?.reshape((1, 2 * c))?, Some(g))?;
            // x sigmoid(x), whose slope is s (1 + x (1 - s)).
            let s = candle_nn::ops::sigmoid(&pooled)?;
            let slope = (&s * (((1.0 - &s)? * &pooled)? + 1.0)?)?;
            let g = ((g * slope)? + row_of(&of.pooled)?)?;
            let g = self.pool.back(&g.unsqueeze(1)?, None)?;
            let n = texts.lengths[row];
            let spans = [(0, n as u32)];
            let rows = Rows { spans: &spans, seen: None, one_by_one: false };
            let seen = (&kept.keys.transpose(1, 2)?, &kept.values.transpose(1, 2)?);
            let (_, keys, values) =
                attention_backward(&g, (&kept.queries, seen.0, seen.1), &kept.mixed, &kept.normalisers, &rows)?;
            let flat = |t: Tensor| t.reshape((1, n, c));
            let both = Tensor::cat(&[flat(keys)?, flat(values)?], 2)?;
            let pooled = ops::input_gradient(&both, &self.key_value, None)?;
            let g = self.source[1].back(&row_of(&of.source)?.narrow(1, 0, n)?.contiguous()?, None)?;
            let g = self.source[0].back(&ops::gelu_backward(&g, kept.inner)?, None)?;
            let g = add(g, &pooled)?;
            Ok(rms_norm_backward(&g, &kept.features, &self.norm, EPS, false)?.0.squeeze(0)?)
        };
        kept.into_iter().enumerate().map(back).collect()
    }
}

/// A text [1, n, ..] with zeros behind.
pub fn padded(t: Tensor, n: usize) -> Result<Tensor> {
    Ok(match n - t.dims()[1] {
        0 => t,
        rest => t.pad_with_zeros(1, 0, rest)?,
    })
}
