//! One layer of the transformer, forward and backward.
//!
//! The backward pass is written by hand. It takes what `Layer::forward_keeping` kept, computes no gradient of a weight that
//! nobody asked for, and lets go of each kept tensor as soon as it has done its service.

use super::config::Config;
use super::transformer::{Context, LayerCache};
use crate::model::ops::{self, Heads, Rows};
use crate::model::weight::Weight;
use crate::{Error, Result};
use candle_core::Tensor;

/// Epsilon of the norm on queries and keys; fixed, whatever the configuration says.
const QK_NORM_EPS: f64 = 1e-5;

/// Weights of one layer; names as in the checkpoint. A clone shares the numbers.
#[derive(Clone)]
pub struct Layer {
    pub input_layernorm: Weight,
    pub q_proj: Weight,
    pub k_proj: Weight,
    pub v_proj: Weight,
    pub o_proj: Weight,
    /// Weight and bias, [rows, head_dim] each; a row serves heads / rows consecutive heads.
    pub q_norm: (Weight, Weight),
    /// As `q_norm`, for the kv_heads.
    pub k_norm: (Weight, Weight),
    pub post_attention_layernorm: Weight,
    pub gate_proj: Weight,
    pub up_proj: Weight,
    pub down_proj: Weight,
    /// Low-rank changes to q_proj, k_proj and v_proj that are not merged into them.
    pub low_rank: [Option<LowRank>; 3],
}

/// Adds `up down` to a matrix [out, in].
#[derive(Clone)]
pub struct LowRank {
    /// [rank, in]
    pub down: Weight,
    /// [out, rank]
    pub up: Weight,
}

impl LowRank {
    /// A change with another beside it: their sum.
    pub fn joined(first: Option<LowRank>, down: Tensor, up: Tensor) -> Result<Self> {
        Ok(match first {
            Some(LowRank { down: Weight::Dense(d), up: Weight::Dense(u) }) => {
                LowRank { down: Tensor::cat(&[d, down], 0)?.into(), up: Tensor::cat(&[u, up], 1)?.into() }
            }
            _ => LowRank { down: down.into(), up: up.into() },
        })
    }
}

/// Names of a layer's weights in the checkpoint, without the layer's prefix, in the order of [`Layer::weights`].
pub const NAMES: [&str; 13] = [
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "self_attn.q_norm.weight",
    "self_attn.q_norm.bias",
    "self_attn.k_norm.weight",
    "self_attn.k_norm.bias",
    "post_attention_layernorm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
];

/// Numbers of the weights in [`NAMES`].
pub const Q: usize = 1;
const K: usize = 2;
const V: usize = 3;
const O: usize = 4;
const GATE: usize = 10;
const UP: usize = 11;
const DOWN: usize = 12;

/// What gradients are asked of a layer.
#[derive(Clone, Copy, Default)]
pub struct Wanted {
    /// By number in [`NAMES`].
    pub weights: [bool; 13],
    /// Of the low-rank changes.
    pub low_rank: bool,
}

impl Wanted {
    fn any(&self, numbers: &[usize]) -> bool {
        numbers.iter().any(|&n| self.weights[n])
    }
}

/// Whose gradient: a weight by number in [`NAMES`], or a factor of a low-rank change by number of the projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Weight(usize),
    Down(usize),
    Up(usize),
}

/// Gradients of a layer's weights, f32.
pub type Gradients = Vec<(Part, Tensor)>;

/// What a forward pass leaves for the backward pass.
pub struct Kept {
    x: Tensor,
    /// Before and behind norm and rotation, [B, T, heads, d].
    raw: [Tensor; 2],
    turned: [Tensor; 2],
    v: Tensor,
    /// [B, T, heads d], and what the attention left.
    mixed: Tensor,
    normalisers: Tensor,
    /// Behind the attention's residual sum.
    middle: Tensor,
    gate: Tensor,
    up: Tensor,
    /// What the sub-layers gave before their norm, in post-norm models.
    before_norm: Option<[Tensor; 2]>,
}

impl Layer {
    /// The weights in the order of [`NAMES`].
    pub fn weights(&self) -> [&Weight; 13] {
        [
            &self.input_layernorm,
            &self.q_proj,
            &self.k_proj,
            &self.v_proj,
            &self.o_proj,
            &self.q_norm.0,
            &self.q_norm.1,
            &self.k_norm.0,
            &self.k_norm.1,
            &self.post_attention_layernorm,
            &self.gate_proj,
            &self.up_proj,
            &self.down_proj,
        ]
    }

