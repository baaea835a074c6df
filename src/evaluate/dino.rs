//! DINO's vision transformer (version 1), in the names of Hugging Face or of its authors.
//!
//! Hugging Face's conversion says 1e-12 in its configuration where the original norms have 1e-6, and a preprocessor that
//! squashes; the published scores are the original's, so neither is read.

use super::vit::{Activation, Block, Linear, Transformer, Vision};
use super::weights::Weights;
use crate::Result;

const EPS: f32 = 1e-6;
/// Numbers of a head in every DINO of its authors.
const HEAD: usize = 64;

pub fn load(weights: &Weights) -> Result<Vision> {
    let has = |name: &str| weights.checkpoint.contains(name);
    if has("embeddings.mask_token") || has("mask_token") {
        return Err(weights.unsupported("is a DINOv2; scores are published for DINO v1, ViT-S/16 (dino-vits16)"));
    }
    let prefix = ["", "vit."].into_iter().find(|p| has(&format!("{p}embeddings.cls_token")));
    match prefix {
        Some(prefix) => hugging_face(weights, prefix),
        None if has("cls_token") => original(weights),
        None => {
            Err(weights.unsupported("is no DINO vision transformer: it has neither embeddings.cls_token nor cls_token"))
        }
    }
}

fn hugging_face(weights: &Weights, prefix: &str) -> Result<Vision> {
    let config = weights.config()?;
    let heads = config.as_ref().and_then(|c| c["num_attention_heads"].as_u64()).map(|n| n as usize);
    let name = |rest: &str| format!("{prefix}{rest}");
    let layer = |i: usize| name(&format!("encoder.layer.{i}."));
    let first = |i: usize| layer(i) + "layernorm_before.weight";
    assemble(
        weights,
        heads,
        Names {
            class: name("embeddings.cls_token"),
            positions: name("embeddings.position_embeddings"),
            patches: name("embeddings.patch_embeddings.projection"),
            last: name("layernorm"),
            layers: weights.layers(first),
        },
        |i, sizes| {
            let at = |rest: &str| layer(i) + rest;
            let square = |rest: &str| weights.linear(&at(rest), sizes.width, sizes.width);
            Ok(Block {
                before: weights.norm(&at("layernorm_before"), sizes.width, EPS)?,
                query: square("attention.attention.query")?,
                key: square("attention.attention.key")?,
                value: square("attention.attention.value")?,
                out: square("attention.output.dense")?,
                after: weights.norm(&at("layernorm_after"), sizes.width, EPS)?,
                up: weights.linear(
                    &at("intermediate.dense"),
                    sizes.mlp(weights, &at("intermediate.dense"))?,
                    sizes.width,
                )?,
                down: weights.linear(
                    &at("output.dense"),
                    sizes.width,
                    sizes.mlp(weights, &at("intermediate.dense"))?,
                )?,
            })
        },
    )
}

fn original(weights: &Weights) -> Result<Vision> {
    let layer = |i: usize| format!("blocks.{i}.");
    assemble(
        weights,
        None,
        Names {
            class: "cls_token".into(),
            positions: "pos_embed".into(),
            patches: "patch_embed.proj".into(),
            last: "norm".into(),
            layers: weights.layers(|i| layer(i) + "norm1.weight"),
        },
        |i, sizes| {
            let at = |rest: &str| layer(i) + rest;
            let [query, key, value] = split(weights.linear(&at("attn.qkv"), 3 * sizes.width, sizes.width)?);
            let mlp = sizes.mlp(weights, &at("mlp.fc1"))?;
            Ok(Block {
                before: weights.norm(&at("norm1"), sizes.width, EPS)?,
                query,
                key,
                value,
                out: weights.linear(&at("attn.proj"), sizes.width, sizes.width)?,
                after: weights.norm(&at("norm2"), sizes.width, EPS)?,
                up: weights.linear(&at("mlp.fc1"), mlp, sizes.width)?,
                down: weights.linear(&at("mlp.fc2"), sizes.width, mlp)?,
            })
        },
    )
}

/// Queries, keys and values stand one below the other.
fn split(all: Linear) -> [Linear; 3] {
    let (rows, numbers) = (all.bias.len() / 3, all.weight.len() / 3);
    std::array::from_fn(|i| Linear {
        weight: all.weight[i * numbers..(i + 1) * numbers].to_vec(),
        bias: all.bias[i * rows..(i + 1) * rows].to_vec(),
    })
}

struct Names {
    class: String,
    positions: String,
    patches: String,
    last: String,
    layers: usize,
}

struct Sizes {
    width: usize,
}

impl Sizes {
    fn mlp(&self, weights: &Weights, name: &str) -> Result<usize> {
        let [mlp, _] = weights.shape(&format!("{name}.weight"), "a matrix")?;
        Ok(mlp)
    }
}

fn assemble(
    weights: &Weights,
    heads: Option<usize>,
    names: Names,
    block: impl Fn(usize, &Sizes) -> Result<Block>,
) -> Result<Vision> {
    let [width, colours, patch, patch_width] =
        weights.shape(&format!("{}.weight", names.patches), "a convolution [width, 3, patch, patch]")?;
    let [_, places, _] = weights.shape(&names.positions, "positions [1, 1 + patches, width]")?;
    let grid = ((places - 1) as f64).sqrt() as usize;
    let side = grid.saturating_mul(patch);
    if colours != 3 || patch != patch_width || grid * grid + 1 != places || side == 0 || side > super::MAX_SIDE {
        return Err(weights.unsupported(format!(
            "is no vision transformer for square RGB pictures: patches of {colours} channels, {patch}x{patch_width}, and {places} \
             positions"
        )));
    }
    let heads = heads.unwrap_or(width / HEAD);
    if heads == 0 || !width.is_multiple_of(heads) || names.layers == 0 {
        return Err(weights.unsupported(format!("has {} layers of width {width} with {heads} heads", names.layers)));
    }
    let sizes = Sizes { width };
    let patches = Linear {
        weight: weights.vector(&format!("{}.weight", names.patches), &[width, 3, patch, patch])?,
        bias: weights.vector(&format!("{}.bias", names.patches), &[width])?,
    };
    let blocks = (0..names.layers).map(|i| block(i, &sizes)).collect::<Result<_>>()?;
    Ok(Vision {
        patch,
        side,
        patches,
        class_token: weights.vector(&names.class, &[1, 1, width])?,
        positions: weights.vector(&names.positions, &[1, places, width])?,
        first: None,
        body: Transformer { blocks, heads, activation: Activation::Gelu },
        last: weights.norm(&names.last, width, EPS)?,
        projection: None,
    })
}
