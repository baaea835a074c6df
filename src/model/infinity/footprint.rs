//! How much memory a model takes.

use super::config::Config;
use super::names;
use super::schedule::Schedule;
use super::t5;
use super::vae;
use crate::model::footprint::{convolved, Drawn, Footprint, Place, F32};
use crate::ops::SCORES;
use crate::weights::Spec;

/// Tokens of a usual prompt.
const PROMPT: u128 = 32;

pub struct InfinityFootprint {
    config: Config,
    vae: vae::Shape,
    vae_numbers: u64,
    text: t5::Sizes,
    /// Whether the text encoder stays in memory.
    keeps_text: bool,
    specs: Vec<Spec>,
}

impl InfinityFootprint {
    pub fn new(config: &Config, vae: &vae::Shape, vae_numbers: u64, text: t5::Sizes, keeps_text: bool) -> Self {
        let specs = (0..config.blocks.len()).flat_map(|index| names::specs(config, index)).collect();
        InfinityFootprint { config: config.clone(), vae: vae.clone(), vae_numbers, text, keeps_text, specs }
    }

    /// Cells of all scales and of all but the last, for a picture of so many pixels; of a size that the model does not know, about
    /// as many as it would have.
    fn cells(&self, width: u128, height: u128) -> (u128, u128) {
        let side = self.vae.stride() * if self.config.bits == self.vae.d { 1 } else { 2 };
        let pixels = (u32::try_from(width).unwrap_or(u32::MAX), u32::try_from(height).unwrap_or(u32::MAX));
        match Schedule::of_size(pixels.0, pixels.1, side) {
            Ok(schedule) => (schedule.total() as u128, schedule.before(schedule.scales().len() - 1) as u128),
            Err(_) => {
                let last = (width / u128::from(side)) * (height / u128::from(side));
                (last * 27 / 10, last * 17 / 10)
            }
        }
    }

    /// The text encoder.
    fn text(&self, at: &Place) -> u128 {
        at.format.bytes(self.text.numbers.into(), self.text.longest)
            + (self.text.rows * self.text.width) as u128 * at.dense()
    }

    fn rest(&self) -> u128 {
        let c = &self.config;
        let named: u128 = self.specs.iter().map(|spec| spec.numbers() as u128).sum();
        (u128::from(c.parameters()) - named) * F32
    }
}

impl Footprint for InfinityFootprint {
    fn specs(&self) -> &[Spec] {
        &self.specs
    }

    fn layers(&self) -> usize {
        self.config.blocks.len()
    }

    fn codebook(&self) -> (usize, u32) {
        ((1u64 << self.vae.d).min(u64::from(u32::MAX)) as usize, self.vae.stride())
    }

    fn weights(&self, at: &Place) -> u128 {
        let bytes = |spec: &Spec| match spec.linear {
            true => at.format.bytes(spec.numbers() as u128, spec.dims[1]),
            false => spec.numbers() as u128 * F32,
        };
        let named: u128 = self.specs.iter().map(bytes).sum();
        let text = if self.keeps_text { self.text(at) } else { 0 };
        at.scratch() + named + self.rest() + F32 * u128::from(self.vae_numbers) + text
    }

    fn encoding(&self, pixels: u128, at: &Place) -> u128 {
        convolved(pixels, self.vae.levels[0].max(self.vae.base), at)
    }

    /// The second level comes with its channels to full resolution, which the kernels of the CPU read as it is.
    fn decoding(&self, pixels: u128, at: &Place) -> u128 {
        match (at.on_gpu, self.vae.levels.get(1)) {
            (true, Some(&second)) => convolved(pixels, second.max(self.vae.levels[0]), at),
            _ => self.encoding(pixels, at),
        }
    }

    fn apart(&self) -> bool {
        true
    }

    fn state(&self, _: &Place) -> u128 {
        F32
    }

    fn drawing(&self, drawn: &Drawn, at: &Place) -> u128 {
        let rows = drawn.pictures * if drawn.guided { 2 } else { 1 };
        let (total, before) = self.cells(drawn.width, drawn.height);
        let c = self.hidden();
        let layers = self.config.blocks.len() as u128;
        // Keys and values of all scales but the last, in every block; of the block that is at work, of all.
        let cache = rows * 2 * c * at.dense() * (layers * before + total);
        let last = rows * (total - before);
        // Scores of a block of queries and their probabilities, in the dtype of the cache.
        let scores = (rows * self.config.heads as u128 * (total - before) * total).min(SCORES as u128);
        let hidden = self.config.hidden as u128;
        let states = match at.on_gpu {
            true => (last * 6 * c * F32 + 2 * scores * at.dense()).max(last * (4 * c + hidden * 5 / 2) * F32),
            false => last * (6 * c + hidden * 2) * F32,
        };
        let drawing = cache + states + rows * layers * 2 * PROMPT * c * at.dense();
        // One that does not stay is gone before the pictures are begun.
        if self.keeps_text {
            drawing
        } else {
            drawing.max(self.text(at))
        }
    }

    fn tokens(&self, width: u128, height: u128) -> u128 {
        self.cells(width, height).0
    }

    fn hidden(&self) -> u128 {
        self.config.width as u128
    }

    fn kept(&self, tokens: u128, at: &Place) -> u128 {
        // Input; queries, keys and values before their turn; what both attentions mixed and the first gave; middle and after;
        // cross-attention's queries; the MLP before its activation and what it gave.
        let c = self.hidden();
        // On a GPU all of it is f32.
        let size = if at.on_gpu { F32 } else { at.dense() };
        tokens * (size * (12 * c + self.config.hidden as u128) + 8 * self.config.heads as u128)
    }

    fn backward(&self, tokens: u128, at: &Place) -> u128 {
        let (c, h) = (self.hidden(), self.config.hidden as u128);
        let heads = self.config.heads as u128;
        // Of a block of queries: scores, probabilities and the gradients of both; and what lies head by head, with its gradients.
        let scores = (tokens * tokens * heads).min((tokens * heads).max(SCORES as u128));
        // By then what the MLP and cross-attention need is gone.
        let attention = if at.on_gpu { scores * 3 * F32 + tokens * 16 * c * F32 } else { 0 };
        let rounded = !at.on_gpu && at.dense() < F32;
        // What is kept, the widest state of the MLP, as it was before it was rounded, with its gradient, and what comes and goes.
        let states = 4 * c + if rounded { 2 * h } else { h };
        attention.max(self.kept(tokens, at) + tokens * F32 * states + tokens * heads * F32)
    }

    fn loss(&self, tokens: u128, _at: &Place) -> u128 {
        tokens * F32 * (3 * self.hidden() + 8 * self.config.bits as u128)
    }
}