    /// As [`Layer::weights`], to change them.
    pub fn weights_mut(&mut self) -> [&mut Weight; 13] {
        [
            &mut self.input_layernorm,
            &mut self.q_proj,
            &mut self.k_proj,
            &mut self.v_proj,
            &mut self.o_proj,
            &mut self.q_norm.0,
            &mut self.q_norm.1,
            &mut self.k_norm.0,
            &mut self.k_norm.1,
            &mut self.post_attention_layernorm,
            &mut self.gate_proj,
            &mut self.up_proj,
            &mut self.down_proj,
        ]
    }

    /// The layer's result for x [B, T, hidden]. With a cache, new keys and values go into it and all in it are seen.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        index: usize,
        config: &Config,
        context: &Context,
        mut cache: Option<(&mut LayerCache, &[usize])>,
    ) -> Result<Tensor> {
        let y = match config.swin_norm {
            true => self.norm_in(&self.attention(x, config, context, cache.take())?, config)?,
            false => self.attention(&self.norm_in(x, config)?, config, context, cache.take())?,
        };
        let x = ops::add(dropped(y, index, 0, context)?, x)?;
        let y = match config.swin_norm {
            true => self.norm_middle(&self.mlp(&x)?, config)?,
            false => self.mlp(&self.norm_middle(&x, config)?)?,
        };
        ops::add(dropped(y, index, 1, context)?, &x)
    }

    fn norm_in(&self, x: &Tensor, config: &Config) -> Result<Tensor> {
        ops::rms_norm(x, vector(&self.input_layernorm)?, config.rms_norm_eps)
    }

    fn norm_middle(&self, x: &Tensor, config: &Config) -> Result<Tensor> {
        ops::rms_norm(x, vector(&self.post_attention_layernorm)?, config.rms_norm_eps)
    }

    /// Queries, keys and values before norm and rotation, [B, T, heads, d].
    fn project(&self, h: &Tensor, config: &Config) -> Result<[Tensor; 3]> {
        let (b, t, _) = h.dims3()?;
        let of = |weight: &Weight, change: &Option<LowRank>, heads: usize| -> Result<Tensor> {
            let y = ops::linear(h, weight)?;
            let y = match change {
                Some(change) => ops::add(y, &ops::linear(&ops::linear(h, &change.down)?, &change.up)?)?,
                None => y,
            };
            Ok(y.reshape((b, t, heads, config.head_dim))?)
        };
        Ok([
            of(&self.q_proj, &self.low_rank[0], config.heads)?,
            of(&self.k_proj, &self.low_rank[1], config.kv_heads)?,
            of(&self.v_proj, &self.low_rank[2], config.kv_heads)?,
        ])
    }

    fn attention(
        &self,
        h: &Tensor,
        config: &Config,
        context: &Context,
        cache: Option<(&mut LayerCache, &[usize])>,
    ) -> Result<Tensor> {
        let [q, k, v] = self.project(h, config)?;
        let q = ops::norm_and_rotate(&q, &heads(&self.q_norm, context)?)?;
        let k = ops::norm_and_rotate(&k, &heads(&self.k_norm, context)?)?;
        let (k, v) = (k.transpose(1, 2)?, v.transpose(1, 2)?);
        // Tokens that continue a sequence get the same whether they come alone or several at once.
        let one_by_one = cache.as_ref().is_some_and(|(_, filled)| filled.iter().any(|&n| n > 0));
        let (k, v) = match cache {
            Some((cache, filled)) => cache.append(&k, &v, filled)?,
            None => (k, v),
        };
        let (mixed, _) = ops::attention(&q, &k, &v, &rows(context, one_by_one), false)?;
        ops::linear(&mixed, &self.o_proj)
    }

    fn mlp(&self, h: &Tensor) -> Result<Tensor> {
        let gate = ops::linear(h, &self.gate_proj)?;
        let up = ops::linear(h, &self.up_proj)?;
        ops::linear(&ops::silu_mul(&gate, &up)?, &self.down_proj)
    }

    /// As the forward pass without a cache, with what [`Layer::backward`] needs of it.
    pub(crate) fn forward_keeping(
        &self,
        x: &Tensor,
        index: usize,
        config: &Config,
        context: &Context,
    ) -> Result<(Tensor, Kept)> {
        let h = if config.swin_norm { x.clone() } else { self.norm_in(x, config)? };
        let [q, k, v] = self.project(&h, config)?;
        let turned = [
            ops::norm_and_rotate(&q, &heads(&self.q_norm, context)?)?,
            ops::norm_and_rotate(&k, &heads(&self.k_norm, context)?)?,
        ];
        let (seen_k, seen_v) = (turned[1].transpose(1, 2)?, v.transpose(1, 2)?);
        let (mixed, normalisers) = ops::attention(&turned[0], &seen_k, &seen_v, &rows(context, false), true)?;
        let normalisers = normalisers.ok_or_else(|| Error::internal("attention kept nothing"))?;
        let attended = ops::linear(&mixed, &self.o_proj)?;
        let y = if config.swin_norm { self.norm_in(&attended, config)? } else { attended.clone() };
        let before_attention_norm = config.swin_norm.then_some(attended);
        let middle = ops::add(dropped(y, index, 0, context)?, x)?;
        let h = if config.swin_norm { middle.clone() } else { self.norm_middle(&middle, config)? };
        let gate = ops::linear(&h, &self.gate_proj)?;
        let up = ops::linear(&h, &self.up_proj)?;
        drop(h);
        let given = ops::linear(&ops::silu_mul(&gate, &up)?, &self.down_proj)?;
        let y = if config.swin_norm { self.norm_middle(&given, config)? } else { given.clone() };
        let before_norm = before_attention_norm.map(|attended| [attended, given]);
        let y = ops::add(dropped(y, index, 1, context)?, &middle)?;
        let x = x.clone();
        Ok((y, Kept { x, raw: [q, k], turned, v, mixed, normalisers, middle, gate, up, before_norm }))
    }

    /// The gradient of x for the gradient `g` of the layer's result, and those of the weights that are wanted.
    pub(crate) fn backward(
        &self,
        g: Tensor,
        kept: Kept,
        index: usize,
        config: &Config,
        context: &Context,
        wanted: &Wanted,
    ) -> Result<(Tensor, Gradients)> {
        let eps = config.rms_norm_eps;
        let mut found: Gradients = Vec::new();
        let Kept { x, raw: [q_raw, k_raw], turned: [q, k], v, mixed, normalisers, middle, gate, up, before_norm } =
            kept;
        let (attended, given) = match before_norm {
            Some([attended, given]) => (Some(attended), Some(given)),
            None => (None, None),
        };
        let norm = |g: &Tensor, x: &Tensor, weight: &Weight, number: usize, found: &mut Gradients| -> Result<Tensor> {
            let (dx, dw) = ops::rms_norm_backward(g, x, vector(weight)?, eps, wanted.weights[number])?;
            found.extend(dw.map(|dw| (Part::Weight(number), dw)));
            Ok(dx)
        };

        // MLP
        let gm = dropped(g.clone(), index, 1, context)?;
        let gm = match &given {
            Some(given) => norm(&gm, given, &self.post_attention_layernorm, 9, &mut found)?,
            None => gm,
        };
        drop(given);
        if wanted.weights[DOWN] {
            found.push((Part::Weight(DOWN), ops::weight_gradient(&gm, &ops::silu_mul(&gate, &up)?)?));
        }
        let g_act = ops::input_gradient(&gm, &self.down_proj, None)?;
        drop(gm);
        let (g_gate, g_up) = ops::silu_mul_backward(&g_act, gate, up)?;
        drop(g_act);
        if wanted.any(&[GATE, UP]) {
            let h = if config.swin_norm { middle.clone() } else { self.norm_middle(&middle, config)? };
            for (number, g) in [(GATE, &g_gate), (UP, &g_up)] {
                if wanted.weights[number] {
                    found.push((Part::Weight(number), ops::weight_gradient(g, &h)?));
                }
            }
        }
        let gh = ops::input_gradient(&g_gate, &self.gate_proj, None)?;
        drop(g_gate);
        let gh = ops::input_gradient(&g_up, &self.up_proj, Some(gh))?;
        drop(g_up);
        let gh = match config.swin_norm {
            true => gh,
            false => norm(&gh, &middle, &self.post_attention_layernorm, 9, &mut found)?,
        };
        drop(middle);
        let g = ops::add(gh, &g)?;

        // Attention
        let ga = dropped(g.clone(), index, 0, context)?;
        let ga = match &attended {
            Some(attended) => norm(&ga, attended, &self.input_layernorm, 0, &mut found)?,
            None => ga,
        };
        drop(attended);
        if wanted.weights[O] {
            found.push((Part::Weight(O), ops::weight_gradient(&ga, &mixed)?));
        }
        let g_mixed = ops::input_gradient(&ga, &self.o_proj, None)?;
        drop(ga);
        let (seen_k, seen_v) = (k.transpose(1, 2)?, v.transpose(1, 2)?);
        let (gq, gk, gv) =
            ops::attention_backward(&g_mixed, (&q, &seen_k, &seen_v), &mixed, &normalisers, &rows(context, false))?;
        drop((g_mixed, mixed, seen_k, seen_v, q, k, v));
        let mut turn_back = |g: Tensor, raw: Tensor, norm: &(Weight, Weight), number: usize| -> Result<Tensor> {
            let with_weight = wanted.any(&[number, number + 1]);
            let (g, sums) = ops::norm_and_rotate_backward(&g, &raw, &heads(norm, context)?, with_weight)?;
            if let Some((weight, bias)) = sums {
                let both = [(number, weight), (number + 1, bias)];
                let asked = both.into_iter().filter(|(n, _)| wanted.weights[*n]);
                found.extend(asked.map(|(n, sum)| (Part::Weight(n), sum)));
            }
            flat_heads(&g)
        };
        let gq = turn_back(gq, q_raw, &self.q_norm, 5)?;
        let gk = turn_back(gk, k_raw, &self.k_norm, 7)?;
        let gv = flat_heads(&gv)?;

        // Projections
        let projections = [(Q, &self.q_proj, gq), (K, &self.k_proj, gk), (V, &self.v_proj, gv)];
        let changed = self.low_rank.iter().any(Option::is_some);
        let h = match wanted.any(&[Q, K, V]) || changed && wanted.low_rank {
            true if config.swin_norm => Some(x.clone()),
            true => Some(self.norm_in(&x, config)?),
            false => None,
        };
        let mut gh = None;
        for (projection, (number, weight, g)) in projections.into_iter().enumerate() {
            if let (true, Some(h)) = (wanted.weights[number], &h) {
                found.push((Part::Weight(number), ops::weight_gradient(&g, h)?));
            }
            gh = Some(ops::input_gradient(&g, weight, gh)?);
            let Some(LowRank { down, up }) = &self.low_rank[projection] else { continue };
            let g_low = ops::input_gradient(&g, up, None)?;
            if let (true, Some(h)) = (wanted.low_rank, &h) {
                found.push((Part::Down(projection), ops::weight_gradient(&g_low, h)?));
                found.push((Part::Up(projection), ops::weight_gradient(&g, &ops::linear(h, down)?)?));
            }
            gh = Some(ops::input_gradient(&g_low, down, gh)?);
        }
        drop(h);
        let gh = gh.ok_or_else(|| Error::internal("a layer has three projections"))?;
        let gh = match config.swin_norm {
            true => gh,
            false => norm(&gh, &x, &self.input_layernorm, 0, &mut found)?,
        };
        found.sort_by_key(|(part, _)| *part);
        Ok((ops::add(gh, &g)?, found))
    }
}

