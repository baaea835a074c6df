//! The Chameleon transformer as Lumina-mGPT uses it (fact sheet, section 1.2).

use super::config::Config;
use crate::model::checkpoint::Checkpoint;
use crate::model::ops;
use crate::random::Dropout;
use crate::run::Control;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Epsilon of the norm on queries and keys; fixed, whatever the configuration says.
const QK_NORM_EPS: f64 = 1e-5;

/// Weights of one layer; names as in the checkpoint. A clone shares the tensors.
#[derive(Clone)]
pub struct Layer {
    pub input_layernorm: Tensor,
    pub q_proj: Tensor,
    pub k_proj: Tensor,
    pub v_proj: Tensor,
    pub o_proj: Tensor,
    /// Weight and bias, [rows, head_dim] each; a row serves heads / rows consecutive heads.
    pub q_norm: (Tensor, Tensor),
    /// As `q_norm`, for the kv_heads.
    pub k_norm: (Tensor, Tensor),
    pub post_attention_layernorm: Tensor,
    pub gate_proj: Tensor,
    pub up_proj: Tensor,
    pub down_proj: Tensor,
    /// Low-rank changes (down [rank, in], up [out, rank]) to q_proj, k_proj and v_proj while they are being learned.
    pub low_rank: [Option<(Tensor, Tensor)>; 3],
}

/// The transformer. A clone shares the tensors, so a changed copy costs only what changed.
#[derive(Clone)]
pub struct Transformer {
    pub config: Config,
    pub embed_tokens: Tensor,
    pub layers: Vec<Layer>,
    pub norm: Tensor,
    pub lm_head: Tensor,
}

/// The slots of the cache, or of the sequence itself, that a token may look at: from the first to before the second.
pub type Span = (u32, u32);

/// What a forward pass needs besides its input.
pub struct Context<'a> {
    /// [B or 1, T, 1, head_dim / 2]
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
    /// Added to the attention scores, [B or 1, 1, T, S]; None if all may be seen.
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

    /// A cache whose batch has these rows of this one, in this order.
    pub fn select_rows(&self, rows: &[u32]) -> Result<Cache> {
        let Some(device) = self.layers.first().map(|l| l.keys.device()) else {
            return Ok(Cache { layers: vec![], filled: vec![] });
        };
        let index = Tensor::new(rows, device)?;
        let select = |t: &Tensor| t.index_select(&index, 0);
        let layers = self.layers.iter().map(|l| Ok(LayerCache { keys: select(&l.keys)?, values: select(&l.values)? }));
        let filled = rows.iter().map(|&row| self.filled[row as usize]).collect();
        Ok(Cache { layers: layers.collect::<Result<_>>()?, filled })
    }
}

