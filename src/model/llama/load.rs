//! Reading the weights of a transformer.

use super::{Shape, Transformer};
use crate::files::checkpoint::Checkpoint;
use crate::model::places::Rotary;
use crate::model::quantised::Quantised;
use crate::ops::own_kernels_on;
use crate::weight::{Format, Weight};
use crate::weights::{Spec, Weights};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Where weights come from, and how they are to be kept.
pub struct Source<'a> {
    pub checkpoint: &'a Checkpoint,
    /// Takes what it has from here.
    pub quantised: Option<&'a Quantised>,
    pub format: Format,
    pub device: &'a Device,
    /// What the files call a weight.
    pub name: &'a dyn Fn(&str) -> String,
}

impl Source<'_> {
    /// The matrix of a linear map.
    pub fn matrix(&self, spec: &Spec, format: Format) -> Result<Weight> {
        let kept = self.quantised.map(|q| q.get(&spec.name, &spec.dims, format, self.device)).transpose()?.flatten();
        match kept {
            Some(weight) => Ok(weight),
            None => format.weight(self.rows(&spec.name, &spec.dims, format)?),
        }
    }

    /// A table of which single rows are taken.
    pub fn table(&self, name: &str, dims: &[usize]) -> Result<Tensor> {
        self.rows(name, dims, self.format)
    }

    fn rows(&self, name: &str, dims: &[usize], format: Format) -> Result<Tensor> {
        self.checkpoint.get(&(self.name)(name), dims, format.dense(), self.device)
    }

    /// What is small: kept as activations are.
    pub fn small(&self, name: &str, dims: &[usize]) -> Result<Tensor> {
        self.checkpoint.get(&(self.name)(name), dims, self.activations(), self.device)
    }

    /// What activations are kept in: f32 on the CPU, whose kernels want it, elsewhere the format of the weights.
    pub fn activations(&self) -> DType {
        match own_kernels_on(self.device) {
            true => DType::F32,
            false => self.format.dense(),
        }
    }

    /// A norm of queries or keys: a row for all heads, for each, or for those that one device computed in training.
    fn head_norm(&self, name: &str, heads: usize, d: usize) -> Result<Tensor> {
        let rows = self.checkpoint.get_any(&(self.name)(name), self.activations(), self.device)?;
        match rows.dims() {
            [n, width] if *width == d && *n > 0 && heads.is_multiple_of(*n) => Ok(rows),
            found => Err(Error::Tensor {
                file: self.checkpoint.path().to_owned(),
                expected: format!("shape [1, {d}], [model_parallel_size, {d}] or [{heads}, {d}]"),
                found: format!("shape {found:?}"),
                tensor: (self.name)(name),
            }),
        }
    }
}

impl Shape {
    pub fn embedding(&self) -> String {
        format!("{}embed_tokens.weight", self.prefix)
    }

    pub fn last_norm(&self) -> String {
        format!("{}norm.weight", self.prefix)
    }
}

impl Transformer {
    /// Loads and checks every weight; `progress` is called with what is done after the table of word vectors and each layer, of as
    /// many and one.
    pub fn load(shape: &Shape, source: &Source, mut progress: impl FnMut(u64) -> Result<()>) -> Result<Self> {
        let embed_tokens = source.table(&shape.embedding(), &[shape.vocabulary, shape.hidden])?;
        progress(1)?;
        let mut weights = Weights::default();
        for index in 0..shape.layers {
            for mut spec in shape.layer_specs(index) {
                let weight = match *spec.dims {
                    [_, _] if spec.linear => source.matrix(&spec, source.format)?,
                    [_, d] => {
                        let heads = if spec.name.contains(".k_norm.") { shape.kv_heads } else { shape.heads };
                        source.head_norm(&spec.name, heads, d)?.into()
                    }
                    _ => source.small(&spec.name, &spec.dims)?.into(),
                };
                spec.dims = weight.dims().to_vec();
                weights.push(spec, weight);
            }
            if !own_kernels_on(source.device) {
                for ids in shape.products(index) {
                    weights.join(ids)?;
                }
            }
            progress(index as u64 + 2)?;
        }
        let norm = source.small(&shape.last_norm(), &[shape.hidden])?;
        let rotary = Rotary {
            head_dim: shape.head_dim,
            theta: shape.rope_theta,
            dtype: source.activations(),
            device: source.device.clone(),
        };
        Ok(Transformer { shape: shape.clone(), weights, embed_tokens, norm, rotary })
    }
}
