//! The Chameleon transformer as Lumina-mGPT uses it (fact sheet, section 1.2).

use super::config::Config;
use super::layer::Layer;
use crate::kernels::together;
use crate::model::checkpoint::Checkpoint;
use crate::model::ops;
use crate::model::quantised::Quantised;
use crate::model::weight::{Format, Weight};
use crate::random::Dropout;
use crate::run::Control;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// The transformer. A clone shares the tensors, so a changed copy costs only what changed.
#[derive(Clone)]
pub struct Transformer {
    pub config: Config,
    /// f32 or bf16, also of a quantised model.
    pub embed_tokens: Tensor,
    pub layers: Vec<Layer>,
    pub norm: Tensor,
    pub lm_head: Weight,
}

/// The slots of the cache, or of the sequence itself, that a token may look at: from the first to before the second.
pub type Span = (u32, u32);

/// What a forward pass needs besides its input.
pub struct Context<'a> {
    /// [B or 1, T, 1, head_dim / 2]
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
    /// [B or 1, T]
    pub(super) spans: Vec<Span>,
    /// Added to the attention scores, [B or 1, 1, T, S]. None if all may be seen, or where spans will do.
    pub(super) mask: Option<Tensor>,
    pub(super) dropout: Option<&'a Dropout>,
    pub(super) stop: Control,
}

impl Context<'_> {
    /// The passes of this context, forward and backward, end with an error between two layers once `control` is cancelled.
    pub fn stopped_by(self, control: Control) -> Self {
        Context { stop: control, ..self }
    }
}

/// Keys and values of one layer, [B, kv_heads, capacity, head_dim].
pub struct LayerCache {
    keys: Tensor,
    values: Tensor,
}

/// Keys and values of all layers. Each row is filled from the front, and need not be filled as far as the others.
pub struct Cache {
    layers: Vec<LayerCache>,
    filled: Vec<usize>,
}

impl Cache {
    /// Slots filled so far, of each row.
    pub fn filled(&self) -> &[usize] {
        &self.filled
    }

    /// Forgets what stands behind the first `filled` slots of each row.
    pub fn truncate(&mut self, filled: &[usize]) {
        self.filled.iter_mut().zip(filled).for_each(|(now, &keep)| *now = keep.min(*now));
    }

    /// Begins each row with what `from` has of the row given for it. This one has at least as many slots.
    pub fn begin_with(&mut self, from: &Cache, rows: &[u32]) -> Result<()> {
        let Some(device) = from.layers.first().map(|l| l.keys.device()) else { return Ok(()) };
        let index = Tensor::new(rows, device)?;
        for (to, from) in self.layers.iter().zip(&from.layers) {
            for (to, from) in [(&to.keys, &from.keys), (&to.values, &from.values)] {
                to.slice_set(&from.index_select(&index, 0)?, 2, 0)?;
            }
        }
        self.filled = rows.iter().map(|&row| from.filled[row as usize]).collect();
        Ok(())
    }
}

