//! The shape of a transformer, from its tensors: the published files come without a configuration.

use crate::files::checkpoint::Checkpoint;
use crate::{Error, Result};

/// Sizes of a transformer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Names of the blocks, `block_chunks.0.module.0` and so on, or `blocks.0`.
    pub blocks: Vec<String>,
    /// Blocks before which the level embedding may be added: the first of each chunk.
    pub chunks: Vec<usize>,
    /// Channels, C.
    pub width: usize,
    pub heads: usize,
    /// Inner channels of the MLP.
    pub hidden: usize,
    /// Channels of the text's features.
    pub text: usize,
    /// Heads of the attention that pools a text.
    pub pool_heads: usize,
    /// Rows of the unconditional text.
    pub text_rows: usize,
    /// Bits of a token.
    pub bits: usize,
    /// Rows of the level embedding.
    pub levels: usize,
}

/// Epsilon of all norms of the transformer.
pub const EPS: f64 = 1e-6;

impl Config {
    /// Whether these are the tensors of such a transformer.
    pub fn fits(checkpoint: &Checkpoint) -> bool {
        checkpoint.contains("text_proj_for_sos.ca.mat_q") && checkpoint.contains("word_embed.weight")
    }

    pub fn from_shapes(checkpoint: &Checkpoint) -> Result<Self> {
        let dims = |name: &str, rank: usize| -> Result<&[usize]> {
            checkpoint.shape(name).filter(|d| d.len() == rank && !d.contains(&0)).ok_or_else(|| Error::Tensor {
                file: checkpoint.path().to_owned(),
                tensor: name.into(),
                expected: format!("a tensor of {rank} dimensions"),
                found: checkpoint.shape(name).map_or("no such tensor".into(), |dims| format!("shape {dims:?}")),
            })
        };
        let (mut blocks, mut chunks) = (Vec::new(), Vec::new());
        let there = |name: &str| checkpoint.contains(&format!("{name}.ada_gss"));
        for chunk in 0.. {
            let before = blocks.len();
            blocks.extend((0..).map(|i| format!("block_chunks.{chunk}.module.{i}")).take_while(|name| there(name)));
            if blocks.len() == before {
                break;
            }
            chunks.push(before);
        }
        if blocks.is_empty() {
            blocks = (0..).map(|i| format!("blocks.{i}")).take_while(|name| there(name)).collect();
            chunks = (0..blocks.len()).collect();
        }
        // A block without this tensor ends the count, so that what lies behind it would be left out without a word.
        let block = |name: &str| -> Option<String> {
            let parts: Vec<&str> = name.split('.').collect();
            let n = if parts[0] == "blocks" { 2 } else { 4 };
            ["block_chunks", "blocks"].contains(&parts[0]).then(|| parts[..n.min(parts.len())].join("."))
        };
        let stray = checkpoint.names().filter_map(block).find(|block| !blocks.is_empty() && !blocks.contains(block));
        if let Some(stray) = stray {
            return Err(Error::Tensor {
                file: checkpoint.path().to_owned(),
                tensor: format!("{stray}.ada_gss"),
                expected: "the adaptive norm of a block whose other tensors are there".into(),
                found: "none, or none of a block before it".into(),
            });
        }
        let Some(first) = blocks.first() else {
            let message =
                "has no blocks with a shared adaptive norm (block_chunks.0.module.0.ada_gss); other forms are not read";
            return Err(Error::UnsupportedModel { file: checkpoint.path().to_owned(), message: message.into() });
        };
        let &[width, bits] = dims("word_embed.weight", 2)? else { return Err(Error::internal("rank")) };
        let config = Config {
            width,
            bits,
            heads: dims(&format!("{first}.sa.scale_mul_1H11"), 4)?.iter().product(),
            hidden: dims(&format!("{first}.ffn.fc1.weight"), 2)?[0],
            text: dims("text_norm.weight", 1)?[0],
            pool_heads: dims("text_proj_for_sos.ca.mat_q", 3)?[1],
            text_rows: dims("cfg_uncond", 2)?[0],
            levels: dims("lvl_embed.weight", 2)?[0],
            blocks,
            chunks,
        };
        if !width.is_multiple_of(config.heads)
            || !(width / config.heads).is_multiple_of(4)
            || !width.is_multiple_of(config.pool_heads)
        {
            let message = format!(
                "{width} channels in {} heads ({} of the pool); a head needs a multiple of 4 channels",
                config.heads, config.pool_heads
            );
            return Err(Error::bad_format(checkpoint.path(), message));
        }
        Ok(config)
    }

    pub fn head_dim(&self) -> usize {
        self.width / self.heads
    }

    /// Numbers of all weights.
    pub fn parameters(&self) -> u64 {
        let (c, t, h) = (self.width as u64, self.text as u64, self.hidden as u64);
        // ada_gss, norms and biases; self-attention, cross-attention, MLP.
        let block = (6 + 3 + 2 + 4) * c + self.heads as u64 + h + (3 + 1 + 1 + 2 + 1) * c * c + 2 * c * h;
        let text = self.text_rows as u64 * t + t + c + 2 * c * t + c + c * c + c + t * c + c + c * c + c;
        let rest = c + self.levels as u64 * c + self.bits as u64 * (3 * c + 2) + c + 8 * c * c + 8 * c;
        block * self.blocks.len() as u64 + text + rest
    }
}
