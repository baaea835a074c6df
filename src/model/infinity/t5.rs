//! The text encoder: that of T5 with gated GELU (Raffel et al., arXiv 1910.10683, in the form of version 1.1 and Flan).
//!
//! Texts run one at a time and unpadded, which gives what a padded batch gives with its mask. Activations are f32, so nothing of the
//! clamping is needed that half precision asks for.

use super::ops;
use crate::files::checkpoint::Checkpoint;
use crate::kernels::{self, zeros, Left, Matrix};
use crate::ops::{floats, matmul, own_kernels, rms_norm, together};
use crate::weight::{Format, Weight};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, D};
use serde::Deserialize;
use std::path::Path;

/// What shapes cannot tell, from `config.json`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Config {
    #[serde(default = "epsilon")]
    pub layer_norm_epsilon: f64,
    #[serde(default = "max_distance")]
    pub relative_attention_max_distance: usize,
    #[serde(default)]
    pub feed_forward_proj: String,
    /// Those that the weights have, if it is not said.
    pub num_layers: Option<usize>,
}

fn epsilon() -> f64 {
    1e-6
}

fn max_distance() -> usize {
    128
}

impl Config {
    /// Reads a `config.json`; only what this encoder can be is let in.
    pub fn from_json(text: &str, file: &Path) -> Result<Self> {
        let config: Config = serde_json::from_str(text)
            .map_err(|e| Error::bad_format(file, format!("is not a T5 configuration: {e}")))?;
        if config.feed_forward_proj != "gated-gelu" {
            let message = format!(
                "feed_forward_proj is {:?}; text encoders with gated-gelu are read (flan-t5, t5 1.1)",
                config.feed_forward_proj
            );
            return Err(Error::UnsupportedModel { file: file.to_owned(), message });
        }
        if config.layer_norm_epsilon <= 0.0 || config.relative_attention_max_distance < 2 {
            return Err(Error::bad_format(
                file,
                "layer_norm_epsilon and relative_attention_max_distance must be positive",
            ));
        }
        Ok(config)
    }
}

struct Layer {
    attention_norm: Tensor,
    q: Weight,
    k: Weight,
    v: Weight,
    o: Weight,
    mlp_norm: Tensor,
    gate: Weight,
    up: Weight,
    down: Weight,
}

/// The encoder of a T5.
pub struct T5 {
    config: Config,
    /// [rows, width]
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    /// [buckets, heads], on the CPU
    distances: Vec<Vec<f32>>,
    heads: usize,
}

/// What a T5's tensors say about its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows of the vocabulary.
    pub rows: usize,
    pub width: usize,
    pub layers: u64,
    /// Numbers in all matrices of the layers, and in a row of the longest.
    pub numbers: u64,
    pub longest: usize,
}

/// The tensor by which a layer is seen to be there.
fn layer_norm(layer: usize) -> String {
    format!("encoder.block.{layer}.layer.0.layer_norm.weight")
}

impl Sizes {
    pub fn of(checkpoint: &Checkpoint) -> Option<Sizes> {
        let table = ["shared.weight", "encoder.embed_tokens.weight"].into_iter().find_map(|n| checkpoint.shape(n))?;
        let &[rows, width] = table else { return None };
        let hidden = checkpoint.shape("encoder.block.0.layer.1.DenseReluDense.wi_0.weight")?.first().copied()?;
        let layers = (0..).take_while(|i| checkpoint.contains(&layer_norm(*i))).count() as u64;
        Some(Sizes { rows, width, layers, numbers: checkpoint.count("encoder.block."), longest: hidden.max(width) })
    }
}

impl T5 {
    /// Loads and checks every weight. Sizes are those of the tensors. `progress` is called with the layers that are done.
    pub fn load(
        checkpoint: &Checkpoint,
        config: Config,
        format: Format,
        device: &Device,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let dims = |name: &str| -> Result<[usize; 2]> {
            match checkpoint.shape(name) {
                Some(&[a, b]) if a > 0 && b > 0 => Ok([a, b]),
                found => Err(Error::Tensor {
                    file: checkpoint.path().to_owned(),
                    tensor: name.into(),
                    expected: "a matrix".into(),
                    found: found.map_or("no such tensor".into(), |dims| format!("shape {dims:?}")),
                }),
            }
        };
        let table = ["shared.weight", "encoder.embed_tokens.weight"].into_iter().find(|n| checkpoint.contains(n));
        let table = table.unwrap_or("shared.weight");
        let [rows, width] = dims(table)?;
        let first = "encoder.block.0.layer.";
        let bias = format!("{first}0.SelfAttention.relative_attention_bias.weight");
        let [buckets, heads] = dims(&bias)?;
        let inner = dims(&format!("{first}0.SelfAttention.q.weight"))?[0];
        let hidden = dims(&format!("{first}1.DenseReluDense.wi_0.weight"))?[0];
        if inner % heads != 0 || buckets % 4 != 0 {
            let message =
                format!("{inner} channels in {heads} heads and {buckets} buckets of distance are no T5 encoder");
            return Err(Error::bad_format(checkpoint.path(), message));
        }
        let vector = |name: &str| checkpoint.get(name, &[width], DType::F32, device);
        let mut layers = Vec::new();
        while checkpoint.contains(&layer_norm(layers.len())) {
            let at = format!("encoder.block.{}.layer.", layers.len());
            let matrix = |name: &str, out: usize, inner: usize| -> Result<Weight> {
                format.weight(checkpoint.get(&format!("{at}{name}.weight"), &[out, inner], format.dense(), device)?)
            };
            layers.push(Layer {
                attention_norm: vector(&format!("{at}0.layer_norm.weight"))?,
                q: matrix("0.SelfAttention.q", inner, width)?,
                k: matrix("0.SelfAttention.k", inner, width)?,
                v: matrix("0.SelfAttention.v", inner, width)?,
                o: matrix("0.SelfAttention.o", width, inner)?,
                mlp_norm: vector(&format!("{at}1.layer_norm.weight"))?,
                gate: matrix("1.DenseReluDense.wi_0", hidden, width)?,
                up: matrix("1.DenseReluDense.wi_1", hidden, width)?,
                down: matrix("1.DenseReluDense.wo", width, hidden)?,
            });
            progress(layers.len() as u64)?;
        }
        if let Some(said) = config.num_layers.filter(|&said| said != layers.len()) {
            let message =
                format!("has {} layers, and config.json says num_layers {said}; get all files again", layers.len());
            return Err(Error::bad_format(checkpoint.path(), message));
        }
        Ok(T5 {
            config,
            embedding: checkpoint.get(table, &[rows, width], format.dense(), device)?,
            layers,
            norm: vector("encoder.final_layer_norm.weight")?,
            distances: checkpoint.get(&bias, &[buckets, heads], DType::F32, &Device::Cpu)?.to_vec2()?,
            heads,
        })
    }

