//! How much memory a transformer of Llama's kind takes, but for its weights.

use super::Shape;
use crate::model::footprint::{Place, F32};
use crate::ops::SCORES;

impl Shape {
    fn kv(&self) -> u128 {
        (self.kv_heads * self.head_dim) as u128
    }

    /// Bytes of keys and values.
    pub fn cache(&self, rows: u128, slots: u128, at: &Place) -> u128 {
        rows * 2 * self.layers as u128 * self.kv() * slots * at.dense()
    }

    /// What the backward pass needs of a layer for so many tokens.
    pub fn kept(&self, tokens: u128, at: &Place) -> u128 {
        tokens * (self.kept_numbers() as u128 * at.dense() + F32 * self.heads as u128)
    }

    /// Of a token, but for the normalisers.
    pub(super) fn kept_numbers(&self) -> usize {
        let kv = self.kv_heads * self.head_dim;
        // Input, queries, keys, values, what attention mixed, middle, gate, up; in post-norm models what the sub-layers gave.
        let post = if self.post_norm { 2 * self.hidden } else { 0 };
        4 * self.hidden + 2 * kv + 2 * self.intermediate + post
    }

    /// What a layer's backward pass holds for so many tokens, but for the layer's input.
    pub fn backward(&self, tokens: u128, at: &Place) -> u128 {
        let (h, i) = (self.hidden as u128, self.intermediate as u128);
        // Where it is rounded, all that is kept lies there to the end; else gate and up become their gradients.
        let rounded = at.dense() < at.activation();
        let kept = self.kept_numbers() as u128 - if rounded { 0 } else { h + 2 * i };
        let heads = self.heads as u128;
        // On a GPU the probabilities of a block of queries are there at once, with their gradients and those of the scores; queries, what
        // came of them and its gradient, keys and values lie head by head, too; and the gradients of keys and values are sums in f32.
        let scores = (tokens * tokens * heads).min((tokens * heads).max(SCORES as u128));
        let (whole, sums) = if at.on_gpu { (3 * scores + tokens * 5 * h, tokens * 2 * h * F32) } else { (0, 0) };
        // Gate, up and the widest state of the MLP, which are gone by then, the gradient that comes and the one that goes.
        let mlp = tokens * (3 * i + 3 * h) * at.activation();
        let attention = (tokens * 3 * h + whole) * at.activation() + sums;
        tokens * kept * at.dense() + mlp.max(attention) + tokens * F32 * heads
    }
}
