//! What a folder of Infinity's holds: transformer, image tokenizer and text encoder, all with names and shapes as published.

use super::shape::{Dtype, Shape};
use super::weights::{Drawn, Recorder};
use serde_json::{json, Value};

/// What Lumina's shape has no word for.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Channels of the text's features, layers and MLP of the text encoder.
    pub text: usize,
    pub text_layers: usize,
    pub text_inner: usize,
    /// Bits of a code.
    pub bits: usize,
}

/// Blocks in a chunk, rows of the unconditional text and of the level embedding, as published.
const CHUNK: usize = 4;
const TEXT_ROWS: usize = 512;
const LEVELS: usize = 15;
/// Numbers of a head of the text encoder.
const TEXT_HEAD: usize = 64;
/// Of the image tokenizer: channels of its levels, residual blocks of a level of encoder and decoder.
const MULTIPLES: [usize; 5] = [1, 2, 4, 4, 4];
const BLOCKS: [usize; 2] = [2, 3];

pub fn text_config(shape: &Shape, sizes: &Sizes) -> Value {
    json!({
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "d_model": sizes.text, "d_kv": TEXT_HEAD, "d_ff": sizes.text_inner,
        "num_layers": sizes.text_layers, "num_heads": sizes.text / TEXT_HEAD,
        "vocab_size": shape.vocabulary, "feed_forward_proj": "gated-gelu",
        "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6,
    })
}

/// A matrix whose outputs are as large as its inputs.
fn linear(to: &Recorder, name: &str, out: usize, inner: usize) {
    to.matrix(&format!("{name}.weight"), out, inner, (inner as f32).powf(-0.5));
}

fn with_bias(to: &Recorder, name: &str, out: usize, inner: usize) {
    linear(to, name, out, inner);
    to.bias(&format!("{name}.bias"), out);
}

pub fn transformer(shape: &Shape, sizes: &Sizes) -> Vec<Drawn> {
    let (c, hidden, text) = (shape.hidden, shape.intermediate, sizes.text);
    let to = Recorder::new(shape, shape.dtype);
    to.matrix("cfg_uncond", TEXT_ROWS, text, 1.0);
    to.ones("text_norm.weight", text);
    to.push("text_proj_for_sos.ca.mat_q".into(), &[1, text / 128, c * 128 / text], 0.0, 1.0);
    linear(&to, "text_proj_for_sos.ca.mat_kv", 2 * c, text);
    to.bias("text_proj_for_sos.ca.v_bias", c);
    with_bias(&to, "text_proj_for_sos.ca.proj", c, c);
    with_bias(&to, "text_proj_for_ca.0", c, text);
    with_bias(&to, "text_proj_for_ca.2", c, c);
    to.push("pos_start".into(), &[1, 1, c], 0.0, 0.02);
    to.matrix("lvl_embed.weight", LEVELS, c, 0.02);
    with_bias(&to, "word_embed", c, sizes.bits);
    with_bias(&to, "shared_ada_lin.1", 6 * c, c);
    with_bias(&to, "head_nm.ada_lin.1", 2 * c, c);
    with_bias(&to, "head", 2 * sizes.bits, c);
    for layer in 0..shape.layers {
        let at = |name: &str| format!("block_chunks.{}.module.{}.{name}", layer / CHUNK, layer % CHUNK);
        to.push(at("ada_gss"), &[1, 1, 6, c], 0.0, (c as f32).powf(-0.5));
        linear(&to, &at("sa.mat_qkv"), 3 * c, c);
        to.bias(&at("sa.q_bias"), c);
        to.bias(&at("sa.v_bias"), c);
        to.push(at("sa.scale_mul_1H11"), &[1, shape.heads, 1, 1], 4f32.ln(), 0.1);
        with_bias(&to, &at("sa.proj"), c, c);
        to.ones(&at("ca_norm.weight"), c);
        to.bias(&at("ca_norm.bias"), c);
        with_bias(&to, &at("ca.mat_q"), c, c);
        linear(&to, &at("ca.mat_kv"), 2 * c, c);
        to.bias(&at("ca.v_bias"), c);
        with_bias(&to, &at("ca.proj"), c, c);
        with_bias(&to, &at("ffn.fc1"), hidden, c);
        with_bias(&to, &at("ffn.fc2"), c, hidden);
    }
    to.tensors.into_inner()
}