    /// Rows of the vocabulary, which may be more than the tokenizer has words for.
    pub fn rows(&self) -> usize {
        self.embedding.dims()[0]
    }

    /// Numbers of a feature.
    pub fn width(&self) -> usize {
        self.embedding.dims()[1]
    }

    /// The rows of tokens, [tokens, width].
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        Ok(self.embedding.index_select(&Tensor::new(ids, self.embedding.device())?, 0)?)
    }

    /// The features of a text's tokens, which end with `</s>`: [tokens, width].
    pub fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        let eps = self.config.layer_norm_epsilon;
        let mut x = self.embed(ids)?.to_dtype(DType::F32)?;
        let bias = self.bias(ids.len());
        let device = x.device().clone();
        together(&device, || {
            for layer in &self.layers {
                let h = rms_norm(&x, &layer.attention_norm, eps)?;
                let (q, k, v) = (ops::linear(&h, &layer.q)?, ops::linear(&h, &layer.k)?, ops::linear(&h, &layer.v)?);
                let mixed = self.attention(&q, &k, &v, &bias)?;
                x = (x + ops::linear(&mixed, &layer.o)?)?;
                let h = rms_norm(&x, &layer.mlp_norm, eps)?;
                let h = ops::gelu(&ops::linear(&h, &layer.gate)?, Some(&ops::linear(&h, &layer.up)?))?;
                x = (x + ops::linear(&h, &layer.down)?)?;
            }
            rms_norm(&x, &self.norm, eps)
        })
    }

    /// What is added to the scores of each head: [heads, n, n], by the distance from query to key.
    fn bias(&self, n: usize) -> Vec<f32> {
        let buckets = self.distances.len();
        let half = buckets / 2;
        let exact = half / 2;
        let most = self.config.relative_attention_max_distance as f32;
        let bucket = |query: usize, key: usize| {
            let far = query.abs_diff(key);
            let near = match far < exact {
                true => far,
                false => {
                    let log = (far as f32 / exact as f32).ln() / (most / exact as f32).ln();
                    (exact + (log * (half - exact) as f32) as usize).min(half - 1)
                }
            };
            near + if key > query { half } else { 0 }
        };
        let mut bias = Vec::with_capacity(self.heads * n * n);
        for head in 0..self.heads {
            bias.extend((0..n * n).map(|i| self.distances[bucket(i / n, i % n)][head]));
        }
        bias
    }

    /// Attention without a factor, all to all. Queries, keys and values are [n, heads d].
    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, bias: &[f32]) -> Result<Tensor> {
        let (n, width) = q.dims2()?;
        let (heads, d) = (self.heads, width / self.heads);
        if !own_kernels(q) {
            let split = |x: &Tensor| x.reshape((n, heads, d))?.transpose(0, 1)?.contiguous();
            let bias = Tensor::from_slice(bias, (heads, n, n), &Device::Cpu)?.to_device(q.device())?;
            let scores = (matmul(&split(q)?.contiguous()?, &split(k)?.contiguous()?.t()?)? + bias)?;
            let p = candle_nn::ops::softmax(&scores, D::Minus1)?;
            return Ok(matmul(&p, &split(v)?.contiguous()?)?.transpose(0, 1)?.reshape((n, width))?);
        }
        let (q, k, v) = (floats(q)?, floats(k)?, floats(v)?);
        let (mut mixed, mut scores) = (zeros(n * width), vec![0f32; n * n]);
        for head in 0..heads {
            let at = head * d;
            let left = Left { data: &q[at..], row: width, column: 1 };
            kernels::gemm((n, n, d), left, (Matrix::F32(&k[at..]), width, true), (&mut scores, n), false);
            scores.iter_mut().zip(&bias[head * n * n..]).for_each(|(score, bias)| *score += bias);
            kernels::softmax(&mut scores, n, 1.0);
            let left = Left { data: &scores, row: n, column: 1 };
            kernels::gemm((n, d, n), left, (Matrix::F32(&v[at..]), width, false), (&mut mixed[at..], width), false);
        }
        Ok(Tensor::from_vec(mixed, (n, width), &Device::Cpu)?)
    }
}