/// A weight that is a vector, or one for each head.
fn vector(weight: &Weight) -> Result<&Tensor> {
    match weight {
        Weight::Dense(t) => Ok(t),
        Weight::Quantised(_) => Err(Error::internal("norms are not quantised")),
    }
}

fn heads<'a>((weight, bias): &'a (Weight, Weight), context: &'a Context) -> Result<Heads<'a>> {
    let (weight, bias) = (vector(weight)?, vector(bias)?);
    Ok(Heads { weight, bias, eps: QK_NORM_EPS, cos: &context.cos, sin: &context.sin })
}

fn rows<'a>(context: &'a Context, one_by_one: bool) -> Rows<'a> {
    Rows { spans: &context.spans, mask: context.mask.as_ref(), one_by_one }
}

/// [B, T, heads, d] as [B, T, heads d].
fn flat_heads(x: &Tensor) -> Result<Tensor> {
    let (b, t, heads, d) = x.dims4()?;
    Ok(x.reshape((b, t, heads * d))?)
}

/// Dropout of a sub-layer's result; its own backward pass.
fn dropped(y: Tensor, index: usize, site: u32, context: &Context) -> Result<Tensor> {
    match context.dropout {
        Some(dropout) => dropout.apply(&y, 2 * index as u32 + site),
        None => Ok(y),
    }
}
