//! How much memory each phase of the work takes, said before any of it is taken.
//!
//! Numbers are peaks: what the phase holds at its worst moment, the model's weights included. On the CPU they are checked
//! against what is really allocated (`tests/memory.rs`); for a GPU they are derived in the same way.

use crate::model::lumina::config::Config;
use crate::model::lumina::layer::NAMES;
use crate::model::lumina::loss::CHUNK;
use crate::model::ops::SCORES;
use crate::model::outline::Outline;
use crate::model::weight::Format;
use crate::personalize::{kept_bytes, Method, Options, Recompute, StateFormat, Trainable};
use crate::sample::sequential::positions_at_once;
use crate::sample::{self, Decoding};
use crate::{Error, Result};
use serde::Serialize;

/// Tokens of a usual prompt with the question around it.
const PROMPT: u128 = 48;
/// Bytes of an activation or a gradient on the CPU.
const F32: u128 = 4;

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
        let sizes = Sizes::new(outline);
        let weights = sizes.all_weights(outline, outline.format);
        let (gpu, side) = (!sizes.cpu, u128::from(train.image_size));
        let free = outline.free.map(u128::from);
        let layers = sizes.layers(train, free);
        Estimate {
            weights: bytes(weights),
            encode: bytes(weights + sizes.pixels(outline, side * side)),
            decode: bytes(weights + sizes.pixels(outline, u128::from(sample.width) * u128::from(sample.height))),
            sample: bytes(weights + sizes.sample(sample, u128::from(*prompts))),
            embedding: bytes(weights + sizes.embedding(train, free)),
            layers: bytes(weights + layers.0 + if gpu { 0 } else { layers.1 }),
            layers_host: if gpu { bytes(layers.1) } else { 0 },
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
        ("method lora", |o| o.trainable = Trainable::Lora),
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

/// Errors if drawing so many pictures would not fit what is free, with the cheapest change that would.
pub fn check_sampling(outline: &Outline, options: &sample::Options, prompts: u64) -> Result<()> {
    let Some(free) = outline.free else { return Ok(()) };
    let sizes = Sizes::new(outline);
    let needed = bytes(sizes.sample(options, prompts.into()));
    if needed <= free {
        return Ok(());
    }
    let count = (1..options.count)
        .rev()
        .find(|&count| bytes(sizes.sample(&sample::Options { count, ..options.clone() }, prompts.into())) <= free);
    let advice = count.map(|count| format!("draw {count} pictures in one call"));
    Err(Error::OutOfMemory { what: "drawing".into(), needed, free, advice })
}

/// Errors if a model would not fit what is free, with a format of the weights that would.
pub fn check_opening(outline: &Outline) -> Result<()> {
    let Some(free) = outline.free else { return Ok(()) };
    let sizes = Sizes::new(outline);
    let needed = |format| bytes(sizes.all_weights(outline, format));
    let now = needed(outline.format);
    if now <= free {
        return Ok(());
    }
    let smaller = Format::ALL.into_iter().find(|&f| needed(f) <= free);
    let advice = smaller.map(|f| format!("open it with dtype {}", f.name()));
    Err(Error::OutOfMemory { what: "the model".into(), needed: now, free, advice })
}

/// Absurd sizes count as more than there can be.
fn bytes(bytes: u128) -> u64 {
    bytes.try_into().unwrap_or(u64::MAX)
}

/// The numbers that memory is counted with.
struct Sizes<'a> {
    config: &'a Config,
    cpu: bool,
    /// Bytes of an activation.
    size: u128,
    /// Codes along a side of a picture for each pixel.
    unit: u128,
    codes: u128,
    /// Bytes of a weight that is not quantised.
    dense: u128,
}

impl<'a> Sizes<'a> {
    fn new(outline: &'a Outline) -> Self {
        let cpu = !outline.on_gpu;
        let dense = outline.format.dense().size_in_bytes() as u128;
        let size = if cpu { F32 } else { dense };
        let unit = u128::from(outline.vqgan.downsampling());
        Sizes { config: &outline.config, cpu, size, unit, codes: outline.vqgan.n_embed as u128, dense }
    }

    fn hidden(&self) -> u128 {
        self.config.hidden_size as u128
    }

    fn kv(&self) -> u128 {
        (self.config.kv_heads * self.config.head_dim) as u128
    }

    fn depth(&self) -> u128 {
        self.config.layers as u128
    }

    /// Numbers of a layer's weight, by number in [`NAMES`], and whether it is a matrix.
    fn numbers(&self, number: usize) -> (u128, bool) {
        let (h, kv, i, d) =
            (self.hidden(), self.kv(), self.config.intermediate_size as u128, self.config.head_dim as u128);
        match number {
            0 | 9 => (h, false),
            1 | 4 => (h * h, true),
            2 | 3 => (h * kv, true),
            5..=8 => (d, false),
            _ => (h * i, true),
        }
    }

    /// Bytes of the transformer in a format, and of the image tokenizer.
    fn all_weights(&self, outline: &Outline, format: Format) -> u128 {
        self.weights(format) + F32 * u128::from(outline.vqgan_numbers)
    }

    /// Bytes of the transformer in a format.
    fn weights(&self, format: Format) -> u128 {
        let (h, v) = (self.hidden(), self.config.vocab_size as u128);
        let dense = format.dense().size_in_bytes() as u128;
        let layer: u128 = (0..NAMES.len())
            .map(|number| match self.numbers(number) {
                (n, false) => n * if self.cpu { F32 } else { dense },
                (n, true) if number == 12 => format.bytes(n, self.config.intermediate_size),
                (n, true) => format.bytes(n, self.config.hidden_size),
            })
            .sum();
        let head =
            if self.config.tie_word_embeddings { 0 } else { format.head().bytes(v * h, self.config.hidden_size) };
        v * h * dense + head + self.depth() * layer + h * F32
    }

