//! The backward pass of a layer.

use super::{flat_heads, Kept, Layer, DOWN, GATE, K, K_NORM, NORM_IN, NORM_MIDDLE, O, Q, Q_NORM, UP, V};
use crate::model::places::Context;
use crate::ops;
use crate::weights::{Gradients, Wanted};
use crate::Result;
use candle_core::Tensor;

impl Layer<'_> {
    /// The gradient of x for the gradient `g` of the layer's result, and those of the weights that are wanted.
    pub fn backward(&self, g: Tensor, kept: Kept, context: &Context, wanted: &Wanted) -> Result<(Tensor, Gradients)> {
        let post_norm = self.shape.post_norm;
        let mut found: Gradients = Vec::new();
        let Kept { x, projected: [q, k, v], mixed, normalisers, middle, gate, up, before_norm } = kept;
        let (attended, given) = before_norm.map(|[attended, given]| (attended, given)).unzip();
        // Each in the dtype that is computed with, not before it is needed.
        let dtype = g.dtype();
        let wide = |x: Tensor| ops::widened(x, dtype);
        let any = |numbers: &[usize]| wanted.any(numbers.iter().map(|&n| self.id(n)));
        let asked = |numbers: &[usize], x: &dyn Fn() -> Result<Tensor>| any(numbers).then(x).transpose();
        let back = |number: usize, g: &Tensor, x: &Option<Tensor>, sum: Option<Tensor>, found: &mut Gradients| {
            self.at(number).backward(self.id(number), g, x.as_ref(), sum, wanted, found)
        };

        // MLP
        let gm = self.dropped(g.clone(), 1, context)?;
        let gm = match given {
            Some(given) => self.norm_backward(NORM_MIDDLE, &gm, &wide(given)?, wanted, &mut found)?,
            None => gm,
        };
        let (gate, up) = (wide(gate)?, wide(up)?);
        let h = asked(&[DOWN], &|| ops::silu_mul(&gate, &up))?;
        let g_act = back(DOWN, &gm, &h, None, &mut found)?;
        drop((gm, h));
        let (g_gate, g_up) = ops::silu_mul_backward(&g_act, gate, up)?;
        drop(g_act);
        let middle = wide(middle)?;
        let normed = || if post_norm { Ok(middle.clone()) } else { self.norm(NORM_MIDDLE, &middle) };
        let h = asked(&[GATE, UP], &normed)?;
        let gh = back(GATE, &g_gate, &h, None, &mut found)?;
        drop(g_gate);
        let gh = back(UP, &g_up, &h, Some(gh), &mut found)?;
        drop((g_up, h));
        let gh = match post_norm {
            true => gh,
            false => self.norm_backward(NORM_MIDDLE, &gh, &middle, wanted, &mut found)?,
        };
        drop(middle);
        let g = ops::add(gh, &g)?;

        // Attention
        let ga = self.dropped(g.clone(), 0, context)?;
        let ga = match attended {
            Some(attended) => self.norm_backward(NORM_IN, &ga, &wide(attended)?, wanted, &mut found)?,
            None => ga,
        };
        let mixed = wide(mixed)?;
        let h = asked(&[O], &|| Ok(mixed.clone()))?;
        let g_mixed = back(O, &ga, &h, None, &mut found)?;
        drop((ga, h));
        let (q, k, v) = (wide(q)?, wide(k)?, wide(v)?);
        let (seen_q, seen_k) = (self.turn(Q_NORM, &q, context)?, self.turn(K_NORM, &k, context)?.transpose(1, 2)?);
        let (seen_v, rows) = (v.transpose(1, 2)?, context.rows(false));
        let (gq, gk, gv) = ops::attention_backward(&g_mixed, (&seen_q, &seen_k, &seen_v), &mixed, &normalisers, &rows)?;
        drop((g_mixed, mixed, seen_q, seen_k, seen_v, v));
        let gq = self.turn_back(Q_NORM, gq, q, context, wanted, &mut found)?;
        let gk = self.turn_back(K_NORM, gk, k, context, wanted, &mut found)?;
        let gv = flat_heads(&gv)?;

        // Projections
        let x = wide(x)?;
        let h = asked(&[Q, K, V], &|| self.read(&x))?;
        let gh = back(Q, &gq, &h, None, &mut found)?;
        drop(gq);
        let gh = back(K, &gk, &h, Some(gh), &mut found)?;
        drop(gk);
        let gh = back(V, &gv, &h, Some(gh), &mut found)?;
        drop((gv, h));
        let gh = match post_norm {
            true => gh,
            false => self.norm_backward(NORM_IN, &gh, &x, wanted, &mut found)?,
        };
        found.sort_by_key(|(target, _)| *target);
        Ok((ops::add(gh, &g)?, found))
    }

    fn norm_backward(
        &self,
        number: usize,
        g: &Tensor,
        x: &Tensor,
        wanted: &Wanted,
        found: &mut Gradients,
    ) -> Result<Tensor> {
        let (id, weight) = (self.id(number), self.at(number).tensor()?);
        let (dx, dw) = ops::rms_norm_backward(g, x, weight, self.shape.norm_eps, wanted.whole(id))?;
        if let Some(dw) = dw {
            wanted.collect(id, found, || Ok(dw))?;
        }
        Ok(dx)
    }

    /// Back through rotation and norm of queries or keys, [B, T, heads, d] to [B, T, heads d].
    fn turn_back(
        &self,
        number: usize,
        g: Tensor,
        raw: Tensor,
        context: &Context,
        wanted: &Wanted,
        found: &mut Gradients,
    ) -> Result<Tensor> {
        if !self.shape.head_norms {
            return flat_heads(&ops::rotate_backward(&g, &context.cos, &context.sin)?);
        }
        let ids = [self.id(number), self.id(number + 1)];
        let (g, sums) = ops::norm_and_rotate_backward(&g, &raw, &self.heads(number, context)?, wanted.any(ids))?;
        if let Some((weight, bias)) = sums {
            wanted.collect(ids[0], found, || Ok(weight))?;
            wanted.collect(ids[1], found, || Ok(bias))?;
        }
        flat_heads(&g)
    }
}
