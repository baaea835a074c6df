//! The Chameleon transformer as Lumina-mGPT uses it (fact sheet, section 1.2).

use super::config::Config;
use super::layer::{self, Layer};
use crate::files::checkpoint::Checkpoint;
use crate::kernels::together;
use crate::model::cache::{Cache, CacheShape};
use crate::model::places::{Context, Rotary};
use crate::model::quantised::Quantised;
use crate::ops;
use crate::weight::{Format, Weight};
use crate::weights::{Spec, Weights};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

pub const EMBEDDING: &str = "model.embed_tokens.weight";
pub const HEAD: &str = "lm_head.weight";
const NORM: &str = "model.norm.weight";

/// The transformer. A clone shares the tensors, so a changed copy costs only what changed.
#[derive(Clone)]
pub struct Transformer {
    pub config: Config,
    /// Those of the layers in the order of [`layer::specs`], then the head.
    pub weights: Weights,
    /// [vocabulary, hidden]; f32 or bf16, also of a quantised model.
    pub embed_tokens: Tensor,
    pub norm: Tensor,
    pub rotary: Rotary,
}

/// The weights that have names: those of the layers, and the head.
pub fn specs(config: &Config) -> Vec<Spec> {
    let layers = (0..config.layers).flat_map(|index| layer::specs(config, index));
    let head = Spec {
        name: HEAD.into(),
        layer: None,
        roles: &[],
        dims: vec![config.vocab_size, config.hidden_size],
        linear: true,
    };
    layers.chain([head]).collect()
}

impl Transformer {
    /// Loads and checks every weight; takes what `quantised` has from there. `progress` is called with (done, total) after each layer.
    pub fn load(
        checkpoint: &Checkpoint,
        quantised: Option<&Quantised>,
        config: &Config,
        format: Format,
        device: &Device,
        mut progress: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<Self> {
        let matrix = |name: &str, shape: &[usize], format: Format| -> Result<Weight> {
            match quantised.map(|q| q.get(name, shape, format, device)).transpose()?.flatten() {
                Some(weight) => Ok(weight),
                None => format.weight(checkpoint.get(name, shape, format.dense(), device)?),
            }
        };
        // Vectors are small, and f32 kernels want them in f32.
        let small = activations(format.dense(), device);
        let total = config.layers as u64 + 2;
        let embed_tokens =
            checkpoint.get(EMBEDDING, &[config.vocab_size, config.hidden_size], format.dense(), device)?;
        progress(1, total)?;
        let mut weights = Weights::default();
        for index in 0..config.layers {
            for mut spec in layer::specs(config, index) {
                let weight = match *spec.dims {
                    [_, _] if spec.linear => matrix(&spec.name, &spec.dims, format)?,
                    [_, d] => {
                        let heads = if spec.name.contains(".k_norm.") { config.kv_heads } else { config.heads };
                        head_norm(checkpoint, &spec.name, heads, d, small, device)?.into()
                    }
                    _ => checkpoint.get(&spec.name, &spec.dims, small, device)?.into(),
                };
                spec.dims = weight.dims().to_vec();
                weights.push(spec, weight);
            }
            progress(index as u64 + 2, total)?;
        }
        for spec in specs(config).split_off(config.layers * layer::COUNT) {
            let head = match config.tie_word_embeddings {
                true => embed_tokens.clone().into(),
                false => matrix(&spec.name, &spec.dims, format.head())?,
            };
            weights.push(spec, head);
        }
        let norm = checkpoint.get(NORM, &[config.hidden_size], small, device)?;
        progress(total, total)?;
        let rotary =
            Rotary { head_dim: config.head_dim, theta: config.rope_theta, dtype: small, device: device.clone() };
        Ok(Transformer { config: config.clone(), weights, embed_tokens, norm, rotary })
    }

    pub fn device(&self) -> &Device {
        self.embed_tokens.device()
    }

    /// What activations, keys and values are kept in: f32 on the CPU, elsewhere the format of the weights.
    pub fn dtype(&self) -> DType {
        self.rotary.dtype
    }

    pub fn layer(&self, index: usize) -> Layer<'_> {
        Layer::new(&self.weights, &self.config, index)
    }

    /// [vocabulary, hidden]
    pub fn head(&self) -> &Weight {
        &self.weights[self.config.layers * layer::COUNT].weight
    }

    pub fn new_cache(&self, rows: usize, capacity: usize) -> Result<Cache> {
        let Config { layers, kv_heads, head_dim, .. } = self.config;
        Cache::new(&CacheShape { layers, rows, kv_heads, capacity, head_dim }, self.dtype(), self.device())
    }

    /// Hidden states behind the final norm, [B, T, hidden], of input embeddings [B, T, hidden].
    pub fn forward(&self, x: &Tensor, context: &Context, mut cache: Option<&mut Cache>) -> Result<Tensor> {
        together(|| {
            let mut x = x.clone();
            for index in 0..self.config.layers {
                context.stop.check()?;
                x = self.layer(index).forward(&x, context, cache.as_deref_mut().map(|c| c.layer(index)))?;
            }
            if let Some(cache) = cache {
                cache.grow(x.dims()[1]);
            }
            self.final_norm(&x)
        })
    }

    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(x, &self.norm, self.config.rms_norm_eps)
    }

    /// The gradient of x in [`Transformer::final_norm`].
    pub fn final_norm_backward(&self, g: &Tensor, x: &Tensor) -> Result<Tensor> {
        Ok(ops::rms_norm_backward(g, x, &self.norm, self.config.rms_norm_eps, false)?.0)
    }

    /// Embedding rows of token ids [B, T]: [B, T, hidden].
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let rows = self.embed_tokens.index_select(&ids.flatten_all()?, 0)?;
        Ok(rows.reshape((b, t, self.config.hidden_size))?.to_dtype(self.dtype())?)
    }
}

/// A norm of queries or keys: a row for all heads, for each, or for those that one device computed in training.
fn head_norm(
    checkpoint: &Checkpoint,
    name: &str,
    heads: usize,
    d: usize,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let rows = checkpoint.get_any(name, dtype, device)?;
    match rows.dims() {
        [n, width] if *width == d && *n > 0 && heads.is_multiple_of(*n) => Ok(rows),
        found => Err(Error::Tensor {
            file: checkpoint.path().to_owned(),
            expected: format!("shape [1, {d}], [model_parallel_size, {d}] or [{heads}, {d}]"),
            found: format!("shape {found:?}"),
            tensor: name.to_string(),
        }),
    }
}

/// What activations are kept in beside weights of a dtype.
fn activations(weights: DType, device: &Device) -> DType {
    match device.is_cpu() {
        true => DType::F32,
        false => weights,
    }
}
