//! What is different in a folder of Janus-Pro's layout, in Hugging Face's form. The part that reads pictures and the head for text are
//! there as published or missing; where they are missing their configuration is tiny, so that transformers opens the folder, too.

use super::shape::{Dtype, Shape};
use super::weights::{Drawn, Recorder};
use serde_json::{json, Value};
use sitter::model::vqgan::{vq16::Naming, Config, Vqgan};
use sitter::Result;

/// Numbers of the vector of a code, and codes, as published.
const CODE_WIDTH: usize = 8;
const CODES: usize = 16384;
/// Pixels along a side, of a picture and of a patch of it.
const SIDE: usize = 384;
const PATCH: usize = 16;
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

/// Layers, their width and heads of what reads pictures, as published.
const READER: [usize; 3] = [24, 1024, 16];

pub fn config(shape: &Shape) -> Value {
    let patches = (SIDE / PATCH) * (SIDE / PATCH);
    let [layers, width, heads] = if shape.reads { READER } else { [1, 32, 2] };
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
            "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "projection_dim": shape.hidden,
            "image_size": SIDE, "patch_size": PATCH, "num_image_tokens": patches,
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

/// Head, aligner, vectors of codes and image tokenizer; what making pictures does not need, if it is wanted.
pub fn around(shape: &Shape) -> Result<Vec<Drawn>> {
    let h = shape.hidden;
    let recorder = Recorder::new(shape, shape.dtype);
    if shape.reads {
        reader(&recorder);
    }
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

/// The tower that reads pictures, its aligner, and the head for text.
fn reader(recorder: &Recorder) {
    let ([layers, width, _], h) = (READER, recorder.shape.hidden);
    let linear = |name: String, from: usize, to: usize| {
        recorder.matrix(&format!("{name}.weight"), to, from, (from as f32).powf(-0.5));
        recorder.bias(&format!("{name}.bias"), to);
    };
    let norm = |name: String| {
        recorder.bias(&format!("{name}.weight"), width);
        recorder.bias(&format!("{name}.bias"), width);
    };
    let tower = "model.vision_model";
    let patches = format!("{tower}.embeddings.patch_embedding");
    recorder.tensor(&format!("{patches}.weight"), &[width, 3, PATCH, PATCH], 0.02);
    recorder.bias(&format!("{patches}.bias"), width);
    let places = (SIDE / PATCH) * (SIDE / PATCH);
    recorder.matrix(&format!("{tower}.embeddings.position_embedding.weight"), places, width, 0.02);
    for layer in 0..layers {
        let at = |name: &str| format!("{tower}.encoder.layers.{layer}.{name}");
        ["layer_norm1", "layer_norm2"].into_iter().for_each(|name| norm(at(name)));
        for name in ["q_proj", "k_proj", "v_proj", "projection_layer"] {
            linear(at(&format!("self_attn.{name}")), width, width);
        }
        linear(at("mlp.fc1"), width, 4 * width);
        linear(at("mlp.fc2"), 4 * width, width);
    }
    norm(format!("{tower}.post_layernorm"));
    linear("model.aligner.fc1".into(), width, h);
    linear("model.aligner.hidden_layers.0".into(), h, h);
    recorder.matrix("lm_head.weight", recorder.shape.vocabulary, h, (h as f32).powf(-0.5));
}
