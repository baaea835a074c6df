//! How much memory a Chameleon transformer and its image tokenizer take.

use super::config::Config;
use super::transformer::{self, HEAD};
use crate::model::footprint::{convolved, Drawn, Footprint, Place, F32};
use crate::model::llama::{Shape, CHUNK};
use crate::model::vqgan;
use crate::weights::Spec;

/// Tokens of a usual prompt with the question around it.
const PROMPT: u128 = 48;

pub struct LuminaFootprint {
    config: Config,
    shape: Shape,
    vqgan: vqgan::Config,
    /// Numbers in the image tokenizer.
    vqgan_numbers: u64,
    specs: Vec<Spec>,
}

impl LuminaFootprint {
    pub fn new(config: &Config, vqgan: &vqgan::Config, vqgan_numbers: u64) -> Self {
        let specs = transformer::specs(config);
        LuminaFootprint { config: config.clone(), shape: config.shape(), vqgan: vqgan.clone(), vqgan_numbers, specs }
    }
}

impl Footprint for LuminaFootprint {
    fn specs(&self) -> &[Spec] {
        &self.specs
    }

    fn layers(&self) -> usize {
        self.config.layers
    }

    fn codebook(&self) -> (usize, u32) {
        (self.vqgan.n_embed, self.vqgan.downsampling())
    }

    fn weights(&self, at: &Place) -> u128 {
        let (h, v) = (self.hidden(), self.config.vocab_size as u128);
        let bytes = |spec: &Spec| {
            let numbers = spec.numbers() as u128;
            match (spec.linear, spec.name == HEAD) {
                (true, true) if self.config.tie_word_embeddings => 0,
                (true, true) => at.format.head().bytes(numbers, spec.dims[1]),
                (true, false) => at.format.bytes(numbers, spec.dims[1]),
                (false, _) => numbers * at.activation(),
            }
        };
        let named: u128 = self.specs.iter().map(bytes).sum();
        at.scratch() + v * h * at.dense() + named + h * F32 + F32 * u128::from(self.vqgan_numbers)
    }

    fn encoding(&self, pixels: u128, at: &Place) -> u128 {
        convolved(pixels, self.vqgan.ch, at)
    }

    fn drawing(&self, drawn: &Drawn, at: &Place) -> u128 {
        let rows = drawn.pictures * if drawn.guided { 2 } else { 1 };
        let read = drawn.prompts + u128::from(drawn.guided);
        let slots = self.tokens(drawn.width, drawn.height) - 2 + drawn.places - 1;
        // The prompts are read into a cache of their own; that of the pictures begins with copies of it.
        let prefix = self.shape.cache(read, PROMPT + 3, at);
        let reading = prefix + read * self.backward(PROMPT, at);
        let codes = self.vqgan.n_embed as u128;
        let head = codes * F32 * (drawn.places * at.drawn(rows, drawn.pictures) + drawn.pictures * drawn.noise);
        reading.max(self.shape.cache(rows, slots, at) + head + prefix.max(self.backward(rows * drawn.places, at)))
    }

    fn tokens(&self, width: u128, height: u128) -> u128 {
        let patch = u128::from(self.vqgan.downsampling());
        let (w, h) = (width / patch, height / patch);
        PROMPT + 3 + h * (w + 1) + 2
    }

    fn hidden(&self) -> u128 {
        self.config.hidden_size as u128
    }

    fn kept(&self, tokens: u128, at: &Place) -> u128 {
        self.shape.kept(tokens, at)
    }

    fn backward(&self, tokens: u128, at: &Place) -> u128 {
        self.shape.backward(tokens, at)
    }

    fn loss(&self, tokens: u128, at: &Place) -> u128 {
        // Logits of some rows; hidden states that are looked at, their norm and the gradients of both, in pieces and whole.
        let (h, v) = (self.hidden(), self.config.vocab_size as u128);
        (CHUNK as u128).min(tokens) * v * F32 * at.logits() + tokens * h * at.activation() * 5
    }
}