impl LayerCache {
    /// Puts each row's new keys and values behind its `filled` old ones; returns all slots up to the last one filled.
    fn append(&mut self, k: &Tensor, v: &Tensor, filled: &[usize]) -> Result<(Tensor, Tensor)> {
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
    /// Loads and checks every weight. `progress` is called with (done, total) after each layer.
    pub fn load(
        checkpoint: &Checkpoint,
        config: &Config,
        dtype: DType,
        device: &Device,
        mut progress: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<Self> {
        let get = |name: &str, shape: &[usize]| checkpoint.get(name, shape, dtype, device);
        let (h, i, d) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let kv = config.kv_heads * d;
        let total = config.layers as u64 + 2;
        let embed_tokens = get("model.embed_tokens.weight", &[config.vocab_size, h])?;
        progress(1, total)?;
        let mut layers = Vec::new();
        for index in 0..config.layers {
            let prefix = format!("model.layers.{index}");
            let weight = |name: &str, shape: &[usize]| get(&format!("{prefix}.{name}.weight"), shape);
            let qk_norm = |name: &str, heads: usize| -> Result<(Tensor, Tensor)> {
                let part = |p: &str| {
                    let name = format!("{prefix}.self_attn.{name}.{p}");
                    let rows = checkpoint.get_any(&name, dtype, device)?;
                    match rows.dims() {
                        [n, width] if *width == d && *n > 0 && heads.is_multiple_of(*n) => Ok(rows),
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
                input_layernorm: weight("input_layernorm", &[h])?,
                q_proj: weight("self_attn.q_proj", &[h, h])?,
                k_proj: weight("self_attn.k_proj", &[kv, h])?,
                v_proj: weight("self_attn.v_proj", &[kv, h])?,
                o_proj: weight("self_attn.o_proj", &[h, h])?,
                q_norm: qk_norm("q_norm", config.heads)?,
                k_norm: qk_norm("k_norm", config.kv_heads)?,
                post_attention_layernorm: weight("post_attention_layernorm", &[h])?,
                gate_proj: weight("mlp.gate_proj", &[i, h])?,
                up_proj: weight("mlp.up_proj", &[i, h])?,
                down_proj: weight("mlp.down_proj", &[h, i])?,
                low_rank: Default::default(),
            });
            progress(index as u64 + 2, total)?;
        }
        let lm_head = match config.tie_word_embeddings {
            true => embed_tokens.clone(),
            false => get("lm_head.weight", &[config.vocab_size, h])?,
        };
        let norm = get("model.norm.weight", &[h])?;
        progress(total, total)?;
        Ok(Transformer { config: config.clone(), embed_tokens, layers, norm, lm_head })
    }

    pub fn device(&self) -> &Device {
        self.embed_tokens.device()
    }

    pub fn dtype(&self) -> DType {
        self.embed_tokens.dtype()
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
        Ok(Context {
            cos: table(angles.cos()?)?,
            sin: table(angles.sin()?)?,
            mask: mask(spans, slots, self.device())?.map(|m| m.to_dtype(self.dtype())).transpose()?,
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
        let mut x = x.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            context.stop.check()?;
            let cache = cache.as_deref_mut().map(|c| (&mut c.layers[index], c.filled.as_slice()));
            x = layer.forward(&x, index, &self.config, context, cache)?;
        }
        if let Some(cache) = cache {
            cache.filled.iter_mut().for_each(|filled| *filled += x.dims()[1]);
        }
        Ok(ops::rms_norm(&x, &self.norm, self.config.rms_norm_eps)?)
    }

    /// The head's rows for these tokens, [tokens, hidden]; shared with the head where the ids run on.
    pub fn head_rows(&self, ids: &[u32]) -> Result<Tensor> {
        let first = *ids.first().unwrap_or(&0);
        if ids.iter().zip(first..).all(|(&id, expected)| id == expected) {
            return Ok(self.lm_head.narrow(0, first as usize, ids.len())?);
        }
        Ok(self.lm_head.index_select(&Tensor::new(ids, self.device())?, 0)?)
    }

    /// Embedding rows of token ids [B, T]: [B, T, hidden].
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let rows = self.embed_tokens.index_select(&ids.flatten_all()?, 0)?;
        Ok(rows.reshape((b, t, self.config.hidden_size))?)
    }
}

impl Layer {
    /// The weight matrices and vectors under their names in the checkpoint, without the layer's prefix.
    pub fn weights_mut(&mut self) -> [(&'static str, &mut Tensor); 13] {
        [
            ("input_layernorm.weight", &mut self.input_layernorm),
            ("self_attn.q_proj.weight", &mut self.q_proj),
            ("self_attn.k_proj.weight", &mut self.k_proj),
            ("self_attn.v_proj.weight", &mut self.v_proj),
            ("self_attn.o_proj.weight", &mut self.o_proj),
            ("self_attn.q_norm.weight", &mut self.q_norm.0),
            ("self_attn.q_norm.bias", &mut self.q_norm.1),
            ("self_attn.k_norm.weight", &mut self.k_norm.0),
            ("self_attn.k_norm.bias", &mut self.k_norm.1),
            ("post_attention_layernorm.weight", &mut self.post_attention_layernorm),
            ("mlp.gate_proj.weight", &mut self.gate_proj),
            ("mlp.up_proj.weight", &mut self.up_proj),
            ("mlp.down_proj.weight", &mut self.down_proj),
        ]
    }

    fn forward(
        &self,
        x: &Tensor,
        index: usize,
        config: &Config,
        context: &Context,
        cache: Option<(&mut LayerCache, &[usize])>,
    ) -> Result<Tensor> {
        let eps = config.rms_norm_eps;
        let dropped = |y: Tensor, site: u32| match context.dropout {
            Some(dropout) => dropout.apply(&y, 2 * index as u32 + site),
            None => Ok(y),
        };
        // Post-norm models normalise what a sub-layer gives, the others what it gets.
        let sub_layer = |x: &Tensor, norm: &Tensor, y: &mut dyn FnMut(&Tensor) -> Result<Tensor>| match config.swin_norm
        {
            true => Ok(ops::rms_norm(&y(x)?, norm, eps)?),
            false => y(&ops::rms_norm(x, norm, eps)?),
        };
        let mut cache = cache;
        let y = sub_layer(x, &self.input_layernorm, &mut |h| self.attention(h, config, context, cache.take()))?;
        let x = (x + dropped(y, 0)?)?;
        let y = sub_layer(&x, &self.post_attention_layernorm, &mut |h| self.mlp(h))?;
        Ok((&x + dropped(y, 1)?)?)
    }

    fn attention(
        &self,
        h: &Tensor,
        config: &Config,
        context: &Context,
        cache: Option<(&mut LayerCache, &[usize])>,
    ) -> Result<Tensor> {
        let (b, t, _) = h.dims3()?;
        let (heads, kv_heads, d) = (config.heads, config.kv_heads, config.head_dim);
        let q = project(h, &self.q_proj, &self.low_rank[0])?.reshape((b, t, heads, d))?;
        let k = project(h, &self.k_proj, &self.low_rank[1])?.reshape((b, t, kv_heads, d))?;
        let v = project(h, &self.v_proj, &self.low_rank[2])?.reshape((b, t, kv_heads, d))?;
        let q = qk_norm(&q, &self.q_norm)?;
        let k = qk_norm(&k, &self.k_norm)?;
        let q = ops::rope(&q, &context.cos, &context.sin, &context.stop)?.transpose(1, 2)?.contiguous()?; // [B, heads, T, d]
        let k = ops::rope(&k, &context.cos, &context.sin, &context.stop)?.transpose(1, 2)?.contiguous()?;
        let v = v.transpose(1, 2)?.contiguous()?;
        let (k, v) = match cache {
            Some((cache, filled)) => cache.append(&k, &v, filled)?,
            None => (k, v),
        };
        let (k, v) = match heads / kv_heads {
            1 => (k, v),
            n => (repeat_kv(&k, n)?, repeat_kv(&v, n)?),
        };
        let scores = (q.matmul(&k.t()?)? * (d as f64).powf(-0.5))?; // [B, heads, T, S]
        let scores = match &context.mask {
            Some(mask) => scores.broadcast_add(mask)?,
            None => scores,
        };
        let mixed = ops::softmax(&scores)?.matmul(&v)?; // [B, heads, T, d]
        Ok(ops::linear(&mixed.transpose(1, 2)?.reshape((b, t, heads * d))?, &self.o_proj)?)
    }

    fn mlp(&self, h: &Tensor) -> Result<Tensor> {
        let gate = ops::linear(h, &self.gate_proj)?.silu()?;
        let up = ops::linear(h, &self.up_proj)?;
        Ok(ops::linear(&(gate * up)?, &self.down_proj)?)
    }
}

/// `x W^T` with a low-rank change to W; cheaper than making the changed W.
fn project(x: &Tensor, weight: &Tensor, low_rank: &Option<(Tensor, Tensor)>) -> Result<Tensor> {
    let y = ops::linear(x, weight)?;
    match low_rank {
        Some((down, up)) => Ok((y + ops::linear(&ops::linear(x, down)?, up)?)?),
        None => Ok(y),
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

/// The layer norm on queries or keys [B, T, heads, d].
fn qk_norm(x: &Tensor, (weight, bias): &(Tensor, Tensor)) -> Result<Tensor> {
    let heads = x.dim(2)?;
    let per_head = |rows: &Tensor| -> Result<Tensor> {
        let (n, d) = rows.dims2()?;
        match n == 1 || n == heads {
            true => Ok(rows.clone()),
            false => Ok(rows.unsqueeze(1)?.expand((n, heads / n, d))?.reshape((heads, d))?),
        }
    };
    Ok(ops::layer_norm(x, &per_head(weight)?, &per_head(bias)?, QK_NORM_EPS)?)
}

/// Each key/value head serves n query heads: [B, kv, S, d] -> [B, kv n, S, d].
fn repeat_kv(x: &Tensor, n: usize) -> Result<Tensor> {
    let (b, kv, s, d) = x.dims4()?;
    Ok(x.unsqueeze(2)?.expand((b, kv, n, s, d))?.reshape((b, kv * n, s, d))?)
}