/// The image tokenizer, in f32.
pub fn vae(shape: &Shape, sizes: &Sizes) -> Vec<Drawn> {
    let to = Recorder::new(shape, Dtype::F32);
    let channels: Vec<usize> = MULTIPLES.iter().map(|m| m * shape.vqgan.ch).collect();
    let (first, last) = (channels[0], channels[channels.len() - 1]);
    let conv = |name: &str, out: usize, inner: usize, side: usize| {
        let std = ((3 * inner * side * side) as f32).powf(-0.5);
        to.push(format!("{name}.weight"), &[out, inner, side, side], 0.0, std);
        to.bias(&format!("{name}.bias"), out);
    };
    let norm = |name: &str, size: usize| {
        to.ones(&format!("{name}.weight"), size);
        to.bias(&format!("{name}.bias"), size);
    };
    let block = |name: &str, from: usize, out: usize| {
        norm(&format!("{name}.norm1"), from);
        conv(&format!("{name}.conv1"), out, from, 3);
        norm(&format!("{name}.norm2"), out);
        conv(&format!("{name}.conv2"), out, out, 3);
        if from != out {
            conv(&format!("{name}.nin_shortcut"), out, from, 1);
        }
    };
    conv("encoder.conv_in", first, 3, 3);
    let mut from = first;
    for (level, &out) in channels.iter().enumerate() {
        for index in 0..BLOCKS[0] {
            block(&format!("encoder.down.{level}.block.{index}"), from, out);
            from = out;
        }
        if level + 1 < channels.len() {
            conv(&format!("encoder.down.{level}.downsample.conv"), out, out, 3);
        }
    }
    for half in ["encoder", "decoder"] {
        block(&format!("{half}.mid.block_1"), last, last);
        block(&format!("{half}.mid.block_2"), last, last);
    }
    norm("encoder.norm_out", last);
    conv("encoder.conv_out", sizes.bits, last, 3);
    conv("decoder.conv_in", last, sizes.bits, 3);
    from = last;
    for (level, &out) in channels.iter().enumerate().rev() {
        for index in 0..BLOCKS[1] {
            block(&format!("decoder.up.{level}.block.{index}"), from, out);
            from = out;
        }
        if level > 0 {
            conv(&format!("decoder.up.{level}.upsample.conv"), out, out, 3);
        }
    }
    norm("decoder.norm_out", first);
    conv("decoder.conv_out", 3, first, 3);
    to.tensors.into_inner()
}

pub fn text_encoder(shape: &Shape, sizes: &Sizes) -> Vec<Drawn> {
    let (c, inner) = (sizes.text, sizes.text_inner);
    let to = Recorder::new(shape, shape.dtype);
    to.matrix("shared.weight", shape.vocabulary, c, 1.0);
    for layer in 0..sizes.text_layers {
        let at = |name: &str| format!("encoder.block.{layer}.layer.{name}");
        // Attention has no 1/sqrt here: queries are small instead.
        to.matrix(&at("0.SelfAttention.q.weight"), c, c, (c as f32 * TEXT_HEAD as f32).powf(-0.5));
        for name in ["k", "v", "o"] {
            linear(&to, &at(&format!("0.SelfAttention.{name}")), c, c);
        }
        if layer == 0 {
            to.matrix(&at("0.SelfAttention.relative_attention_bias.weight"), 32, c / TEXT_HEAD, 0.1);
        }
        to.ones(&at("0.layer_norm.weight"), c);
        linear(&to, &at("1.DenseReluDense.wi_0"), inner, c);
        linear(&to, &at("1.DenseReluDense.wi_1"), inner, c);
        linear(&to, &at("1.DenseReluDense.wo"), c, inner);
        to.ones(&at("1.layer_norm.weight"), c);
    }
    to.ones("encoder.final_layer_norm.weight", c);
    to.tensors.into_inner()
}
