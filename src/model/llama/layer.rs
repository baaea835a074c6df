//! One layer of the transformer, forward and backward.
//!
//! The backward pass is written by hand. It takes what `Layer::forward_keeping` kept, computes no gradient of a weight that
//! nobody asked for, and lets go of each kept tensor as soon as it has done its service.

mod backward;

use super::Shape;
use crate::model::cache::LayerCache;
use crate::model::places::Context;
use crate::ops::fused::New;
use crate::ops::{self, Heads, Room};
use crate::weights::{Entry, Spec, WeightId, Weights};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::ops::Range;

/// Epsilon of the norm on queries and keys; fixed, whatever the configuration says.
const QK_NORM_EPS: f64 = 1e-5;

/// Weights of the norms of queries and keys.
const HEAD_NORMS: usize = 4;

/// Numbers of a layer's weights, in the order of [`specs`] with all that a layer may have.
const NORM_IN: usize = 0;
const Q: usize = 1;
const K: usize = 2;
const V: usize = 3;
const O: usize = 4;
const Q_NORM: usize = 5;
const K_NORM: usize = 7;
const NORM_MIDDLE: usize = 9;
const GATE: usize = 10;
const UP: usize = 11;
const DOWN: usize = 12;

impl Shape {
    /// Weights of a layer.
    pub fn layer_weights(&self) -> usize {
        DOWN + 1 - if self.head_norms { 0 } else { HEAD_NORMS }
    }

    /// The weights of layer `index`. Norms of queries and keys have a row for each `heads / rows` consecutive heads; here they
    /// are listed with one.
    pub fn layer_specs(&self, index: usize) -> Vec<Spec> {
        let (h, kv, i, d) = (self.hidden, self.kv_heads * self.head_dim, self.intermediate, self.head_dim);
        let spec = |name: &str, roles: &'static [&'static str], dims: &[usize], linear: bool| Spec {
            name: format!("{}layers.{index}.{name}", self.prefix),
            layer: Some(index),
            roles,
            dims: dims.to_vec(),
            linear,
        };
        let matrix = |name, roles, out, inner| spec(name, roles, &[out, inner], true);
        let mut specs = vec![
            spec("input_layernorm.weight", &[], &[h], false),
            matrix("self_attn.q_proj.weight", &["qkv", "attention"], h, h),
            matrix("self_attn.k_proj.weight", &["qkv", "attention"], kv, h),
            matrix("self_attn.v_proj.weight", &["qkv", "attention"], kv, h),
            matrix("self_attn.o_proj.weight", &["attention"], h, h),
        ];
        if self.head_norms {
            let names = ["q_norm.weight", "q_norm.bias", "k_norm.weight", "k_norm.bias"];
            specs.extend(names.map(|name| spec(&format!("self_attn.{name}"), &[], &[1, d], false)));
        }
        specs.extend([
            spec("post_attention_layernorm.weight", &[], &[h], false),
            matrix("mlp.gate_proj.weight", &["mlp"], i, h),
            matrix("mlp.up_proj.weight", &["mlp"], i, h),
            matrix("mlp.down_proj.weight", &["mlp"], h, i),
        ]);
        specs
    }
}

/// One layer of a model.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    weights: &'a Weights,
    shape: &'a Shape,
    index: usize,
    keeps: DType,
}

/// What a forward pass leaves for the backward pass, in the dtype that the layer keeps things in.
pub struct Kept {
    x: Tensor,
    /// Queries, keys and values as they are projected, [B, T, heads, d]: norm and rotation cost little and are done again.
    projected: [Tensor; 3],
    /// [B, T, heads d], and what the attention left.
    mixed: Tensor,
    /// f32.
    normalisers: Tensor,
    /// Behind the attention's residual sum.
    middle: Tensor,
    gate: Tensor,
    up: Tensor,
    /// What the sub-layers gave before their norm, in post-norm models.
    before_norm: Option<[Tensor; 2]>,
}

impl Shape {
    /// Matrices of a layer that read the same: one product serves all of them where they lie together.
    pub fn products(&self, index: usize) -> [Range<WeightId>; 2] {
        let id = |number: usize| self.weight_id(index, number);
        [id(Q)..id(V) + 1, id(GATE)..id(UP) + 1]
    }

