//! The transformer (arXiv 2412.04431, section 3.3): texts and what is drawn so far to logits of the bits of the next scale, or of
//! all scales at once.

use super::condition::{Conditioner, Dense, Gradients as TextGradients, Texts};
use super::config::{Config, EPS};
use super::layer::{Context, Filling, Layer, LayerCache};
use super::names::{self, NAMES};
use super::ops;
use super::schedule::Schedule;
use crate::files::checkpoint::Checkpoint;
use crate::model::quantised::Quantised;
use crate::ops::{own_kernels, own_kernels_on, together, Seen};
use crate::run::Control;
use crate::weight::{Format, Weight};
use crate::weights::{Spec, Weights};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;

/// The transformer. A clone shares the tensors.
#[derive(Clone)]
pub struct Transformer {
    pub config: Config,
    /// Those of the blocks, in the order of [`names::specs`].
    pub weights: Weights,
    pub conditioner: Conditioner,
    /// Added to the pooled text to make the first token, [C].
    start: Tensor,
    /// A row for each scale, [levels, C].
    levels: Tensor,
    word: Dense,
    head: Dense,
    /// Whether the level's row is added before each chunk of blocks (as in ARBooth's code) and not once.
    pub each_chunk: bool,
    /// What blocks keep for their backward pass in: on the CPU the dtype of weights that are not quantised, elsewhere f32.
    keeps: DType,
}

/// Keys and values of all blocks, for scale after scale.
pub struct Cache {
    layers: Vec<LayerCache>,
    /// Tokens so far.
    filled: usize,
}

impl Transformer {
    /// Loads and checks every weight; takes what `quantised` has from there. `progress` is called with (done, total) after each
    /// block.
    pub fn load(
        checkpoint: &Checkpoint,
        quantised: Option<&Quantised>,
        config: Config,
        format: Format,
        device: &Device,
        mut progress: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<Self> {
        let c = config.width;
        let get = |name: &str, dims: &[usize]| checkpoint.get(name, dims, DType::F32, device);
        let dense = |name: &str, out: usize, inner: usize| Dense::load(checkpoint, name, out, inner, device);
        let total = config.blocks.len() as u64 + 1;
        let conditioner = Conditioner::load(checkpoint, &config, device)?;
        progress(1, total)?;
        let read = |spec: &Spec| -> Result<Weight> {
            if let (true, Some(quantised)) = (spec.linear, quantised) {
                if let Some(weight) = quantised.get(&spec.name, &spec.dims, format, device)? {
                    return Ok(weight);
                }
            }
            let tensor = checkpoint.get(&spec.name, &spec.dims, format.dense(), device)?;
            match spec.linear {
                true => format.weight(tensor),
                // Upstream holds its blocks in the dtype of the matrices, vectors too, and computes with them in f32.
                false => Ok(tensor.to_dtype(DType::F32)?.into()),
            }
        };
        let mut weights = Weights::default();
        for index in 0..config.blocks.len() {
            for spec in names::specs(&config, index) {
                let weight = read(&spec)?;
                weights.push(spec, weight);
            }
            progress(index as u64 + 2, total)?;
        }
        Ok(Transformer {
            weights,
            conditioner,
            start: get("pos_start", &[1, 1, c])?.flatten_all()?,
            levels: get("lvl_embed.weight", &[config.levels, c])?,
            word: dense("word_embed", c, config.bits)?,
            head: dense("head", 2 * config.bits, c)?,
            each_chunk: false,
            keeps: if own_kernels_on(device) { format.dense() } else { DType::F32 },
            config,
        })
    }

    pub fn device(&self) -> &Device {
        self.start.device()
    }

    pub fn depth(&self) -> usize {
        self.config.blocks.len()
    }

    pub fn layer(&self, index: usize) -> Layer<'_> {
        Layer { weights: &self.weights, first: index * NAMES.len(), index, keeps: self.keeps }
    }

