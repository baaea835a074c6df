//! VQ-16: the image tokenizer of LlamaGen and Janus. A VQ-GAN with attention at the lowest resolution only, whose codes are
//! directions: what is quantised and the codebook's rows count with length one.
//!
//! The network is that of the other VQ-GANs; here are the names that its tensors have in files, and its shape, which no
//! published file describes and which the tensors tell.

use super::Config;
use crate::Result;
use std::path::Path;

/// Levels and blocks that are looked for; far more than any model has.
const MOST: usize = 16;

/// How files call the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// As transformers does for Janus: names of taming-transformers, the decoder's levels in the order in which they run.
    Transformers,
    /// As LlamaGen and the original Janus do.
    LlamaGen,
}

impl Naming {
    /// What the file calls the tensor `name` of a network of so many levels.
    pub fn file_name(self, name: &str, levels: usize) -> String {
        let Some((part, rest)) = name.split_once('.') else { return name.to_owned() };
        let (kind, rest) = rest.split_once('.').unwrap_or((rest, ""));
        match (kind, rest.split_once('.')) {
            ("down" | "up", Some((level, rest))) => {
                let level = level.parse().unwrap_or(0);
                let level = if kind == "up" { levels.saturating_sub(1 + level) } else { level };
                match self {
                    Naming::Transformers => format!("{part}.{kind}.{level}.{rest}"),
                    Naming::LlamaGen => {
                        let rest = match rest.strip_prefix("block.") {
                            Some(rest) => format!("res.{rest}"),
                            None => rest.to_owned(),
                        };
                        format!("{part}.conv_blocks.{level}.{rest}")
                    }
                }
            }
            ("mid", Some((block, rest))) if self == Naming::LlamaGen => {
                let number = ["block_1", "attn_1", "block_2"].iter().position(|known| *known == block).unwrap_or(0);
                format!("{part}.mid.{number}.{rest}")
            }
            _ => name.to_owned(),
        }
    }
}

/// The shape of a network by the shapes of its tensors. `find` has those that are there, `need` errors if one is missing.
pub fn config(
    naming: Naming,
    find: &dyn Fn(&str) -> Option<Vec<usize>>,
    need: &dyn Fn(&str, usize) -> Result<Vec<usize>>,
    file: &Path,
) -> Result<Config> {
    // The encoder's names do not depend on the number of levels.
    let called = |name: &str| naming.file_name(name, 1);
    let count = |name: &dyn Fn(usize) -> String| (0..MOST).take_while(|i| find(&called(&name(*i))).is_some()).count();
    let ch = need(&called("encoder.conv_in.weight"), 4)?[0].max(1);
    let first = |level: usize| format!("encoder.down.{level}.block.0.conv1.weight");
    let levels = count(&first).max(1);
    let channels = (0..levels).map(|level| Ok(need(&called(&first(level)), 4)?[0]));
    let channels = channels.collect::<Result<Vec<usize>>>()?;
    let quant = need("quant_conv.weight", 4)?;
    let codebook = need("quantize.embedding.weight", 2)?;
    Config {
        embed_dim: codebook[1],
        n_embed: codebook[0],
        z_channels: quant[1],
        ch,
        ch_mult: channels.iter().map(|channels| channels / ch).collect(),
        num_res_blocks: count(&|block| format!("encoder.down.0.block.{block}.conv1.weight")),
        // The lowest level alone, whatever the size of the picture.
        resolution: 1 << (levels - 1),
        attn_resolutions: vec![1],
        directions: true,
        ..Config::default()
    }
    .checked(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_published_files() {
        for (name, transformers, llamagen) in [
            ("quantize.embedding.weight", "quantize.embedding.weight", "quantize.embedding.weight"),
            ("post_quant_conv.bias", "post_quant_conv.bias", "post_quant_conv.bias"),
            ("encoder.conv_in.weight", "encoder.conv_in.weight", "encoder.conv_in.weight"),
            (
                "encoder.down.2.block.1.nin_shortcut.bias",
                "encoder.down.2.block.1.nin_shortcut.bias",
                "encoder.conv_blocks.2.res.1.nin_shortcut.bias",
            ),
            (
                "encoder.down.0.downsample.conv.weight",
                "encoder.down.0.downsample.conv.weight",
                "encoder.conv_blocks.0.downsample.conv.weight",
            ),
            ("encoder.mid.attn_1.q.weight", "encoder.mid.attn_1.q.weight", "encoder.mid.1.q.weight"),
            ("decoder.mid.block_2.conv1.bias", "decoder.mid.block_2.conv1.bias", "decoder.mid.2.conv1.bias"),
            // The full resolution runs last.
            (
                "decoder.up.0.block.2.norm1.weight",
                "decoder.up.4.block.2.norm1.weight",
                "decoder.conv_blocks.4.res.2.norm1.weight",
            ),
            ("decoder.up.4.attn.0.k.weight", "decoder.up.0.attn.0.k.weight", "decoder.conv_blocks.0.attn.0.k.weight"),
            (
                "decoder.up.1.upsample.conv.bias",
                "decoder.up.3.upsample.conv.bias",
                "decoder.conv_blocks.3.upsample.conv.bias",
            ),
            ("decoder.norm_out.weight", "decoder.norm_out.weight", "decoder.norm_out.weight"),
        ] {
            assert_eq!(Naming::Transformers.file_name(name, 5), transformers);
            assert_eq!(Naming::LlamaGen.file_name(name, 5), llamagen);
        }
    }
}