impl LayerCache {
    /// Puts each row's new keys and values behind its `filled` old ones; returns all slots up to the last one filled.
    pub(super) fn append(&mut self, k: &Tensor, v: &Tensor, filled: &[usize]) -> Result<(Tensor, Tensor)> {
        let (k, v) = (k.contiguous()?, v.contiguous()?);
        let mut row = 0;
        // Rows filled equally far are written at once.
        for run in filled.chunk_by(|a, b| a == b) {
            for (all, new) in [(&self.keys, &k), (&self.values, &v)] {
                all.narrow(0, row, run.len())?.slice_set(&new.narrow(0, row, run.len())?, 2, run[0])?;
            }
            row += run.len();
        }
        let end = filled.iter().max().map_or(0, |filled| filled + k.dims()[2]);
        Ok((self.keys.narrow(2, 0, end)?, self.values.narrow(2, 0, end)?))
    }
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
        let dtype = format.dense();
        let get = |name: &str, shape: &[usize]| checkpoint.get(name, shape, dtype, device);
        let matrix = |name: &str, shape: &[usize], format: Format| -> Result<Weight> {
            match quantised.map(|q| q.get(name, shape, format, device)).transpose()?.flatten() {
                Some(weight) => Ok(weight),
                None => format.weight(get(name, shape)?),
            }
        };
        // Vectors are small, and f32 kernels want them in f32.
        let small = activations(dtype, device);
        let (h, i, d) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let kv = config.kv_heads * d;
        let total = config.layers as u64 + 2;
        let embed_tokens = get("model.embed_tokens.weight", &[config.vocab_size, h])?;
        progress(1, total)?;
        let mut layers = Vec::new();
        for index in 0..config.layers {
            let prefix = format!("model.layers.{index}");
            let matrix = |name: &str, shape: &[usize]| -> Result<Weight> {
                matrix(&format!("{prefix}.{name}.weight"), shape, format)
            };
            let vector = |name: &str, shape: &[usize]| -> Result<Weight> {
                Ok(checkpoint.get(&format!("{prefix}.{name}.weight"), shape, small, device)?.into())
            };
            let qk_norm = |name: &str, heads: usize| -> Result<(Weight, Weight)> {
                let part = |p: &str| {
                    let name = format!("{prefix}.self_attn.{name}.{p}");
                    let rows = checkpoint.get_any(&name, small, device)?;
                    match rows.dims() {
                        [n, width] if *width == d && *n > 0 && heads.is_multiple_of(*n) => Ok(rows.into()),
                        found => Err(Error::Tensor {
                            file: checkpoint.path().to_owned(),
                            expected: format!("shape [1, {d}], [model_parallel_size, {d}] or [{heads}, {d}]"),
                            found: format!("shape {found:?}"),
                            tensor: name,
                        }),
                    }
                };
                Ok((part("weight")?, part("bias")?))
            };
            layers.push(Layer {
                input_layernorm: vector("input_layernorm", &[h])?,
                q_proj: matrix("self_attn.q_proj", &[h, h])?,
                k_proj: matrix("self_attn.k_proj", &[kv, h])?,
                v_proj: matrix("self_attn.v_proj", &[kv, h])?,
                o_proj: matrix("self_attn.o_proj", &[h, h])?,
                q_norm: qk_norm("q_norm", config.heads)?,
                k_norm: qk_norm("k_norm", config.kv_heads)?,
                post_attention_layernorm: vector("post_attention_layernorm", &[h])?,
                gate_proj: matrix("mlp.gate_proj", &[i, h])?,
                up_proj: matrix("mlp.up_proj", &[i, h])?,
                down_proj: matrix("mlp.down_proj", &[h, i])?,
                low_rank: Default::default(),
            });
            progress(index as u64 + 2, total)?;
        }
        let lm_head = match config.tie_word_embeddings {
            true => embed_tokens.clone().into(),
            false => matrix("lm_head.weight", &[config.vocab_size, h], format.head())?,
        };
        let norm = checkpoint.get("model.norm.weight", &[h], small, device)?;
        progress(total, total)?;
        Ok(Transformer { config: config.clone(), embed_tokens, layers, norm, lm_head })
    }

    pub fn device(&self) -> &Device {
        self.embed_tokens.device()
    }

    /// What activations, keys and values are kept in: f32 on the CPU, elsewhere the format of the weights.
    pub fn dtype(&self) -> DType {
        activations(self.embed_tokens.dtype(), self.device())
    }

    /// Rotary tables, cosine and sine, for the positions of each row: [rows, T, 1, head_dim / 2].
    pub(super) fn rotary(&self, positions: &[Vec<u32>]) -> Result<(Tensor, Tensor)> {
        let half = self.config.head_dim / 2;
        let theta = self.config.rope_theta;
        let tokens = positions[0].len();
        let mut angles = Vec::with_capacity(positions.len() * tokens * half);
        for &p in positions.iter().flatten() {
            // PyTorch computes the inverse frequency and the angle in f32.
            angles.extend((0..half).map(|j| p as f32 * (1.0 / theta.powf(j as f64 / half as f64)) as f32));
        }
        let angles = Tensor::from_vec(angles, (positions.len(), tokens, 1, half), &Device::Cpu)?;
        let table = |t: Tensor| -> Result<Tensor> { Ok(t.to_dtype(self.dtype())?.to_device(self.device())?) };
        Ok((table(angles.cos()?)?, table(angles.sin()?)?))
    }

    /// Rotary tables for the positions of each row, and what each token sees of the `slots` slots there are with the new
    /// tokens. `positions` and `spans` have one row per batch row, or a single one for all.
    pub fn context<'a>(
        &self,
        positions: &[Vec<u32>],
        spans: &[Vec<Span>],
        slots: usize,
        dropout: Option<&'a Dropout>,
    ) -> Result<Context<'a>> {
        let (cos, sin) = self.rotary(positions)?;
        Ok(Context {
            cos,
            sin,
            mask: match ops::own_kernels(&self.embed_tokens) {
                true => None,
                false => mask(spans, slots, self.device())?.map(|m| m.to_dtype(self.dtype())).transpose()?,
            },
            spans: spans.concat(),
            dropout,
            stop: Control::default(),
        })
    }

    /// The context of whole sequences of `tokens` tokens: positions from 0, each token sees itself and those before.
    pub fn causal_context<'a>(&self, tokens: usize, dropout: Option<&'a Dropout>) -> Result<Context<'a>> {
        let positions = (0..tokens as u32).collect();
        let spans = (0..tokens as u32).map(|i| (0, i + 1)).collect();
        self.context(&[positions], &[spans], tokens, dropout)
    }

    pub fn new_cache(&self, rows: usize, capacity: usize) -> Result<Cache> {
        let shape = (rows, self.config.kv_heads, capacity, self.config.head_dim);
        let zeros = || Tensor::zeros(shape, self.dtype(), self.device());
        let layers = (0..self.config.layers).map(|_| Ok(LayerCache { keys: zeros()?, values: zeros()? }));
        Ok(Cache { layers: layers.collect::<Result<_>>()?, filled: vec![0; rows] })
    }

    /// Hidden states behind the final norm, [B, T, hidden], of input embeddings [B, T, hidden].
    pub fn forward(&self, x: &Tensor, context: &Context, mut cache: Option<&mut Cache>) -> Result<Tensor> {
        together(|| {
            let mut x = x.clone();
            for (index, layer) in self.layers.iter().enumerate() {
                context.stop.check()?;
                let cache = cache.as_deref_mut().map(|c| (&mut c.layers[index], c.filled.as_slice()));
                x = layer.forward(&x, index, &self.config, context, cache)?;
            }
            if let Some(cache) = cache {
                cache.filled.iter_mut().for_each(|filled| *filled += x.dims()[1]);
            }
            ops::rms_norm(&x, &self.norm, self.config.rms_norm_eps)
        })
    }

    /// The head's rows for these tokens, [tokens, hidden]; shared with the head where the ids run on.
    pub fn head_rows(&self, ids: &[u32]) -> Result<Weight> {
        self.lm_head.rows(ids)
    }

    /// Embedding rows of token ids [B, T]: [B, T, hidden].
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let rows = self.embed_tokens.index_select(&ids.flatten_all()?, 0)?;
        Ok(rows.reshape((b, t, self.config.hidden_size))?.to_dtype(self.dtype())?)
    }
}

/// What activations are kept in beside weights of a dtype.
fn activations(weights: DType, device: &Device) -> DType {
    match device.is_cpu() {
        true => DType::F32,
        false => weights,
    }
}

/// 0 where a token may look, minus infinity where not: [B or 1, 1, T, slots]. None if all see everything.
fn mask(spans: &[Vec<Span>], slots: usize, device: &Device) -> Result<Option<Tensor>> {
    let all = (0, slots as u32);
    if spans.iter().flatten().all(|&span| span == all) {
        return Ok(None);
    }
    let row = |&(from, to): &Span| {
        (0..slots as u32).map(move |slot| if (from..to).contains(&slot) { 0f32 } else { f32::NEG_INFINITY })
    };
    let values: Vec<f32> = spans.iter().flatten().flat_map(row).collect();
    Ok(Some(Tensor::from_vec(values, (spans.len(), 1, spans[0].len(), slots), device)?))
}
