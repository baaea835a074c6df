//! How much memory training takes.

use super::options::Recompute;
use crate::device;
use crate::model::lumina::config::Config;
use crate::model::Model;

impl Recompute {
    /// Whether layers are computed anew in a step over so many tokens.
    pub fn decide(self, model: &Model, tokens: usize) -> bool {
        match self {
            Recompute::Always => true,
            Recompute::Never => false,
            Recompute::Auto => {
                let config = &model.transformer().config;
                let kept =
                    config.layers as u64 * kept_bytes(config, tokens, model.transformer().dtype().size_in_bytes());
                device::free_memory(model.device()).is_none_or(|free| kept > free / 2)
            }
        }
    }
}

/// Bytes that the backward pass needs of a layer for so many tokens.
pub fn kept_bytes(config: &Config, tokens: usize, size: usize) -> u64 {
    let (h, kv) = (config.hidden_size, config.kv_heads * config.head_dim);
    // Input, queries and keys before and behind their norm, values, what attention mixed, middle, gate, up; in post-norm
    // models what the sub-layers gave.
    let numbers = 5 * h + 3 * kv + 2 * config.intermediate_size + if config.swin_norm { 2 * h } else { 0 };
    (tokens * (numbers * size + 4 * config.heads)) as u64
}
