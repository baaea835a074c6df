//! How much memory each phase of the work takes, said before any of it is taken.
//!
//! Numbers are peaks: what the phase holds at its worst moment, the model's weights included. On the CPU they are checked
//! against what is really allocated (`tests/memory.rs`); for a GPU they are derived in the same way.

use crate::model::footprint::{Drawn, F32};
use crate::model::outline::{bytes, Outline};
use crate::personalize::passes::SMALL;
use crate::personalize::{Adaptation, Method, OptimizerDevice, Options, Recompute, StateFormat};
use crate::sample;
use crate::{Error, Result};
use serde::Serialize;

/// Peaks of the phases of a work, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// The opened model: transformer and image tokenizer.
    pub weights: u64,
    /// Turning a picture into tokens.
    pub encode: u64,
    /// Turning tokens into a picture.
    pub decode: u64,
    /// Drawing tokens.
    pub sample: u64,
    /// Training stage 1.
    pub embedding: u64,
    /// Training stage 2.
    pub layers: u64,
    /// Of `layers`, what is in the memory of the host when the model is on a GPU: values, optimizer states and gradients.
    pub layers_host: u64,
    /// Memory that the device could still give, if that is known.
    pub free: Option<u64>,
}

/// What a phase needs, for [`Estimate::of`].
pub struct Request<'a> {
    pub sample: &'a sample::Options,
    /// Prompts drawn in one batch.
    pub prompts: u64,
    pub train: &'a Options,
}

impl Estimate {
    pub fn of(outline: &Outline, request: &Request) -> Self {
        let Request { sample, prompts, train } = request;
        let weights = outline.footprint.weights(&outline.at);
        let side = u128::from(train.image_size);
        let (footprint, at) = (&outline.footprint, &outline.at);
        let optimizer_device = optimizer_device(outline, train);
        let train = &Options { optimizer_device, ..(*train).clone() };
        let training = Training { outline, options: train };
        let layers = training.layers();
        Estimate {
            weights: bytes(weights),
            encode: bytes(weights + footprint.encoding(side * side, at)),
            decode: bytes(weights + footprint.decoding(u128::from(sample.width) * u128::from(sample.height), at)),
            sample: bytes(weights).saturating_add(sample::memory::needed(outline, sample, *prompts)),
            embedding: bytes(weights + training.passes(outline.footprint.layers(), 0, 0)),
            layers: bytes(weights + layers.device + if outline.at.on_gpu { 0 } else { layers.host }),
            layers_host: if outline.at.on_gpu { bytes(layers.host) } else { 0 },
            free: outline.free,
        }
    }

    /// The largest of the peaks of a training with these options.
    pub fn training(&self, options: &Options) -> u64 {
        let stages = [(options.embedding_steps, self.embedding), (options.layer_steps, self.layers)];
        let worst = stages.into_iter().filter(|(steps, _)| *steps > 0).map(|(_, bytes)| bytes).max();
        worst.unwrap_or(0).max(self.encode)
    }
}

/// Where the optimizer of a training is to be: what the options say, for `auto` the device if it is a GPU on which that fits.
pub fn optimizer_device(outline: &Outline, options: &Options) -> OptimizerDevice {
    match options.optimizer_device {
        OptimizerDevice::Auto if outline.at.on_gpu && options.fits_device() => {
            let there = Options { optimizer_device: OptimizerDevice::Device, ..options.clone() };
            let sample = sample::Options::default();
            let estimate = Estimate::of(outline, &Request { sample: &sample, prompts: 1, train: &there });
            let needed = estimate.training(&there) - if outline.opened { estimate.weights } else { 0 };
            match outline.free {
                Some(free) if needed <= free => OptimizerDevice::Device,
                _ => OptimizerDevice::Host,
            }
        }
        OptimizerDevice::Auto => OptimizerDevice::Host,
        chosen => chosen,
    }
}

/// Errors if a training would not fit what is free, with the cheapest change that would.
pub fn check_training(outline: &Outline, options: &Options) -> Result<()> {
    let sample = sample::Options::recommended(&outline.recommended)?;
    let needed = |o: &Options| {
        let estimate = Estimate::of(outline, &Request { sample: &sample, prompts: 1, train: o });
        estimate.training(o) - if outline.opened { estimate.weights } else { 0 }
    };
    let Some(free) = outline.free else { return Ok(()) };
    let now = needed(options);
    if now <= free {
        return Ok(());
    }
    // From what costs nothing but time to what changes the result.
    let mut lean = options.clone();
    let mut changes: Vec<&str> = vec![];
    type Step = (&'static str, fn(&mut Options));
    let steps: [Step; 5] = [
        ("recompute = always", |o| o.recompute = Recompute::Always),
        ("keep_gradients = false", |o| o.keep_gradients = false),
        ("optimizer_state = int8", |o| o.optimizer_state = StateFormat::Int8),
        ("master_weights = false", |o| o.master_weights = false),
        ("adaptation = low_rank", |o| o.adaptation = Adaptation::LowRank),
    ];
    let mut advice = None;
    for (name, change) in steps {
        let before = lean.clone();
        change(&mut lean);
        if lean == before {
            continue;
        }
        changes.push(name);
        if needed(&lean) <= free {
            advice = Some(format!("set {}", changes.join(", ")));
            break;
        }
    }
    let advice = advice.or_else(|| {
        let narrow = Options { layer_steps: 0, recompute: Recompute::Always, ..options.clone() };
        (needed(&narrow) <= free)
            .then(|| format!("train the embedding stage alone (method {})", Method::TextualInversion.name()))
    });
    Err(Error::OutOfMemory { what: "training".into(), needed: now, free, advice })
}

/// What a stage holds beside the model's weights.
struct Held {
    /// On the device.
    device: u128,
    /// Of what learns: values, optimizer states and gradients.
    host: u128,
}

/// A training, as far as memory goes.
struct Training<'a> {
    outline: &'a Outline,
    options: &'a Options,
}

