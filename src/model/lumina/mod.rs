//! The Lumina-mGPT family: a Chameleon transformer over text and image tokens in one vocabulary.

pub mod config;
mod drawing;
mod footprint;
pub mod layout;
mod open;
mod pass;
mod transformer;

pub use open::ENTRY;

use super::family::{Condition, Example, Facts, Family, Mode, Pass, Piece, Prediction};
use super::footprint::Footprint;
use super::llama::Transformer;
use super::text::Text;
use super::vqgan::Vqgan;
use super::words::{self, Stretch, Word};
use crate::picture::{crop_sizes, Crop, Picture};
use crate::run::Run;
use crate::tokens::{Beside, Tokens};
use crate::weight::Weight;
use crate::weights::Weights;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use layout::{Layout, LARGEST_GRID};
use std::sync::Arc;

/// The most tokens of a prompt: far more than any model was trained with, and few enough that their attention to each other
/// fits into memory.
const MAX_PROMPT: usize = 4096;

/// What stands before every prompt: around the size of the picture.
const QUESTION: [&str; 2] = ["Generate an image of ", " according to the following prompt:\n"];

/// An opened model. A clone shares everything.
#[derive(Clone)]
struct Lumina {
    transformer: Transformer,
    layout: Arc<Layout>,
    text: Arc<Text>,
    vqgan: Arc<Vqgan>,
    footprint: Arc<footprint::LuminaFootprint>,
    facts: Facts,
    /// The token of each symbol, u32 [codes + 1].
    symbol_tokens: Tensor,
    /// The head's rows for codes, [codes, hidden].
    code_head: Weight,
}

impl Lumina {
    fn new(
        config: &config::Config,
        transformer: Transformer,
        layout: Layout,
        text: Text,
        vqgan: Vqgan,
        footprint: Arc<footprint::LuminaFootprint>,
    ) -> Result<Self> {
        let symbols = [layout.code_tokens(), &[layout.newline]].concat();
        let code_head = head(&transformer).rows(layout.code_tokens())?;
        let facts = Facts {
            parameters: config.parameters(),
            vocabulary: config.vocab_size,
            codebook: layout.code_tokens().len(),
            unit: layout.unit(),
            patch: vqgan.config().downsampling(),
            width: config.hidden_size,
            layers: config.layers,
            can_decode: vqgan.can_decode(),
        };
        Ok(Lumina {
            symbol_tokens: Tensor::new(symbols, transformer.device())?,
            code_head,
            transformer,
            layout: Arc::new(layout),
            text: Arc::new(text),
            vqgan: Arc::new(vqgan),
            footprint,
            facts,
        })
    }

    fn push_text(&self, pieces: &mut Vec<Piece>, text: &str) -> Result<()> {
        pieces.extend(self.text.encode(text)?.into_iter().map(Piece::Token));
        Ok(())
    }

    fn head(&self) -> &Weight {
        head(&self.transformer)
    }
}

/// [vocabulary, hidden]
fn head(transformer: &Transformer) -> &Weight {
    &transformer.weights[transformer.weights.len() - 1].weight
}

impl Family for Lumina {
    fn facts(&self) -> &Facts {
        &self.facts
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
        Arc::new(Lumina { transformer, ..self.clone() })
    }

    fn grid(&self, width: u32, height: u32) -> Result<(u32, u32)> {
        self.layout.grid(width, height)
    }

    fn pixels(&self, tokens: &Tokens) -> (u32, u32) {
        self.layout.pixels(tokens)
    }

    fn check_target(&self, target: u32) -> Result<()> {
        let (unit, largest) = (self.layout.unit(), self.layout.largest_side());
        let wrong = |message: String| Err(Error::invalid("image_size", message));
        if target == 0 || !target.is_multiple_of(unit) {
            return wrong(format!("is {target}; expected a multiple of {unit}, the model's grid unit"));
        }
        if target > largest {
            return wrong(format!("is {target}; the model's pictures have at most {largest} pixels along a side"));
        }
        crop_sizes(target, unit).map(|_| ()).or_else(|e| wrong(e.to_string()))
    }

