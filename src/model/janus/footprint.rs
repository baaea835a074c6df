//! How much memory a Janus model takes, as far as making pictures goes.

use super::config::Config;
use super::names;
use crate::model::footprint::{convolved, Drawn, Footprint, Place, F32};
use crate::model::llama::CHUNK;
use crate::weights::Spec;

/// Tokens of a usual prompt with the template around it.
const PROMPT: u128 = 40;

pub struct JanusFootprint {
    config: Config,
    /// Numbers in the image tokenizer.
    vq_numbers: u64,
    specs: Vec<Spec>,
}

impl JanusFootprint {
    pub fn new(config: &Config, vq_numbers: u64) -> Self {
        JanusFootprint { config: config.clone(), vq_numbers, specs: config.specs() }
    }
}

impl Footprint for JanusFootprint {
    fn specs(&self) -> &[Spec] {
        &self.specs
    }

    fn layers(&self) -> usize {
        self.config.shape.layers
    }

    fn codebook(&self) -> (usize, u32) {
        (self.config.codes, self.config.vq.downsampling())
    }

    fn weights(&self, at: &Place) -> u128 {
        let Config { shape, codes, code_width, .. } = &self.config;
        let (head, aligner) = (names::head(shape), names::aligner(shape));
        let bytes = |(id, spec): (usize, &Spec)| {
            let numbers = spec.numbers() as u128;
            match spec.linear {
                true if (head..aligner).contains(&id) => at.format.head().bytes(numbers, spec.dims[1]),
                true => at.format.bytes(numbers, spec.dims[1]),
                false => numbers * at.activation(),
            }
        };
        let named: u128 = self.specs.iter().enumerate().map(bytes).sum();
        let tables = (shape.vocabulary * shape.hidden) as u128 * at.dense();
        let small = (codes * code_width + shape.hidden) as u128 * at.activation();
        at.scratch() + named + tables + small + F32 * u128::from(self.vq_numbers)
    }

    fn encoding(&self, pixels: u128, at: &Place) -> u128 {
        convolved(pixels, self.config.vq.ch, at)
    }

    fn drawing(&self, drawn: &Drawn, at: &Place) -> u128 {
        let shape = &self.config.shape;
        let branches = if drawn.guided { 2 } else { 1 };
        let (rows, read) = (drawn.pictures * branches, drawn.prompts * branches);
        let slots = self.tokens(drawn.width, drawn.height) + drawn.places - 1;
        // The prompts are read into a cache of their own; that of the pictures begins with copies of it.
        let prefix = shape.cache(read, PROMPT, at);
        let reading = prefix + self.backward(read * PROMPT, at);
        let codes = self.config.codes as u128;
        let head = codes * F32 * (drawn.places * at.drawn(rows, drawn.pictures) + drawn.pictures * drawn.noise);
        reading.max(shape.cache(rows, slots, at) + head + prefix.max(self.backward(rows * drawn.places, at)))
    }

    fn tokens(&self, width: u128, height: u128) -> u128 {
        let patch = u128::from(self.config.vq.downsampling());
        PROMPT + (width / patch) * (height / patch)
    }

    fn hidden(&self) -> u128 {
        self.config.shape.hidden as u128
    }

    fn kept(&self, tokens: u128, at: &Place) -> u128 {
        self.config.shape.kept(tokens, at)
    }

    fn backward(&self, tokens: u128, at: &Place) -> u128 {
        self.config.shape.backward(tokens, at)
    }

    fn loss(&self, tokens: u128, at: &Place) -> u128 {
        // Logits of some rows and what the head makes on the way; hidden states that are looked at, their norm and the gradients
        // of both, in pieces and whole, and what is kept of them for the head.
        let chunk = (CHUNK as u128).min(tokens);
        let middle = self.config.head_width as u128;
        let codes = self.config.codes as u128;
        chunk * (at.logits().max(2) * codes * F32 + 4 * middle * at.activation())
            + tokens * self.hidden() * at.activation() * 6
    }
}
