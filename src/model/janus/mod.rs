//! The Janus-Pro family, its half that makes pictures: a Llama transformer that reads words from its vocabulary and codes through
//! an aligner, and predicts codes by a head of its own. Pictures have one size.

mod config;
mod drawing;
mod footprint;
mod names;
mod open;
mod pass;
mod perceptron;
mod prompt;

pub use open::ENTRY;

use super::family::{Condition, Example, Facts, Family, Mode, Pass, Piece, Prediction};
use super::footprint::Footprint;
use super::llama::Transformer;
use super::vqgan::Vqgan;
use super::words::Word;
use crate::picture::{Crop, Picture};
use crate::run::Run;
use crate::tokens::{Beside, Tokens};
use crate::weights::Weights;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use perceptron::Perceptron;
use prompt::Prompts;
use std::sync::Arc;

/// Both licences that are given for the published weights.
const LICENCE: &str =
    "DeepSeek Model License 1.0 (LICENSE-MODEL of the code's repository; its restrictions of use hold for \
                       whoever gets what was made from the weights); the model's page says MIT";

/// An opened model. A clone shares everything.
#[derive(Clone)]
struct Janus {
    /// Behind the layers' weights are the head's and the aligner's.
    transformer: Transformer,
    /// The vectors of codes, which the aligner takes: [codes, a few].
    code_vectors: Tensor,
    prompts: Arc<Prompts>,
    vqgan: Arc<Vqgan>,
    footprint: Arc<footprint::JanusFootprint>,
    facts: Facts,
}

impl Janus {
    /// From states behind the last norm to logits of codes.
    fn head(&self) -> Perceptron<'_> {
        Perceptron::new(&self.transformer.weights, names::head(&self.transformer.shape))
    }

    /// From the vectors of codes to input embeddings.
    fn aligner(&self) -> Perceptron<'_> {
        Perceptron::new(&self.transformer.weights, names::aligner(&self.transformer.shape))
    }

    /// Codes along each side of a picture.
    fn side(&self) -> u32 {
        self.facts.unit / self.facts.patch
    }

    fn check_size(&self, field: &str, pixels: u32) -> Result<()> {
        let side = self.facts.unit;
        match pixels == side {
            true => Ok(()),
            false => {
                Err(Error::invalid(field, format!("is {pixels}; this model knows pictures of {side} x {side} only")))
            }
        }
    }

    fn check_codes(&self, tokens: &Tokens) -> Result<()> {
        let codes = self.facts.codebook;
        match tokens.codes().iter().find(|&&code| code as usize >= codes) {
            None => Ok(()),
            Some(code) => {
                Err(Error::invalid("tokens", format!("code {code} is not one of the {codes} of the codebook")))
            }
        }
    }
}

impl Family for Janus {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn licence(&self) -> Option<&'static str> {
        Some(LICENCE)
    }

    fn device(&self) -> &Device {
        self.transformer.device()
    }

    fn footprint(&self) -> Arc<dyn Footprint> {
        self.footprint.clone()
    }

    fn dtype(&self) -> DType {
        self.transformer.dtype()
    }

    fn weights(&self) -> &Weights {
        &self.transformer.weights
    }

    fn with(&self, weights: Weights) -> Arc<dyn Family> {
        let transformer = Transformer { weights, ..self.transformer.clone() };
        Arc::new(Janus { transformer, ..self.clone() })
    }

    fn grid(&self, width: u32, height: u32) -> Result<(u32, u32)> {
        self.check_size("width", width)?;
        self.check_size("height", height)?;
        Ok((self.side(), self.side()))
    }

    fn pixels(&self, tokens: &Tokens) -> (u32, u32) {
        (tokens.width() * self.facts.patch, tokens.height() * self.facts.patch)
    }

    fn check_target(&self, target: u32) -> Result<()> {
        self.check_size("image_size", target)
    }

    /// The shorter side brought to the model's size, the longer one cropped.
    fn fit(&self, picture: &Picture, target: u32, crop: Crop) -> Result<Picture> {
        self.check_target(target)?;
        picture.fit(target, self.facts.unit, crop)
    }

    fn encode(&self, picture: &Picture, run: &Run) -> Result<Tokens> {
        self.grid(picture.width(), picture.height())?;
        self.vqgan.encode_one(picture, run)
    }

    /// The picture of a grid of tokens, or of the rows of one that are there.
    fn decode(&self, tokens: &Tokens, run: &Run) -> Result<Picture> {
        let (height, width, side) = (tokens.height(), tokens.width(), self.side());
        if height.max(width) > side {
            let message = format!("a grid of {height} x {width} codes; at most {side} are decoded along a side");
            return Err(Error::invalid("tokens", message));
        }
        self.vqgan.decode_one(tokens, run)
    }

    fn condition(&self, prompt: &str, words: &[Word], _: u32, _: u32) -> Result<Condition> {
        self.prompts.condition(prompt, words)
    }

    fn frame(&self) -> &'static [&'static str] {
        &prompt::FRAME
    }

    fn knows(&self, word: &str) -> Result<bool> {
        self.prompts.knows(word)
    }

    /// As many pieces, all but the first and the last of them the word for padding: what the model was trained with.
    fn unguided(&self, of: &Condition) -> Result<Condition> {
        Ok(self.prompts.unguided(of))
    }

    fn word_rows(&self, text: &str) -> Result<Tensor> {
        self.transformer.word_rows(text, self.prompts.inside(text.trim())?, self.prompts.unknown())
    }

    fn usual_size(&self, texts: &[String]) -> Result<f32> {
        let mut ids = Vec::new();
        for text in texts {
            ids.extend(self.prompts.inside(text)?);
        }
        self.transformer.usual_size(ids)
    }

    /// A picture behind its prompt. All its codes are labelled, the first of them by what the last piece of the prompt predicts.
    fn example(&self, condition: &Condition, tokens: &Tokens) -> Result<Example> {
        let (height, width, side) = (tokens.height(), tokens.width(), self.side());
        if (height, width) != (side, side) {
            let message = format!("a grid of {height} x {width} codes; this model knows {side} x {side} only");
            return Err(Error::invalid("tokens", message));
        }
        self.check_codes(tokens)?;
        let codes = tokens.codes().iter().copied().map(Piece::Code);
        let pieces: Vec<Piece> = condition.pieces.iter().copied().chain(codes).collect();
        let labelled = condition.pieces.len().max(1)..pieces.len();
        // Without a prompt nothing predicts the first code.
        let first = labelled.start - condition.pieces.len();
        let learned = Beside(tokens.shown().0.as_ref().map(|shown| shown[first..].to_vec().into()));
        Ok(Example { labelled, pieces, learned, ..Default::default() })
    }

    fn pass<'a>(
        &'a self,
        group: &[(&Example, f32)],
        vectors: Option<&Tensor>,
        how: &Mode,
    ) -> Result<Box<dyn Pass + 'a>> {
        Ok(Box::new(pass::JanusPass::new(self, group, vectors, how)?))
    }

    fn prediction(&self) -> Prediction<'_> {
        Prediction::NextToken(self)
    }
}
