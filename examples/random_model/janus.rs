//! What is different in a folder of Janus-Pro's layout, in Hugging Face's form. The part that reads pictures is missing, but
//! its configuration is tiny, so that transformers opens the folder, too.

use super::shape::{Dtype, Shape};
use super::weights::{Drawn, Recorder};
use serde_json::{json, Value};
use sitter::model::vqgan::{vq16::Naming, Config, Vqgan};
use sitter::Result;
use std::cell::RefCell;

/// Numbers of the vector of a code, and codes, as published.
const CODE_WIDTH: usize = 8;
const CODES: usize = 16384;
/// Pixels along a side.
const SIDE: usize = 384;
pub const PREFIX: &str = "model.language_model.";

/// The published image tokenizer.
pub fn vq() -> Config {
    Config {
        embed_dim: CODE_WIDTH,
        n_embed: CODES,
        resolution: 16,
        attn_resolutions: vec![1],
        directions: true,
        ..Config::default()
    }
}

pub fn config(shape: &Shape) -> Value {
    let patches = (SIDE / 16) * (SIDE / 16);
    json!({
        "architectures": ["JanusForConditionalGeneration"],
        "model_type": "janus",
        "image_token_id": shape.vocabulary - 1,
        "text_config": {
            "model_type": "llama",
            "vocab_size": shape.vocabulary,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "max_position_embeddings": 16384,
        },
        "vision_config": {
            "model_type": "janus_vision_model",
            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": shape.hidden,
            "image_size": SIDE, "patch_size": 16, "num_image_tokens": patches,
        },
        "vq_config": {
            "model_type": "janus_vqgan",
            "embed_dim": CODE_WIDTH, "num_embeddings": CODES, "latent_channels": 256,
            "base_channels": shape.vqgan.ch, "channel_multiplier": shape.vqgan.ch_mult, "num_res_blocks": 2,
            "projection_dim": shape.hidden, "image_token_embed_dim": shape.hidden,
        },
        "torch_dtype": if shape.dtype == Dtype::Bf16 { "bfloat16" } else { "float32" },
    })
}

/// The words that have a meaning; they stand last in the vocabulary.
pub fn words() -> [&'static str; 8] {
    [
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜▁pad▁｜>",
        "<begin_of_image>",
        "<end_of_image>",
        "<|User|>",
        "<|Assistant|>",
        "<image_placeholder>",
    ]
}

/// Head, aligner, vectors of codes and image tokenizer.
pub fn around(shape: &Shape) -> Result<Vec<Drawn>> {
    let h = shape.hidden;
    let recorder = Recorder { shape, dtype: shape.dtype, tensors: RefCell::new(vec![]) };
    recorder.matrix("model.generation_embeddings.weight", CODES, CODE_WIDTH, 1.0);
    for (name, from, to) in [
        ("generation_aligner.fc1", CODE_WIDTH, h),
        ("generation_aligner.hidden_layers.0", h, h),
        ("generation_head.proj_out", h, h),
        ("generation_head.vision_head", h, CODES),
    ] {
        recorder.matrix(&format!("model.{name}.weight"), to, from, (from as f32).powf(-0.5));
        recorder.bias(&format!("model.{name}.bias"), to);
    }
    let levels = shape.vqgan.ch_mult.len();
    Vqgan::load(&shape.vqgan, true, |name, wanted| {
        let name = Naming::Transformers.file_name(name, levels);
        recorder.network(format!("model.vqmodel.{name}"), wanted)
    })?;
    Ok(recorder.tensors.into_inner())
}
