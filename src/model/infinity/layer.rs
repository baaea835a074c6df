//! One block of the transformer, forward and backward (arXiv 2412.04431, section 3.3): self-attention by cosines, cross-attention to
//! the text, MLP; the norms before the first and last and the gates behind them are steered by the text.
//!
//! The backward pass is written by hand, takes what the forward pass kept, and computes no gradient that nobody asked for.

mod backward;

use super::condition::{padded, Texts};
use super::config::{Config, EPS};
use super::linear::Linear;
use super::names::{
    Role, ADAPTIVE, CROSS_KV, CROSS_NORM, CROSS_OUT, CROSS_Q, CROSS_V_BIAS, DOWN, QKV, Q_BIAS, SELF_OUT, STRENGTH, UP,
    V_BIAS,
};
use super::ops::{self, Turning};
use crate::ops::{add, attention, own_kernels, own_kernels_on, Room, Rows, Seen};
use crate::run::Control;
use crate::weights::{WeightId, Weights};
use crate::Result;
use candle_core::{DType, Device, Tensor};

/// The logarithm of the largest strength of a head.
const MOST: f32 = 4.605_170_2;

/// One block: its weights among those of the model. Vectors are f32.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    pub weights: &'a Weights,
    /// The number of its first weight.
    pub first: WeightId,
    pub index: usize,
    /// What is kept for the backward pass in.
    pub keeps: DType,
}

/// What a pass needs besides its input.
pub struct Context<'a> {
    pub config: &'a Config,
    pub texts: Texts,
    /// [T, head_dim / 2] each.
    pub cos: Tensor,
    pub sin: Tensor,
    /// What each token sees of the sequence, `[T]`.
    pub spans: Vec<(u32, u32)>,
    /// The same on the device, for attention's plain form.
    pub seen: Option<Seen>,
    /// Of the text, [B, T].
    pub text_spans: Vec<(u32, u32)>,
    pub text_seen: Option<Seen>,
    /// Factors of the two steered residuals of each block for each sequence (drop-path), `[blocks][2][B]`; none if all are 1.
    pub drops: Option<Vec<[Vec<f32>; 2]>>,
    /// Looked at before each sub-layer of a forward pass, which may take seconds.
    pub stop: Control,
}

/// Keys and values of a block, filled scale after scale, and those of the texts, which stay. Those lie token by token, [B, slots, heads, d],
/// for the kernels of this library, and else head by head, [B, heads, slots, d], as products want them.
pub struct LayerCache {
    keys: Tensor,
    values: Tensor,
    text: Option<(Tensor, Tensor)>,
}

/// Where new keys and values go: behind `filled` old ones. The last scale's are not kept: nothing follows.
pub struct Filling<'a> {
    pub cache: &'a mut LayerCache,
    pub filled: usize,
    pub last: bool,
}

/// What a forward pass leaves for the backward pass, in the dtype that the block keeps things in, but for the normalisers.
pub struct Kept {
    x: Tensor,
    /// [B, T, 3 C] with its bias. What attention makes of it is made again.
    qkv: Tensor,
    mixed: Tensor,
    normalisers: Tensor,
    /// What self-attention gave before its gate.
    attended: Tensor,
    /// Behind its residual sum.
    middle: Tensor,
    cross_q: Tensor,
    cross_k: Tensor,
    cross_v: Tensor,
    cross_mixed: Tensor,
    cross_normalisers: Tensor,
    /// Behind cross-attention's residual sum.
    after: Tensor,
    /// Before the activation.
    inner: Tensor,
    /// What the MLP gave before its gate.
    given: Tensor,
}

/// How the text steers one of two sub-layers, [B, C] each.
struct Steering {
    /// With the factor of drop-path.
    gate: Tensor,
    drop: Option<Tensor>,
    factor: Tensor,
    summand: Tensor,
}

/// What a block's vectors and the texts make that stays the same from pass to pass.
#[derive(Clone)]
pub struct Steady {
    /// Gates, factors and summands of the two sub-layers, [B, C] each.
    gates: [Tensor; 2],
    factors: [Tensor; 2],
    summands: [Tensor; 2],
    /// The bias of queries, keys and values, of which keys have none.
    bias: Tensor,
    /// What lengths queries get, `[heads]`: the learned strength, and the root that attention's own scale takes away again.
    strengths: Tensor,
    /// The same of keys.
    ones: Tensor,
}