    /// The first token of each text, [B, 1, C].
    fn first(&self, texts: &Texts) -> Result<Tensor> {
        Ok(texts.pooled.broadcast_add(&self.start)?.unsqueeze(1)?)
    }

    /// The tokens of a scale from the sum so far, [B, cells, bits].
    fn embed(&self, inputs: &Tensor) -> Result<Tensor> {
        self.word.forward(&inputs.to_device(self.device())?)
    }

    /// The whole sequence before its level embeddings, [B, T, C]; `inputs` are those of all scales but the first, [B, T - 1, bits].
    pub fn sequence(&self, texts: &Texts, inputs: &Tensor) -> Result<Tensor> {
        Ok(Tensor::cat(&[self.first(texts)?, self.embed(inputs)?], 1)?)
    }

    /// x with its level embeddings, where a block at `index` gets them.
    fn with_levels(&self, x: Tensor, index: usize, schedule: &Schedule, scales: Range<usize>) -> Result<Tensor> {
        let here = index == 0 || self.each_chunk && self.config.chunks.contains(&index);
        if !here {
            return Ok(x);
        }
        if scales.end > self.config.levels {
            return Err(Error::internal("more scales than level embeddings"));
        }
        let ids: Vec<u32> = scales.flat_map(|s| std::iter::repeat_n(s as u32, schedule.cells(s))).collect();
        let rows = self.levels.index_select(&Tensor::new(ids, self.device())?, 0)?;
        Ok(x.broadcast_add(&rows)?)
    }