    fn weight_id(&self, index: usize, number: usize) -> WeightId {
        // Without norms of queries and keys, what comes behind them moves up.
        let absent = if self.head_norms || number < Q_NORM { 0 } else { HEAD_NORMS };
        index * self.layer_weights() + number - absent
    }
}

impl<'a> Layer<'a> {
    /// `weights` begin with those of each layer; what the backward pass needs is kept in the dtype `keeps`.
    pub fn new(weights: &'a Weights, shape: &'a Shape, index: usize, keeps: DType) -> Self {
        Layer { weights, shape, index, keeps }
    }

    fn id(&self, number: usize) -> WeightId {
        self.shape.weight_id(self.index, number)
    }

    fn at(&self, number: usize) -> &'a Entry {
        &self.weights[self.id(number)]
    }

    /// The layer's result for x [B, T, hidden].
    pub fn forward(&self, x: &Tensor, context: &Context) -> Result<Tensor> {
        let (y, x) = self.sublayers(x, &self.read(x)?, context, None)?;
        ops::add(y, &x)
    }

    /// The layer's result for x, of which it reads `h`, and what is read behind it: the result itself, or its norm with the weight
    /// `behind`. With a cache, new keys and values go behind the slots filled in each row, and all in it are seen.
    pub fn forward_on(
        &self,
        (x, h): (Tensor, Tensor),
        behind: &Tensor,
        context: &Context,
        cache: Option<(&mut LayerCache, &[usize])>,
    ) -> Result<(Tensor, Tensor)> {
        let (y, x) = self.sublayers(&x, &h, context, cache)?;
        if self.shape.post_norm {
            let x = ops::add(y, &x)?;
            return Ok((x.clone(), x));
        }
        let (h, x) = ops::add_and_norm(y, &x, behind, self.shape.norm_eps)?;
        Ok((x, h))
    }

    /// What the layer reads of x: its norm, but in post-norm models x itself.
    pub fn read(&self, x: &Tensor) -> Result<Tensor> {
        if self.shape.post_norm {
            return Ok(x.clone());
        }
        self.norm(NORM_IN, x)
    }

    /// The weight of the norm of what is read.
    pub fn first_norm(&self) -> Result<&'a Tensor> {
        self.at(NORM_IN).tensor()
    }

    /// For x, of which `h` is read, the two summands of the result: what the MLP gave, and what goes past it.
    fn sublayers(
        &self,
        x: &Tensor,
        h: &Tensor,
        context: &Context,
        cache: Option<(&mut LayerCache, &[usize])>,
    ) -> Result<(Tensor, Tensor)> {
        let post_norm = self.shape.post_norm;
        let y = self.attention(h, context, cache)?;
        let y = if post_norm { self.norm(NORM_IN, &y)? } else { y };
        let y = self.dropped(y, 0, context)?;
        let (y, x) = match post_norm {
            true => {
                let x = ops::add(y, x)?;
                (self.norm(NORM_MIDDLE, &self.mlp(&x)?)?, x)
            }
            false => {
                let weight = self.at(NORM_MIDDLE).tensor()?;
                let (h, x) = ops::add_and_norm(y, x, weight, self.shape.norm_eps)?;
                (self.mlp(&h)?, x)
            }
        };
        Ok((self.dropped(y, 1, context)?, x))
    }

    fn norm(&self, number: usize, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(x, self.at(number).tensor()?, self.shape.norm_eps)
    }

    /// Queries, keys and values before norm and rotation, [B, T, heads, d].
    fn project(&self, h: &Tensor) -> Result<[Tensor; 3]> {
        let (b, t, _) = h.dims3()?;
        let (heads, kv_heads, d) = (self.shape.heads, self.shape.kv_heads, self.shape.head_dim);
        if let Some(whole) = self.weights.joined(self.id(Q)) {
            let all = ops::linear(h, &whole.clone().into())?.reshape((b, t, heads + 2 * kv_heads, d))?;
            let of = |first: usize, count: usize| all.narrow(2, first, count);
            return Ok([of(0, heads)?, of(heads, kv_heads)?, of(heads + kv_heads, kv_heads)?]);
        }
        let of = |number: usize, heads: usize| -> Result<Tensor> {
            Ok(self.at(number).forward(h)?.reshape((b, t, heads, d))?)
        };
        Ok([of(Q, heads)?, of(K, kv_heads)?, of(V, kv_heads)?])
    }

    fn attention(&self, h: &Tensor, context: &Context, cache: Option<(&mut LayerCache, &[usize])>) -> Result<Tensor> {
        let projected = self.project(h)?;
        // Tokens that continue a sequence get the same whether they come alone or several at once.
        let one_by_one = cache.as_ref().is_some_and(|(_, filled)| filled.iter().any(|&n| n > 0));
        let turned = || -> Result<[Tensor; 3]> {
            let [q, k, v] = &projected;
            let (q, k) = (self.turn(Q_NORM, q, context)?, self.turn(K_NORM, k, context)?);
            Ok([q, k.transpose(1, 2)?, v.transpose(1, 2)?])
        };
        let [q, k, v] = match cache {
            Some((cache, filled)) if cache.takes(&projected, filled, context) => {
                cache.take(&self.new_tokens(&projected, context)?, filled, context.slots.as_ref())?
            }
            Some((cache, filled)) => {
                let [q, k, v] = turned()?;
                let (k, v) = cache.append(&k, &v, filled)?;
                [q, k, v]
            }
            None => turned()?,
        };
        let (mixed, _) = ops::attention(&q, &k, &v, &context.rows(one_by_one), false)?;
        self.at(O).forward(&mixed)
    }

    /// Projections on their way into a cache.
    fn new_tokens<'c>(&self, projected: &'c [Tensor; 3], context: &'c Context) -> Result<New<'c>>
    where
        'a: 'c,
    {
        let norms = match self.shape.head_norms {
            true => {
                let tensor = |number: usize| self.at(number).tensor();
                Some([tensor(Q_NORM)?, tensor(Q_NORM + 1)?, tensor(K_NORM)?, tensor(K_NORM + 1)?])
            }
            false => None,
        };
        Ok(New { projected, norms, eps: QK_NORM_EPS, cos: &context.cos, sin: &context.sin })
    }

    /// What opens the MLP, and what goes through, [B, T, intermediate] each.
    fn gate_and_up(&self, h: &Tensor) -> Result<(Tensor, Tensor)> {
        let i = self.shape.intermediate;
        match self.weights.joined(self.id(GATE)) {
            Some(whole) => {
                let both = ops::linear(h, &whole.clone().into())?;
                Ok((both.narrow(2, 0, i)?, both.narrow(2, i, i)?))
            }
            None => Ok((self.at(GATE).forward(h)?, self.at(UP).forward(h)?)),
        }
    }

    fn mlp(&self, h: &Tensor) -> Result<Tensor> {
        let (gate, up) = self.gate_and_up(h)?;
        self.at(DOWN).forward(&ops::silu_mul(&gate, &up)?)
    }

    /// As the forward pass without a cache, with what [`Layer::backward`] needs of it. Each thing is rounded, if at all, when it has
    /// been used here: the result is the same.
    pub fn forward_keeping(&self, x: &Tensor, context: &Context) -> Result<(Tensor, Kept)> {
        let post_norm = self.shape.post_norm;
        let (b, t, _) = x.dims3()?;
        let mut room = Room::new(b * t * self.shape.kept_numbers(), self.keeps, x)?;
        let h = self.read(x)?;
        let [q, k, v] = self.project(&h)?;
        drop(h);
        let (seen_q, seen_k) = (self.turn(Q_NORM, &q, context)?, self.turn(K_NORM, &k, context)?.transpose(1, 2)?);
        let (mixed, normalisers) = ops::attention(&seen_q, &seen_k, &v.transpose(1, 2)?, &context.rows(false), true)?;
        drop((seen_q, seen_k));
        let projected = [room.keep(q)?, room.keep(k)?, room.keep(v)?];
        let normalisers = normalisers.ok_or_else(|| Error::internal("attention kept nothing"))?;
        let attended = self.at(O).forward(&mixed)?;
        let mixed = room.keep(mixed)?;
        let y = if post_norm { self.norm(NORM_IN, &attended)? } else { attended.clone() };
        let attended = post_norm.then_some(attended).map(|x| room.keep(x)).transpose()?;
        let middle = ops::add(self.dropped(y, 0, context)?, x)?;
        let h = if post_norm { middle.clone() } else { self.norm(NORM_MIDDLE, &middle)? };
        let (gate, up) = self.gate_and_up(&h)?;
        drop(h);
        let h = ops::silu_mul(&gate, &up)?;
        let (gate, up) = (room.keep(gate)?, room.keep(up)?);
        let given = self.at(DOWN).forward(&h)?;
        drop(h);
        let y = if post_norm { self.norm(NORM_MIDDLE, &given)? } else { given.clone() };
        let before_norm = attended.map(|attended| Ok::<_, Error>([attended, room.keep(given)?])).transpose()?;
        let y = ops::add(self.dropped(y, 1, context)?, &middle)?;
        let (x, middle) = (room.keep(x.clone())?, room.keep(middle)?);
        Ok((y, Kept { x, projected, mixed, normalisers, middle, gate, up, before_norm }))
    }

    /// Queries or keys [B, T, heads, d] behind their norm, if they have one, and their rotation.
    fn turn(&self, number: usize, x: &Tensor, context: &Context) -> Result<Tensor> {
        match self.shape.head_norms {
            true => ops::norm_and_rotate(x, &self.heads(number, context)?),
            false => ops::rotate(x, &context.cos, &context.sin),
        }
    }

    /// The norm of queries or keys, weight and bias.
    fn heads<'c>(&self, number: usize, context: &'c Context) -> Result<Heads<'c>>
    where
        'a: 'c,
    {
        let (weight, bias) = (self.at(number).tensor()?, self.at(number + 1).tensor()?);
        Ok(Heads { weight, bias, eps: QK_NORM_EPS, cos: &context.cos, sin: &context.sin })
    }

    /// Dropout of a sub-layer's result; its own backward pass.
    fn dropped(&self, y: Tensor, site: u32, context: &Context) -> Result<Tensor> {
        match &context.dropout {
            Some(dropout) => dropout.apply(&y, 2 * self.index as u32 + site),
            None => Ok(y),
        }
    }
}