    /// Tokens of a picture of so many pixels along each side, with a prompt before it.
    fn tokens(&self, width: u128, height: u128) -> u128 {
        let (w, h) = (width / self.unit, height / self.unit);
        PROMPT + 3 + h * (w + 1) + 2
    }

    fn pixels(&self, outline: &Outline, pixels: u128) -> u128 {
        // Three states at full resolution and the columns of a convolution's tile.
        pixels * outline.vqgan.ch as u128 * F32 * 7 / 2
    }

    fn sample(&self, options: &sample::Options, prompts: u128) -> u128 {
        let guided = options.guidance != 1.0;
        let pictures = prompts * u128::from(options.count);
        let rows = pictures * if guided { 2 } else { 1 };
        let read = prompts + u128::from(guided);
        let width = u128::from(options.width) / self.unit;
        // Places of a pass, and numbers for each code of a picture: noise and where it comes from, or probabilities.
        let (places, noise) = match options.decoding {
            Decoding::Sequential => {
                (1, 2 * positions_at_once(pictures as usize, self.codes as usize, width as usize) as u128)
            }
            Decoding::Speculative => (u128::from(options.window), 8 * u128::from(options.window)),
            Decoding::SpeculativeDistribution => (u128::from(options.window), 12 * u128::from(options.window)),
        };
        let slots = self.tokens(u128::from(options.width), u128::from(options.height)) - 2 + places - 1;
        let cache = |rows: u128, slots: u128| rows * 2 * self.depth() * self.kv() * slots * self.size;
        // The prompts are read into a cache of their own; that of the pictures begins with copies of it.
        let prefix = cache(read, PROMPT + 3);
        let reading = prefix + read * self.layer(PROMPT);
        let head = self.codes * F32 * (places * (3 * rows + pictures) + pictures * noise);
        reading.max(cache(rows, slots) + head + prefix.max(self.layer(rows * places)))
    }

    /// What a layer's backward pass holds for so many tokens, but for the layer's input.
    fn layer(&self, tokens: u128) -> u128 {
        let (h, kv, i) = (self.hidden(), self.kv(), self.config.intermediate_size as u128);
        let swin = if self.config.swin_norm { 2 * h } else { 0 };
        let kept = 4 * h + 3 * kv + 2 * i + swin;
        // With the gradient that comes and the one that goes, and the widest state of the MLP.
        let heads = self.config.heads as u128;
        // On a GPU the scores of some heads are there at once, in bf16 and f32, with their gradients, and norms go through f32.
        let scores = (tokens * tokens * heads).min((tokens * tokens).max(SCORES as u128));
        let whole = if self.cpu { 0 } else { scores * 28 + tokens * h * 24 };
        tokens * ((kept + i + 3 * h) * self.size + F32 * heads) + whole
    }

    /// Forward and backward passes without what learns. `trained` layers go backward.
    fn passes(&self, options: &Options, trained: u128, free: Option<u128>) -> u128 {
        let side = u128::from(options.image_size);
        let tokens = self.tokens(side, side);
        let pictures = u128::from(options.batch_size) * if options.prior_weight > 0.0 { 2 } else { 1 };
        let (h, v) = (self.hidden(), self.config.vocab_size as u128);
        let all = tokens * pictures;
        let kept = kept_bytes(self.config, all, self.size);
        let recompute = options.recompute.decide(trained, kept, free);
        let memory = if recompute { (trained + 1) * all * h * self.size } else { trained * kept };
        // Small groups go side by side.
        let group = if self.cpu { tokens } else { all.div_ceil(u128::from(options.accumulation.max(1))) };
        let beside = match self.cpu && tokens * h <= 1 << 18 {
            true => pictures.min(rayon::current_num_threads() as u128),
            false => 1,
        };
        let layer = beside * self.layer(group);
        // Logits of some rows; hidden states that are looked at, their norm and the gradients of both, in pieces and whole.
        let head = (CHUNK as u128).min(group) * v * F32 + group * h * self.size * 5;
        memory + layer.max(head) + all * h * self.size
    }

    fn embedding(&self, options: &Options, free: Option<u128>) -> u128 {
        self.passes(options, self.depth(), free)
    }

    /// On the device, and of what learns.
    fn layers(&self, options: &Options, free: Option<u128>) -> (u128, u128) {
        let trained = options.trained_layers(self.config.layers);
        let lowest = trained.first().map_or(self.depth(), |&l| l as u128);
        let backward = if options.train_embedding_in_layer_stage { self.depth() } else { self.depth() - lowest };
        let chosen = (0..NAMES.len()).filter(|&n| options.trainable.includes(NAMES[n]));
        let (mut matrices, mut vectors) = (0, 0);
        for number in chosen {
            match (options.trainable, self.numbers(number)) {
                (Trainable::Lora, (n, _)) => {
                    let (h, rank) = (self.hidden(), u128::from(options.lora_rank));
                    vectors += rank.min(h).min(n / h) * (h + n / h);
                }
                (_, (n, true)) => matrices += n,
                (_, (n, false)) => vectors += n,
            }
        }
        let numbers = matrices + vectors;
        let master = if options.master_weights { F32 } else { self.dense };
        let values = matrices * master + vectors * F32;
        let states = options.optimizer_state.bytes(numbers);
        let kept = options.clip_norm > 0.0 && options.keep_gradients;
        let count = trained.len() as u128;
        let gradients = F32 * numbers * if kept { count } else { 1 };
        let copies = if self.cpu { 0 } else { count * numbers * self.dense };
        let one = F32 * numbers;
        (
            self.passes(options, backward, free) + copies + if self.cpu { 0 } else { one },
            count * (values + states) + gradients,
        )
    }
}
