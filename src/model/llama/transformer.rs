//! The transformer: word vectors in, states out.

use super::layer::Layer;
use super::Shape;
use crate::device::to_host;
use crate::model::cache::{Cache, CacheShape};
use crate::model::places::{Context, Rotary};
use crate::ops;
use crate::weights::Weights;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, D};

/// A transformer. A clone shares the tensors, so a changed copy costs only what changed.
#[derive(Clone)]
pub struct Transformer {
    pub shape: Shape,
    /// Those of the layers in the order of [`Shape::layer_specs`], then what the family puts behind.
    pub weights: Weights,
    /// [vocabulary, hidden]; f32 or bf16, also of a quantised model.
    pub embed_tokens: Tensor,
    pub norm: Tensor,
    pub rotary: Rotary,
}

impl Transformer {
    pub fn device(&self) -> &Device {
        self.embed_tokens.device()
    }

    /// What activations are kept in.
    pub fn dtype(&self) -> DType {
        self.rotary.dtype
    }

    /// What is kept for later in: the dtype of the weights that are not quantised.
    fn keeps(&self) -> DType {
        self.embed_tokens.dtype()
    }

    pub fn layer(&self, index: usize) -> Layer<'_> {
        Layer::new(&self.weights, &self.shape, index, self.keeps())
    }

    /// Room for keys and values.
    pub fn new_cache(&self, rows: usize, capacity: usize) -> Result<Cache> {
        let Shape { layers, kv_heads, head_dim, .. } = self.shape;
        Cache::new(&CacheShape { layers, rows, kv_heads, capacity, head_dim }, self.keeps(), self.device())
    }

    /// Hidden states behind the final norm, [B, T, hidden], of input embeddings [B, T, hidden].
    pub fn forward(&self, x: &Tensor, context: &Context, mut cache: Option<&mut Cache>) -> Result<Tensor> {
        ops::together(self.device(), || {
            let layers = self.shape.layers;
            let mut states = (x.clone(), self.layer(0).read(x)?);
            for index in 0..layers {
                context.stop.check()?;
                let behind = if index + 1 < layers { self.layer(index + 1).first_norm()? } else { &self.norm };
                let cache = cache.as_deref_mut().map(|c| c.layer(index));
                states = self.layer(index).forward_on(states, behind, context, cache)?;
            }
            if let Some(cache) = cache {
                cache.grow(x.dims()[1]);
            }
            let (x, normed) = states;
            if self.shape.post_norm {
                self.final_norm(&x)
            } else {
                Ok(normed)
            }
        })
    }

    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(x, &self.norm, self.shape.norm_eps)
    }

    /// The gradient of x in [`Transformer::final_norm`].
    pub fn final_norm_backward(&self, g: &Tensor, x: &Tensor) -> Result<Tensor> {
        Ok(ops::rms_norm_backward(g, x, &self.norm, self.shape.norm_eps, false)?.0)
    }

    /// Embedding rows of token ids [B, T]: [B, T, hidden].
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let rows = self.embed_tokens.index_select(&ids.flatten_all()?, 0)?;
        Ok(rows.reshape((b, t, self.shape.hidden))?.to_dtype(self.dtype())?)
    }

    /// Embedding rows, f32 [n, hidden].
    pub fn rows(&self, ids: Vec<u32>) -> Result<Tensor> {
        let n = ids.len();
        let ids = Tensor::from_vec(ids, (1, n), self.device())?;
        Ok(self.embed(&ids)?.squeeze(0)?.to_dtype(DType::F32)?)
    }

    /// The rows of an initial word that the tokenizer made `ids` of; `unknown` stands for what the vocabulary does not know.
    pub fn word_rows(&self, word: &str, ids: Vec<u32>, unknown: Option<u32>) -> Result<Tensor> {
        if ids.is_empty() || ids.iter().any(|&id| Some(id) == unknown) {
            return Err(Error::invalid("initial_word", format!("the model's vocabulary does not know \"{word}\"")));
        }
        self.rows(ids)
    }

    /// Root mean square of the numbers in the rows of some words, each counted once.
    pub fn usual_size(&self, mut ids: Vec<u32>) -> Result<f32> {
        ids.sort();
        ids.dedup();
        if ids.is_empty() {
            return Err(Error::internal("the tokenizer makes nothing of the prompts"));
        }
        let size = ops::square(&self.rows(ids)?)?.mean(D::Minus1)?.mean_all()?.sqrt()?;
        Ok(to_host(&size)?.to_scalar::<f32>()?)
    }
}
