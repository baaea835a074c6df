//! How large the model is: presets, and the command line that changes them.

use super::infinity;
use super::janus;
use lexopt::prelude::*;
use serde_json::json;
use sitter::model::vqgan;
use sitter::{Error, Result};
use std::path::PathBuf;

const HELP: &str = "\
Writes a model folder with random weights.

Usage: cargo run --release --example random_model -- PRESET OUT [OPTIONS]

Presets of Lumina's layout: 7b (Lumina-mGPT 7B exactly), mid (339 M parameters), small (13 M); all with 8192 codes, mid and
7b with the published image tokenizer. Of Janus-Pro's: janus-7b and janus-1b exactly, with the part that reads pictures;
without it janus-mid (330 M) and janus-small (16 M). Of Infinity's: infinity-2b, infinity-mid (360 M), infinity-small (4 M), the first
with a text encoder as large as flan-t5-xl's.

  --hidden N, --layers N, --heads N, --kv-heads N, --intermediate N, --vocabulary N
                         another shape
  --vqgan-channels N     channels of the image tokenizer at full resolution        [default: 128, small: 32]
  --dtype NAME           bf16 or f32, of the transformer                           [default: bf16]
  --shard-mb N           size of a shard                                           [default: 4000]
  --seed N               other weights                                             [default: 0]
  --help                 this text
";

#[derive(Clone, Copy)]
pub enum Layout {
    Lumina,
    Janus,
    Infinity(infinity::Sizes),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Dtype {
    F32,
    Bf16,
}

pub struct Shape {
    pub layout: Layout,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub intermediate: usize,
    pub vocabulary: usize,
    /// Whether what reads pictures is there, too, which only Janus has.
    pub reads: bool,
    pub vqgan: vqgan::Config,
    pub dtype: Dtype,
    pub shard_bytes: usize,
    pub seed: u64,
}

impl Shape {
    pub fn preset(name: &str) -> Option<Self> {
        let (hidden, layers, heads, intermediate, vocabulary, ch) = match name {
            "7b" => (4096, 32, 32, 11008, 65536, 128),
            "mid" => (1024, 16, 8, 2816, 65536, 128),
            "small" => (256, 2, 4, 704, 20480, 32),
            "janus-7b" => (4096, 30, 32, 11008, 102400, 128),
            "janus-1b" => (2048, 24, 16, 5632, 102400, 128),
            "janus-mid" => (1024, 16, 8, 2816, 102400, 128),
            "janus-small" => (256, 2, 4, 704, 20480, 32),
            "infinity-2b" => (2048, 32, 16, 8192, 32128, 128),
            "infinity-mid" => (1152, 16, 12, 4608, 4096, 64),
            "infinity-small" => (256, 4, 4, 1024, 1024, 32),
            _ => return None,
        };
        let infinity = |text, text_layers, text_inner, bits| {
            Layout::Infinity(infinity::Sizes { text, text_layers, text_inner, bits })
        };
        let layout = match name {
            "infinity-2b" => infinity(2048, 24, 5120, 32),
            "infinity-mid" => infinity(1024, 4, 2560, 32),
            "infinity-small" => infinity(256, 2, 640, 32),
            _ if name.starts_with("janus") => Layout::Janus,
            _ => Layout::Lumina,
        };
        let vqgan = match layout {
            Layout::Lumina | Layout::Infinity(_) => vqgan::Config { ch, ..vqgan::Config::default() },
            Layout::Janus => vqgan::Config { ch, ..janus::vq() },
        };
        Some(Shape {
            layout,
            hidden,
            layers,
            heads,
            kv_heads: heads,
            intermediate,
            vocabulary,
            reads: matches!(name, "janus-7b" | "janus-1b"),
            vqgan,
            dtype: Dtype::Bf16,
            shard_bytes: 4_000_000_000,
            seed: 0,
        })
    }

    /// The shape and where it goes; none if only the help was wanted.
    pub fn from_command_line() -> Result<Option<(Self, PathBuf)>> {
        let wrong = |e: lexopt::Error| Error::invalid("command line", format!("{e} (see --help)"));
        Self::read(lexopt::Parser::from_env()).map_err(wrong)
    }

    fn read(mut parser: lexopt::Parser) -> std::result::Result<Option<(Self, PathBuf)>, lexopt::Error> {
        let (mut shape, mut out) = (None::<Shape>, None);
        while let Some(argument) = parser.next()? {
            match (argument, &mut shape) {
                (Long("help") | Short('h'), _) => {
                    print!("{HELP}");
                    return Ok(None);
                }
                (Value(name), None) => {
                    let name = name.string()?;
                    shape = Some(Shape::preset(&name).ok_or_else(|| format!("no preset is called {name}"))?);
                }
                (Value(path), Some(_)) if out.is_none() => out = Some(path.into()),
                (Long("hidden"), Some(s)) => s.hidden = parser.value()?.parse()?,
                (Long("layers"), Some(s)) => s.layers = parser.value()?.parse()?,
                (Long("heads"), Some(s)) => {
                    s.heads = parser.value()?.parse()?;
                    s.kv_heads = s.heads;
                }
                (Long("kv-heads"), Some(s)) => s.kv_heads = parser.value()?.parse()?,
                (Long("intermediate"), Some(s)) => s.intermediate = parser.value()?.parse()?,
                (Long("vocabulary"), Some(s)) => s.vocabulary = parser.value()?.parse()?,
                (Long("vqgan-channels"), Some(s)) => s.vqgan.ch = parser.value()?.parse()?,
                (Long("dtype"), Some(s)) => {
                    s.dtype = parser.value()?.parse_with(|name| match name {
                        "f32" => Ok(Dtype::F32),
                        "bf16" => Ok(Dtype::Bf16),
                        _ => Err("expected bf16 or f32"),
                    })?
                }
                (Long("shard-mb"), Some(s)) => s.shard_bytes = parser.value()?.parse::<usize>()? * 1_000_000,
                (Long("seed"), Some(s)) => s.seed = parser.value()?.parse()?,
                (other, _) => return Err(other.unexpected()),
            }
        }
        match (shape, out) {
            (Some(shape), Some(out)) => Ok(Some((shape, out))),
            _ => Err("a preset and a folder are expected, in this order and before the options".into()),
        }
    }

    /// `config.json` as Lumina-mGPT has it, the stale ids of bos and eos included.
    pub fn config(&self) -> serde_json::Value {
        json!({
            "architectures": ["ChameleonForConditionalGeneration"],
            "model_type": "chameleon",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "rope_scaling": null,
            "max_position_embeddings": 4096,
            "model_parallel_size": 1,
            "swin_norm": false,
            "qk_layernorm": true,
            "mask_image_logits": false,
            "attention_bias": false,
            "mlp_bias": false,
            "attention_dropout": 0.0,
            "dropout": 0.05,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 1,
            "tie_word_embeddings": false,
            "torch_dtype": if self.dtype == Dtype::Bf16 { "bfloat16" } else { "float32" },
        })
    }

    pub fn vqgan_yaml(&self) -> String {
        let c = &self.vqgan;
        format!(
            "model:
  target: taming.models.vqgan.VQModel
  params:
    embed_dim: {}
    n_embed: {}
    ddconfig:
      double_z: false
      z_channels: {}
      resolution: {}
      in_channels: 3
      out_ch: 3
      ch: {}
      ch_mult: {:?}
      num_res_blocks: {}
      attn_resolutions: []
      dropout: 0.0
",
            c.embed_dim, c.n_embed, c.z_channels, c.resolution, c.ch, c.ch_mult, c.num_res_blocks
        )
    }
}