impl Layer<'_> {
    fn id(&self, role: Role) -> WeightId {
        self.first + role
    }

    fn vector(&self, role: Role) -> Result<&Tensor> {
        self.weights[self.id(role)].tensor()
    }

    /// A matrix with its bias, which is the role behind it unless given.
    fn linear<'b>(&'b self, role: Role, bias: Option<&'b Tensor>) -> Result<Linear<'b>> {
        let bias = match bias {
            Some(bias) => bias,
            None => self.vector(role + 1)?,
        };
        let entry = &self.weights[self.id(role)];
        Ok(Linear { weight: &entry.weight, bias: Some(bias), low_rank: entry.low_rank.as_ref() })
    }

    fn cross_bias(&self) -> Result<Tensor> {
        let v = self.vector(CROSS_V_BIAS)?;
        Ok(Tensor::cat(&[&v.zeros_like()?, v], 0)?)
    }

    /// Room for the keys and values of so many tokens, in the dtype of weights that are not quantised.
    pub fn new_cache(&self, rows: usize, slots: usize, config: &Config) -> Result<LayerCache> {
        let (weight, device) = (&self.weights[self.id(QKV)].weight, self.vector(Q_BIAS)?.device());
        let dims = match own_kernels_on(device) {
            true => (rows, slots, config.heads, config.head_dim()),
            false => (rows, config.heads, slots, config.head_dim()),
        };
        let zeros = || Tensor::zeros(dims, weight.dense_dtype(), device);
        Ok(LayerCache { keys: zeros()?, values: zeros()?, text: None })
    }

    fn steady<'c>(&self, context: &'c Context) -> Result<&'c Steady> {
        let slot = &context.texts.steady[self.index];
        if let Some(steady) = slot.get() {
            return Ok(steady);
        }
        let adaptive = context.texts.adaptive.broadcast_add(&self.vector(ADAPTIVE)?.squeeze(0)?)?;
        let (b, _, c) = adaptive.dims3()?;
        let of = |i: usize| adaptive.narrow(1, i, 1)?.reshape((b, c))?.contiguous();
        let (q, v) = (self.vector(Q_BIAS)?, self.vector(V_BIAS)?);
        let strength = self.vector(STRENGTH)?.flatten_all()?.minimum(MOST)?.exp()?;
        let config = context.config;
        let made = Steady {
            gates: [of(0)?, of(1)?],
            factors: [(of(2)? + 1.0)?, (of(3)? + 1.0)?],
            summands: [of(4)?, of(5)?],
            bias: Tensor::cat(&[q, &q.zeros_like()?, v], 0)?,
            strengths: (strength * (config.head_dim() as f64).sqrt())?,
            ones: Tensor::ones(config.heads, DType::F32, adaptive.device())?,
        };
        Ok(slot.get_or_init(|| made))
    }

    fn steering(&self, context: &Context) -> Result<[Steering; 2]> {
        let steady = self.steady(context)?;
        let part = |site: usize| -> Result<Steering> {
            let gate = &steady.gates[site];
            let drop = context.drops.as_ref().map(|drops| &drops[self.index][site]);
            let drop = drop.map(|d| Tensor::from_slice(d, (d.len(), 1), &Device::Cpu)?.to_device(gate.device()));
            let drop = drop.transpose()?;
            let gate = match &drop {
                Some(drop) => gate.broadcast_mul(drop)?,
                None => gate.clone(),
            };
            let (factor, summand) = (steady.factors[site].clone(), steady.summands[site].clone());
            Ok(Steering { gate, drop, factor, summand })
        };
        Ok([part(0)?, part(1)?])
    }

    /// The block's result for x [B, T, C]. With a cache, new keys and values go into it and all in it are seen. With `keep` also
    /// what the backward pass needs; each thing is rounded, if at all, when it has been used here.
    pub fn forward(
        &self,
        x: &Tensor,
        context: &Context,
        mut filling: Option<Filling>,
        keep: bool,
    ) -> Result<(Tensor, Option<Kept>)> {
        let (b, t, _) = x.dims3()?;
        let config = context.config;
        let (heads, d) = (config.heads, config.head_dim());
        let [first, second] = self.steering(context)?;
        let (width, texts) = (config.width, context.texts.source.dims()[1]);
        let numbers = if keep { b * (t * (11 * width + config.hidden) + 2 * texts * width) } else { 0 };
        let mut room = Room::new(numbers, self.keeps, x)?;
        let mut used = |x: Tensor| if keep { room.keep(x) } else { Ok(x) };

        context.stop.check()?;
        let h = ops::layer_norm(x, &first.factor, &first.summand, EPS)?;
        let qkv = self.linear(QKV, Some(&self.steady(context)?.bias))?.forward(&h)?;
        drop(h);
        let by_heads = |x: Tensor| x.transpose(1, 2);
        let (q, k, v) = match &mut filling {
            Some(filling) if !own_kernels(x) => self.put(&qkv, context, filling)?,
            filling => {
                let [q, k, v] = self.turned(&qkv, context)?;
                let (k, v) = filling.as_mut().map_or(Ok((k.clone(), v.clone())), |filling| filling.put(&k, &v))?;
                (q, by_heads(k)?, by_heads(v)?)
            }
        };
        let qkv = used(qkv)?;
        let rows = Rows { spans: &context.spans, seen: context.seen.as_ref(), one_by_one: false };
        let (mixed, normalisers) = attention(&q, &k, &v, &rows, keep)?;
        drop((q, k, v));
        let attended = self.linear(SELF_OUT, None)?.forward(&mixed)?;
        let middle = ops::gated_sum(x, &attended, &first.gate)?;
        let (mixed, attended) = (used(mixed)?, used(attended)?);

        context.stop.check()?;
        let h = ops::layer_norm(&middle, self.vector(CROSS_NORM)?, self.vector(CROSS_NORM + 1)?, EPS)?;
        let cross_q = self.linear(CROSS_Q, None)?.forward(&h)?.reshape((b, t, heads, d))?;
        drop(h);
        let (cross_k, cross_v) = match filling.as_ref().and_then(|f| f.cache.text.clone()) {
            Some(both) => both,
            None => {
                let (k, v) = self.text_keys(&context.texts, config)?;
                match &mut filling {
                    Some(Filling { cache, .. }) => {
                        let dtype = cache.keys.dtype();
                        let kept = |t: Tensor| match own_kernels(x) {
                            true => t.to_dtype(dtype),
                            // Head by head in memory, whatever it is called.
                            false => t.to_dtype(dtype)?.transpose(1, 2)?.contiguous()?.transpose(1, 2),
                        };
                        cache.text.insert((kept(k)?, kept(v)?)).clone()
                    }
                    None => (k, v),
                }
            }
        };
        let rows = Rows { spans: &context.text_spans, seen: context.text_seen.as_ref(), one_by_one: false };
        let cross_q = match &filling {
            // What comes of it is a factor of a product, as all that is rounded.
            Some(_) if !own_kernels(x) => cross_q.to_dtype(cross_k.dtype())?,
            _ => cross_q,
        };
        let (cross_mixed, cross_normalisers) =
            attention(&cross_q, &cross_k.transpose(1, 2)?, &cross_v.transpose(1, 2)?, &rows, keep)?;
        let (cross_q, cross_k, cross_v) = (used(cross_q)?, used(cross_k)?, used(cross_v)?);
        let after = add(self.linear(CROSS_OUT, None)?.forward(&cross_mixed)?, &middle)?;
        let (middle, cross_mixed) = (used(middle)?, used(cross_mixed)?);

        context.stop.check()?;
        let h = ops::layer_norm(&after, &second.factor, &second.summand, EPS)?;
        let inner = self.linear(UP, None)?.forward(&h)?;
        drop(h);
        let h = ops::gelu(&inner, None)?;
        let inner = used(inner)?;
        let given = self.linear(DOWN, None)?.forward(&h)?;
        drop(h);
        let y = ops::gated_sum(&after, &given, &second.gate)?;
        let (after, given) = (used(after)?, used(given)?);
        let kept = match (normalisers, cross_normalisers) {
            (Some(normalisers), Some(cross_normalisers)) => Some(Kept {
                x: used(x.clone())?,
                qkv,
                mixed,
                normalisers,
                attended,
                middle,
                cross_q,
                cross_k,
                cross_v,
                cross_mixed,
                cross_normalisers,
                after,
                inner,
                given,
            }),
            _ => None,
        };
        Ok((y, kept))
    }

    /// Queries [B, T, heads, d], and all keys and values that they see, [B, heads, S, d], of projections [B, T, 3 C] whose keys and values
    /// go into a cache that lies head by head.
    fn put(&self, qkv: &Tensor, context: &Context, filling: &mut Filling) -> Result<(Tensor, Tensor, Tensor)> {
        let Steady { strengths, ones, .. } = self.steady(context)?;
        let (_, t, width) = qkv.dims3()?;
        let turning = |first, strength| Turning { first, strength, cos: &context.cos, sin: &context.sin };
        let (queries, keys) = (turning(0, strengths), turning(width / 3, ones));
        let (filled, LayerCache { keys: k, values: v, .. }) = (filling.filled, &*filling.cache);
        if !filling.last {
            let q = ops::turn_and_put(qkv, &queries, &keys, [k, v], filled)?;
            return Ok((q, k.narrow(2, 0, filled + t)?, v.narrow(2, 0, filled + t)?));
        }
        // Behind copies of the old ones.
        let (b, heads, _, d) = k.dims4()?;
        let whole = |old: &Tensor| -> Result<Tensor> {
            let all = Tensor::zeros((b, heads, filled + t, d), old.dtype(), old.device())?;
            if filled > 0 {
                all.slice_set(&old.narrow(2, 0, filled)?.contiguous()?, 2, 0)?;
            }
            Ok(all)
        };
        let (k, v) = (whole(k)?, whole(v)?);
        Ok((ops::turn_and_put(qkv, &queries, &keys, [&k, &v], filled)?, k, v))
    }

    /// Queries, keys and values of self-attention, [B, T, heads, d] each, of their projections [B, T, 3 C].
    fn turned(&self, qkv: &Tensor, context: &Context) -> Result<[Tensor; 3]> {
        let (b, t, width) = qkv.dims3()?;
        let (c, config) = (width / 3, context.config);
        let Steady { strengths, ones, .. } = self.steady(context)?;
        let turning = |first, strength| Turning { first, strength, cos: &context.cos, sin: &context.sin };
        let v = qkv.narrow(2, 2 * c, c)?.contiguous()?.reshape((b, t, config.heads, config.head_dim()))?;
        Ok([ops::turn(qkv, &turning(0, strengths))?, ops::turn(qkv, &turning(c, ones))?, v])
    }

    /// Keys and values of the texts, [B, L, heads, d]; each text alone, as in [`Conditioner::forward`](super::condition::Conditioner).
    fn text_keys(&self, texts: &Texts, config: &Config) -> Result<(Tensor, Tensor)> {
        let (b, l, c) = texts.source.dims3()?;
        let bias = self.cross_bias()?;
        let linear = self.linear(CROSS_KV, Some(&bias))?;
        let of = |(row, &n): (usize, &usize)| {
            padded(linear.forward(&texts.source.narrow(0, row, 1)?.narrow(1, 0, n)?.contiguous()?)?, l)
        };
        let both = Tensor::cat(&texts.lengths.iter().enumerate().map(of).collect::<Result<Vec<_>>>()?, 0)?;
        let half = |at: usize| -> Result<Tensor> {
            Ok(both.narrow(2, at, c)?.contiguous()?.reshape((b, l, config.heads, config.head_dim()))?)
        };
        Ok((half(0)?, half(c)?))
    }
}

impl Filling<'_> {
    /// All keys and values that are seen, [B, S, heads, d].
    fn put(&mut self, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let (filled, t) = (self.filled, k.dims()[1]);
        let both = |all: &Tensor, new: &Tensor| -> Result<Tensor> {
            let new = &new.to_dtype(all.dtype())?;
            if self.last {
                return Ok(if filled == 0 { new.clone() } else { Tensor::cat(&[&all.narrow(1, 0, filled)?, new], 1)? });
            }
            all.slice_set(new, 1, filled)?;
            Ok(all.narrow(1, 0, filled + t)?)
        };
        Ok((both(&self.cache.keys, k)?, both(&self.cache.values, v)?))
    }
}