    /// What a pass over some scales needs, `slots` tokens being seen by the last of them. Each token sees the scales before its own and
    /// its own.
    pub fn context(&self, texts: &Texts, schedule: &Schedule, scales: Range<usize>) -> Result<Context<'_>> {
        let (cos, sin) = schedule.rotary(scales.clone(), self.config.head_dim(), self.device())?;
        let (first, end) = (schedule.before(scales.start), schedule.before(scales.end));
        let spans = schedule.spans()[first..end].to_vec();
        let seen = match own_kernels(&self.start) {
            true => None,
            false => Seen::new(&spans, 1, end, self.device())?,
        };
        let (text_spans, text_seen) = (texts.spans(end - first), texts.seen()?);
        Ok(Context {
            config: &self.config,
            texts: texts.clone(),
            cos,
            sin,
            spans,
            seen,
            text_spans,
            text_seen,
            drops: None,
            stop: Control::default(),
        })
    }

    /// What goes into a block for what came out of the one before it.
    pub fn input(&self, x: Tensor, index: usize, schedule: &Schedule) -> Result<Tensor> {
        self.with_levels(x, index, schedule, 0..schedule.scales().len())
    }

    /// Logits of the last block's result: two for each bit, [B, T, 2 bits].
    pub fn logits(&self, x: &Tensor, texts: &Texts) -> Result<Tensor> {
        let (factor, summand) = self.head_norm(texts)?;
        self.head.forward(&ops::layer_norm(x, &factor, &summand, EPS)?)
    }

    fn head_norm(&self, texts: &Texts) -> Result<(Tensor, Tensor)> {
        let half = |i: usize| texts.head.narrow(1, i, 1)?.squeeze(1)?.contiguous();
        Ok(((half(0)? + 1.0)?, half(1)?))
    }

    /// The gradient of x for the gradient `g` of [`Transformer::logits`]; what goes to the texts is added to `to` if `texts_wanted`.
    pub fn logits_backward(
        &self,
        g: &Tensor,
        x: &Tensor,
        texts: &Texts,
        texts_wanted: bool,
        to: &mut TextGradients,
    ) -> Result<Tensor> {
        let g = self.head.back(g, None)?;
        let (dx, sums) = ops::layer_norm_backward(&g, x, &self.head_norm(texts)?.0, EPS, texts_wanted)?;
        if let Some((factor, summand)) = sums {
            to.head = (&to.head + Tensor::stack(&[factor, summand], 1)?)?;
        }
        Ok(dx)
    }

    /// What the gradient of the sequence gives to the texts: its first token's.
    pub fn sequence_backward(&self, g: &Tensor, to: &mut TextGradients) -> Result<()> {
        to.pooled = (&to.pooled + g.narrow(1, 0, 1)?.squeeze(1)?)?;
        Ok(())
    }

    /// Logits of all scales at once, each seeing those before it: [B, T, 2 bits].
    pub fn forward(&self, texts: &Texts, inputs: &Tensor, schedule: &Schedule, stop: &Control) -> Result<Tensor> {
        together(self.device(), || {
            let mut context = self.context(texts, schedule, 0..schedule.scales().len())?;
            context.stop = stop.clone();
            let mut x = self.sequence(texts, inputs)?;
            for index in 0..self.depth() {
                x = self.layer(index).forward(&self.input(x, index, schedule)?, &context, None, false)?.0;
            }
            self.logits(&x, texts)
        })
    }

    /// Room for the keys and values of all scales but the last.
    pub fn new_cache(&self, rows: usize, schedule: &Schedule) -> Result<Cache> {
        let slots = schedule.before(schedule.scales().len() - 1).max(1);
        let layer = |index| self.layer(index).new_cache(rows, slots, &self.config);
        Ok(Cache { layers: (0..self.depth()).map(layer).collect::<Result<_>>()?, filled: 0 })
    }

    /// Logits of the next scale, [B, cells, 2 bits], from what is drawn so far: none before the first, else [B, cells, bits].
    pub fn next(
        &self,
        texts: &Texts,
        inputs: Option<&Tensor>,
        scale: usize,
        schedule: &Schedule,
        cache: &mut Cache,
        stop: &Control,
    ) -> Result<Tensor> {
        if cache.filled != schedule.before(scale) {
            return Err(Error::internal("scales are drawn one after the other"));
        }
        let mut context = self.context(texts, schedule, scale..scale + 1)?;
        context.stop = stop.clone();
        let logits = self.scale(inputs, scale, schedule, &context, Some(cache))?;
        cache.filled += schedule.cells(scale);
        Ok(logits)
    }

    /// As [`Transformer::next`] for a scale that sees itself alone, at the positions of the sequence's first cells: so
    /// ARBooth's teacher predicts.
    pub fn apart(
        &self,
        texts: &Texts,
        inputs: Option<&Tensor>,
        scale: usize,
        schedule: &Schedule,
        stop: &Control,
    ) -> Result<Tensor> {
        let cells = schedule.cells(scale);
        let mut context = self.context(texts, schedule, scale..scale + 1)?;
        let (cos, sin) = schedule.rotary(0..scale + 1, self.config.head_dim(), self.device())?;
        (context.cos, context.sin) = (cos.narrow(0, 0, cells)?, sin.narrow(0, 0, cells)?);
        context.spans = vec![(0, cells as u32); cells];
        context.stop = stop.clone();
        self.scale(inputs, scale, schedule, &context, None)
    }

    /// Logits of one scale.
    fn scale(
        &self,
        inputs: Option<&Tensor>,
        scale: usize,
        schedule: &Schedule,
        context: &Context,
        mut cache: Option<&mut Cache>,
    ) -> Result<Tensor> {
        together(self.device(), || {
            let mut x = match inputs {
                Some(inputs) => self.embed(inputs)?,
                None => self.first(&context.texts)?,
            };
            let last = scale + 1 == schedule.scales().len();
            for index in 0..self.depth() {
                x = self.with_levels(x, index, schedule, scale..scale + 1)?;
                let filling =
                    cache.as_deref_mut().map(|c| Filling { cache: &mut c.layers[index], filled: c.filled, last });
                x = self.layer(index).forward(&x, context, filling, false)?.0;
            }
            self.logits(&x, &context.texts)
        })
    }
}
