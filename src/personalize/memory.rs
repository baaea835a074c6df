//! How much memory training takes.

use super::options::Recompute;
use crate::model::lumina::config::Config;

impl Recompute {
    /// Whether layers are computed anew where `layers` of them go backward, each needs `kept` bytes, and so much is free.
    pub fn decide(self, layers: u128, kept: u128, free: Option<u128>) -> bool {
        match self {
            Recompute::Always => true,
            Recompute::Never => false,
            Recompute::Auto => free.is_none_or(|free| layers * kept > free / 2),
        }
    }
}

/// Bytes that the backward pass needs of a layer for so many tokens, `size` bytes an activation.
pub fn kept_bytes(config: &Config, tokens: u128, size: u128) -> u128 {
    let (h, kv) = (config.hidden_size as u128, (config.kv_heads * config.head_dim) as u128);
    // Input, queries and keys before and behind their norm, values, what attention mixed, middle, gate, up; in post-norm
    // models what the sub-layers gave.
    let post = if config.swin_norm { 2 * h } else { 0 };
    let numbers = 5 * h + 3 * kv + 2 * config.intermediate_size as u128 + post;
    tokens * (numbers * size + 4 * config.heads as u128)
}