impl Training<'_> {
    /// Of a step. Where the class has an update of its own its pictures come behind the subject's.
    fn pictures(&self) -> u128 {
        u128::from(self.options.batch_size) * if self.options.draws_class() { 2 } else { 1 }
    }

    /// Forward and backward passes without values and states of what learns. `trained` layers go backward; `before` and `after` are the
    /// bytes of gradients that lie there when the loss is computed, and when the last layer has gone backward.
    fn passes(&self, trained: usize, before: u128, after: u128) -> u128 {
        let (Outline { footprint, at, .. }, options) = (self.outline, self.options);
        let (side, trained) = (u128::from(options.image_size), trained as u128);
        let tokens = footprint.tokens(side, side);
        let pictures = self.pictures();
        let (h, size, all) = (footprint.hidden(), footprint.state(at), tokens * pictures);
        let kept = footprint.kept(all, at);
        let recompute = options.recompute.decide(trained, kept, self.outline.free.map(u128::from));
        let memory = if recompute { (trained + 1) * all * h * size } else { trained * kept };
        // Small groups go side by side.
        let group = match at.on_gpu && !footprint.apart() {
            true => all.div_ceil(u128::from(options.accumulation.max(1))),
            false => tokens,
        };
        let beside = match !at.on_gpu && tokens * h <= SMALL as u128 {
            true => pictures.min(rayon::current_num_threads() as u128),
            false => 1,
        };
        let layer = beside * footprint.backward(group, at);
        memory + (after + layer).max(before + footprint.loss(group, at)) + all * h * size
    }

    /// What the untouched model takes to draw a picture to be learned from.
    fn teacher(&self) -> u128 {
        if !self.options.distils() {
            return 0;
        }
        let side = u128::from(self.options.image_size);
        let drawn = Drawn { width: side, height: side, prompts: 1, pictures: 1, guided: false, places: 1, noise: 0 };
        self.outline.footprint.drawing(&drawn, &self.outline.at)
    }

    /// Of the layers stage.
    fn layers(&self) -> Held {
        let (Outline { footprint, at, .. }, options) = (self.outline, self.options);
        let depth = footprint.layers();
        let trained = options.trained_layers(depth);
        let (mut values, mut numbers) = (0, 0);
        let mut of_layers = vec![0; depth];
        let (mut lowest, mut head) = (depth, false);
        for spec in footprint.specs().iter().filter(|spec| options.learns(spec)) {
            let Some(layer) = spec.layer.filter(|layer| trained.contains(layer)) else { continue };
            lowest = lowest.min(layer);
            let (n, vector) = match (options.is_low_rank(), &*spec.dims) {
                (true, &[out, inner]) => {
                    let rank = (options.lora_rank as usize).min(out).min(inner);
                    ((rank * (out + inner)) as u128, true)
                }
                _ => (spec.numbers() as u128, !spec.linear),
            };
            let master = if options.master_weights || vector { F32 } else { at.dense() };
            values += n * master;
            numbers += n;
            of_layers[layer] += n;
            head |= spec.roles.contains(&"head");
        }
        let backward = if options.train_embedding_in_layer_stage { depth } else { depth - lowest };
        let largest = of_layers.iter().copied().max().unwrap_or(0);
        let states = options.optimizer_state.bytes(numbers);
        let kept = options.clip_norm > 0.0 && options.keep_gradients;
        let gradients = F32 * if kept { numbers } else { largest };
        // Those of a layer land while what the layer before it left there is used.
        let landed = if kept { gradients } else { gradients + F32 * largest };
        let copies = if at.on_gpu { numbers * at.dense() + F32 * largest } else { 0 };
        // The first picture's loss is computed before there is a gradient, that of the next beside the gradients so far. A head that
        // learns makes its logits once more, when the last layer has its gradients.
        let before = match kept && self.pictures() > 1 {
            true => gradients,
            false if head => F32 * of_layers[depth - 1],
            false => 0,
        };
        let passes = |before, after| self.passes(backward, before, after).max(self.teacher());
        match (at.on_gpu, options.on_device()) {
            // Gradients come as what was kept for them goes. An update makes nothing besides.
            (true, true) => {
                let later = gradients + self.passes(0, 0, 0);
                Held { device: values + states + copies + passes(0, 0).max(later), host: 0 }
            }
            (true, false) => Held { device: passes(0, 0) + copies, host: values + states + landed },
            (false, _) => Held { device: passes(before, gradients), host: values + states },
        }
    }
}
