//! The backward pass of a block.

use super::{Context, Kept, Layer, Steady, MOST};
use crate::model::infinity::condition::{Gradients as TextGradients, Texts};
use crate::model::infinity::config::EPS;
use crate::model::infinity::names::{
    Role, ADAPTIVE, CROSS_KV, CROSS_NORM, CROSS_OUT, CROSS_Q, CROSS_V_BIAS, DOWN, QKV, Q_BIAS, SELF_OUT, STRENGTH, UP,
    V_BIAS,
};
use crate::model::infinity::ops::{self, Turning};
use crate::ops::{add, attention_backward, widened, Rows};
use crate::weights::{Gradients, Wanted};
use crate::{Error, Result};
use candle_core::{DType, Tensor};

impl Layer<'_> {
    /// The gradient of x for the gradient `g` of the block's result, and those of the weights that are wanted; what goes to the
    /// texts is added to `to`, if `texts`.
    pub fn backward(
        &self,
        g: Tensor,
        kept: Kept,
        context: &Context,
        wanted: &Wanted,
        texts: bool,
        to: &mut TextGradients,
    ) -> Result<(Tensor, Gradients)> {
        let (b, t, c) = g.dims3()?;
        let [first, second] = self.steering(context)?;
        let whole = |role: Role| wanted.whole(self.id(role));
        let steered = texts || whole(ADAPTIVE);
        let mut found = Vec::new();
        // Gradients of gates, factors and summands, [B, C] each, by their place among the six.
        let mut six: Vec<Option<Tensor>> = vec![None; 6];
        let mut steer =
            |site: usize, gate: Option<Tensor>, norm: Option<(Tensor, Tensor)>, drop: &Option<Tensor>| -> Result<()> {
                if let (Some(gate), Some((factor, summand))) = (gate, norm) {
                    six[site] = Some(match drop {
                        Some(drop) => gate.broadcast_mul(drop)?,
                        None => gate,
                    });
                    (six[2 + site], six[4 + site]) = (Some(factor), Some(summand));
                }
                Ok(())
            };

        // Each thing that was kept in the dtype that is computed with, not before it is needed.
        let wide = |x: Tensor| widened(x, DType::F32);

        // MLP
        let given = steered.then(|| wide(kept.given)).transpose()?;
        let (gm, gate) = ops::gate_backward(&g, given.as_ref(), &second.gate)?;
        drop(given);
        let inner = wide(kept.inner)?;
        let ga = self.through(DOWN, &gm, || ops::gelu(&inner, None), wanted, &mut found)?;
        drop(gm);
        let gi = ops::gelu_backward(&ga, inner)?;
        drop(ga);
        let after = wide(kept.after)?;
        let h = || ops::layer_norm(&after, &second.factor, &second.summand, EPS);
        let gh = self.through(UP, &gi, h, wanted, &mut found)?;
        drop(gi);
        let (gx, norm) = ops::layer_norm_backward(&gh, &after, &second.factor, EPS, steered)?;
        drop((gh, after));
        steer(1, gate, norm, &second.drop)?;
        let g = add(gx, &g)?;

        // Cross-attention
        let mixed = wide(kept.cross_mixed)?;
        let gm = self.through(CROSS_OUT, &g, || Ok(mixed.clone()), wanted, &mut found)?;
        let rows = Rows { spans: &context.text_spans, seen: context.text_seen.as_ref(), one_by_one: false };
        let (q, k, v) = (wide(kept.cross_q)?, wide(kept.cross_k)?, wide(kept.cross_v)?);
        let seen = (&k.transpose(1, 2)?, &v.transpose(1, 2)?);
        let (gq, gk, gv) = attention_backward(&gm, (&q, seen.0, seen.1), &mixed, &kept.cross_normalisers, &rows)?;
        drop((gm, q, k, v, mixed));
        let flat = |x: Tensor| x.reshape((b, (), c));
        self.text_back(
            &Tensor::cat(&[flat(gk)?, flat(gv)?], 2)?,
            &context.texts,
            wanted,
            &mut found,
            texts.then_some(&mut *to),
        )?;
        let cross_norm = (self.vector(CROSS_NORM)?, self.vector(CROSS_NORM + 1)?);
        let middle = wide(kept.middle)?;
        let h = || ops::layer_norm(&middle, cross_norm.0, cross_norm.1, EPS);
        let gh = self.through(CROSS_Q, &flat(gq)?, h, wanted, &mut found)?;
        let asked = whole(CROSS_NORM) || whole(CROSS_NORM + 1);
        let (gx, norm) = ops::layer_norm_backward(&gh, &middle, cross_norm.0, EPS, asked)?;
        drop((gh, middle));
        if let Some((factor, summand)) = norm {
            wanted.collect(self.id(CROSS_NORM), &mut found, || Ok(factor))?;
            wanted.collect(self.id(CROSS_NORM + 1), &mut found, || Ok(summand))?;
        }
        let g = add(gx, &g)?;

        // Self-attention
        let attended = steered.then(|| wide(kept.attended)).transpose()?;
        let (ga, gate) = ops::gate_backward(&g, attended.as_ref(), &first.gate)?;
        drop(attended);
        let mixed = wide(kept.mixed)?;
        let gm = self.through(SELF_OUT, &ga, || Ok(mixed.clone()), wanted, &mut found)?;
        drop(ga);
        let rows = Rows { spans: &context.spans, seen: context.seen.as_ref(), one_by_one: false };
        let qkv = wide(kept.qkv)?;
        let [q, k, v] = self.turned(&qkv, context)?;
        let seen = (&k.transpose(1, 2)?, &v.transpose(1, 2)?);
        let (gq, gk, gv) = attention_backward(&gm, (&q, seen.0, seen.1), &mixed, &kept.normalisers, &rows)?;
        drop((gm, q, k, v, mixed));
        let Steady { strengths: strength, ones, bias, .. } = self.steady(context)?;
        let turning = |first, strength| Turning { first, strength, cos: &context.cos, sin: &context.sin };
        let gqkv = Tensor::zeros((b, t, 3 * c), DType::F32, g.device())?;
        gqkv.slice_set(&flat(gv)?, 2, 2 * c)?;
        let (gqkv, strengths) = ops::turn_backward(&gq, &qkv, &turning(0, strength), gqkv)?;
        let (gqkv, _) = ops::turn_backward(&gk, &qkv, &turning(c, ones), gqkv)?;
        drop((gq, gk, qkv));
        wanted.collect(self.id(STRENGTH), &mut found, || {
            let raw = self.vector(STRENGTH)?;
            let free = raw.flatten_all()?.le(MOST)?.to_dtype(DType::F32)?;
            Ok(((strengths * strength)? * free)?.reshape(raw.shape())?)
        })?;
        let x = wide(kept.x)?;
        let h = || ops::layer_norm(&x, &first.factor, &first.summand, EPS);
        let gh = self.linear(QKV, Some(bias))?.backward(self.id(QKV), &gqkv, h, true, None, wanted, &mut found)?;
        let gh = gh.ok_or_else(|| Error::internal("no gradient of what went in"))?;
        if whole(Q_BIAS) || whole(V_BIAS) {
            let sums = ops::row_sums(&gqkv, 1)?.squeeze(0)?;
            for (role, at) in [(Q_BIAS, 0), (V_BIAS, 2 * c)] {
                wanted.collect(self.id(role), &mut found, || Ok(sums.narrow(0, at, c)?.contiguous()?))?;
            }
        }
        drop(gqkv);
        let (gx, norm) = ops::layer_norm_backward(&gh, &x, &first.factor, EPS, steered)?;
        drop((gh, x));
        steer(0, gate, norm, &first.drop)?;
        let g = add(gx, &g)?;

        if let Some(six) = six.into_iter().collect::<Option<Vec<_>>>() {
            let six = Tensor::stack(&six, 1)?;
            wanted.collect(self.id(ADAPTIVE), &mut found, || Ok(six.sum(0)?.reshape((1, 1, 6, c))?))?;
            if texts {
                to.adaptive = (&to.adaptive + six)?;
            }
        }
        found.sort_by_key(|(target, _)| *target);
        Ok((g, found))
    }

    /// The gradient of what went into a matrix whose bias is the role behind it; those of the two are put to `found`.
    fn through(
        &self,
        role: Role,
        g: &Tensor,
        x: impl Fn() -> Result<Tensor>,
        wanted: &Wanted,
        found: &mut Gradients,
    ) -> Result<Tensor> {
        let dx = self.linear(role, None)?.backward(self.id(role), g, x, true, None, wanted, found)?;
        wanted.collect(self.id(role + 1), found, || Ok(ops::row_sums(g, 1)?.squeeze(0)?))?;
        dx.ok_or_else(|| Error::internal("no gradient of what went in"))
    }

    /// Gradients behind the keys and values of the texts, [B, L, 2 C].
    fn text_back(
        &self,
        g: &Tensor,
        texts: &Texts,
        wanted: &Wanted,
        found: &mut Gradients,
        to: Option<&mut TextGradients>,
    ) -> Result<()> {
        let c = texts.source.dims()[2];
        let bias = self.cross_bias()?;
        let sum = to.as_ref().map(|to| to.source.clone());
        let of = || Ok(texts.source.clone());
        let linear = self.linear(CROSS_KV, Some(&bias))?;
        let dx = linear.backward(self.id(CROSS_KV), g, of, to.is_some(), sum, wanted, found)?;
        if let (Some(to), Some(dx)) = (to, dx) {
            to.source = dx;
        }
        wanted.collect(self.id(CROSS_V_BIAS), found, || {
            Ok(ops::row_sums(g, 1)?.squeeze(0)?.narrow(0, c, c)?.contiguous()?)
        })
    }
}