    fn fit(&self, picture: &Picture, target: u32, crop: Crop) -> Result<Picture> {
        picture.fit(target, self.layout.unit(), crop)
    }

    fn encode(&self, picture: &Picture, run: &Run) -> Result<Tokens> {
        self.layout.grid(picture.width(), picture.height())?;
        self.vqgan.encode_one(picture, run)
    }

    /// The picture of a grid of tokens, which may be larger than any that the model draws, but no larger than its grammar
    /// has words for: 510 codes along a side.
    fn decode(&self, tokens: &Tokens, run: &Run) -> Result<Picture> {
        if tokens.width().max(tokens.height()) > LARGEST_GRID {
            let (height, width) = (tokens.height(), tokens.width());
            let message =
                format!("a grid of {height} x {width} codes; at most {LARGEST_GRID} are decoded along a side");
            return Err(Error::invalid("tokens", message));
        }
        self.vqgan.decode_one(tokens, run)
    }

    /// bos, question, separator.
    fn condition(&self, prompt: &str, words: &[Word], width: u32, height: u32) -> Result<Condition> {
        let [before, behind] = QUESTION;
        let question = format!("{before}{width}x{height}{behind}{prompt}");
        let mut pieces = vec![Piece::Token(self.layout.bos)];
        for stretch in words::split(&question, words)? {
            match stretch {
                Stretch::Text(text) => self.push_text(&mut pieces, text)?,
                Stretch::Word(word) => pieces.extend(word.vectors.clone().map(Piece::Vector)),
            }
        }
        pieces.push(Piece::Token(self.layout.separator));
        match pieces.len() {
            0..=MAX_PROMPT => Ok(Condition { pieces }),
            n => Err(Error::invalid("prompt", format!("has {n} tokens; at most {MAX_PROMPT} are read"))),
        }
    }

    fn frame(&self) -> &'static [&'static str] {
        &QUESTION
    }

    fn knows(&self, word: &str) -> Result<bool> {
        self.text.knows(word)
    }

    /// Nothing: the picture begins at its start token.
    fn unguided(&self, _of: &Condition) -> Result<Condition> {
        Ok(Condition::default())
    }

    fn word_rows(&self, text: &str) -> Result<Tensor> {
        self.transformer.word_rows(text, self.text.encode(text.trim())?, self.text.unknown())
    }

    fn usual_size(&self, texts: &[String]) -> Result<f32> {
        let mut ids = Vec::new();
        for text in texts {
            ids.extend(self.text.encode(text)?);
        }
        self.transformer.usual_size(ids)
    }

    /// A picture behind its prompt, closing separator included: everything behind the prompt is labelled, size tokens, codes,
    /// newlines, image end and separator; of a subject that was cut out only the codes that show it are learned. Without a prompt the picture alone, from its start token to its end token; nothing comes
    /// before the first of them that could predict it.
    fn example(&self, condition: &Condition, tokens: &Tokens) -> Result<Example> {
        let block = self.layout.image_block(tokens)?.into_iter().map(Piece::Token);
        let start = condition.pieces.len();
        let mut pieces = condition.pieces.clone();
        pieces.extend(block);
        if start > 0 {
            pieces.push(Piece::Token(self.layout.separator));
        }
        let labelled = start.max(1)..pieces.len();
        let learned = Beside(tokens.shown().0.as_ref().map(|shown| {
            let mut learned = vec![0.0; pieces.len()];
            for (row, shown) in shown.chunks_exact(tokens.width() as usize).enumerate() {
                let first = start + layout::HEAD + row * (tokens.width() as usize + 1);
                learned[first..first + shown.len()].copy_from_slice(shown);
            }
            learned[labelled.clone()].to_vec().into()
        }));
        Ok(Example { labelled, pieces, learned, ..Default::default() })
    }

    fn pass<'a>(
        &'a self,
        group: &[(&Example, f32)],
        vectors: Option<&Tensor>,
        how: &Mode,
    ) -> Result<Box<dyn Pass + 'a>> {
        Ok(Box::new(pass::LuminaPass::new(self, group, vectors, how)?))
    }

    fn prediction(&self) -> Prediction<'_> {
        Prediction::NextToken(self)
    }
}