/// [B, T, heads, d] as [B, T, heads d].
fn flat_heads(x: &Tensor) -> Result<Tensor> {
    let (b, t, heads, d) = x.dims4()?;
    Ok(x.reshape((b, t, heads * d))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::places::Rotary;
    use crate::ops::testing::random;
    use crate::weights::{Part, Target, Wanted};
    use candle_core::Device;

    const SHAPE: Shape = Shape {
        prefix: "",
        vocabulary: 0,
        hidden: 64,
        intermediate: 176,
        layers: 1,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        norm_eps: 1e-5,
        rope_theta: 10000.0,
        post_norm: false,
        head_norms: true,
    };

    fn norm(x: &Tensor) -> f64 {
        f64::from(x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()).sqrt()
    }

    #[test]
    fn gradients_made_of_what_is_kept_in_bf16_are_those_of_f32_to_what_bf16_resolves_and_results_are_the_same() {
        for (post_norm, head_norms) in [(false, true), (true, true), (false, false)] {
            let shape = Shape { post_norm, head_norms, ..SHAPE };
            let mut weights = Weights::default();
            for spec in shape.layer_specs(0) {
                let size = if spec.linear { 0.1 } else { 1.0 };
                let weight = (random(&spec.dims) * size).unwrap();
                weights.push(spec, weight.into());
            }
            let all = (0..weights.len()).map(|weight| Target { part: Part::Whole, weight });
            let wanted = Wanted::new(weights.len(), all);
            let rotary = Rotary { head_dim: 16, theta: 10000.0, dtype: DType::F32, device: Device::Cpu };
            let context = rotary.causal(40).unwrap();
            let (x, g) = (random(&[2, 40, 64]), random(&[2, 40, 64]));
            let way = |keeps| {
                let layer = Layer::new(&weights, &shape, 0, keeps);
                let (y, kept) = layer.forward_keeping(&x, &context).unwrap();
                assert_eq!(kept.gate.dtype(), keeps);
                let (gx, found) = layer.backward(g.copy().unwrap(), kept, &context, &wanted).unwrap();
                assert_eq!(found.len(), weights.len());
                (y, [vec![gx], found.into_iter().map(|(_, gradient)| gradient).collect()].concat())
            };
            let ((y, expected), (same, found)) = (way(DType::F32), way(DType::BF16));
            let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(bits(&y), bits(&same));
            for (i, (expected, found)) in expected.iter().zip(&found).enumerate() {
                let gap = norm(&(found - expected).unwrap()) / norm(expected);
                // Of a number 2^-8 is lost at most; scores are differences of products of several.
                let most = 2f64.powi(-5);
                assert!(gap > 0.0 && gap < most, "post-norm {post_norm}, norms of heads {head_norms}, {i}: {gap}");
            }
        }
    }
}
