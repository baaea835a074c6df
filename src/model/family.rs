//! What the library asks of a model family. A family is one folder beside this file and one line in the
//! registry; docs/adding-a-model-family.md walks through it.

use super::cache::Cache;
use super::footprint::Footprint;
use super::places::{Context, Rotary};
use super::words::Word;
use crate::error::by_name;
use crate::files::Files;
use crate::picture::{Crop, Picture};
use crate::random::Dropout;
use crate::run::{Control, Run};
use crate::tokens::{Beside, Tokens};
use crate::weight::Format;
use crate::weights::{Gradients, Wanted, Weights};
use crate::Result;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// How a family is recognised and opened: its line in the registry.
pub struct Entry {
    /// As [`Info`](super::Info) tells it.
    pub name: &'static str,
    /// What its folders are recognised by, for messages: `model_type "chameleon"`.
    pub sign: &'static str,
    /// What its weights may be chosen by to learn, besides `all` and their names.
    pub roles: &'static [&'static str],
    /// Whether the files are of this family. Looks at names and small files only.
    pub claims: fn(&Files) -> bool,
    /// Reads everything but the weights.
    pub draft: fn(&Files) -> Result<Box<dyn Draft>>,
}

/// A model whose configuration was read and whose weights were not.
pub trait Draft: Send {
    fn footprint(&self) -> Arc<dyn Footprint>;

    /// The same with a text encoder that does not stay in memory; None if there is none that is a network of its own.
    fn without_text_encoder(&self) -> Option<Arc<dyn Footprint>> {
        None
    }

    /// Whether the files hold as many numbers as the configuration says. If not, [`Draft::open`] tells what is wrong.
    fn is_complete(&self) -> bool;

    /// What options of drawing (`sample`) and training (`train`) are set to unless the model's `sitter.json` or the user says
    /// something else, in that file's form.
    fn defaults(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Reads and checks every weight. Reports stage `open`.
    fn open(self: Box<Self>, how: &Opening, run: &mut Run) -> Result<Opened>;
}

/// The field `model_type` of a configuration as Hugging Face writes it, if the file is one: what most families are told by.
pub fn model_type(files: &Files, name: &str) -> Option<String> {
    let config: serde_json::Value = serde_json::from_str(&files.text(name).ok()?).ok()?;
    Some(config.get("model_type")?.as_str()?.to_owned())
}

/// Where and how weights are to be kept.
pub struct Opening<'a> {
    pub files: &'a Files,
    pub format: Format,
    pub device: Device,
    /// Whether quantised weights are kept in a file of the model's folder.
    pub keep_quantised: bool,
    /// Whether a text encoder of its own stays in memory.
    pub keep_text: bool,
}

/// A family that was opened, and what identifies its configuration, vocabulary and weights.
pub struct Opened {
    pub family: Arc<dyn Family>,
    pub identity: Vec<Vec<u8>>,
}

/// What is known about an opened model.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Parameters of the transformer, the image tokenizer not counted.
    pub parameters: u64,
    /// Rows of the vocabulary.
    pub vocabulary: usize,
    /// Codes of the image tokenizer.
    pub codebook: usize,
    /// Picture sides are multiples of this many pixels.
    pub unit: u32,
    /// Pixels along each side that one code stands for.
    pub patch: u32,
    /// Numbers of a learned vector.
    pub width: usize,
    /// Layers that learn and go backward, see [`Pass`].
    pub layers: usize,
    pub can_decode: bool,
}

/// One place in a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A row of the vocabulary.
    Token(u32),
    /// A learned vector, by its row among those of the subjects.
    Vector(u32),
    /// A code, in families that have no rows of the vocabulary for codes.
    Code(u32),
}

/// What stands before a picture: its prompt as the family reads it. Without pieces, nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    pub pieces: Vec<Piece>,
}

/// A picture to learn from or to score. The pieces `labelled` are scored, each by what is predicted at the place before it, or
/// where its grid is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    pub pieces: Vec<Piece>,
    pub labelled: Range<usize>,
    /// What the picture's codes were made of, for families that want it.
    pub latent: Beside,
    /// What another model predicted, to learn from instead of the codes; see [`Family::teach`].
    pub teacher: Beside,
    /// Of each labelled piece 1 if it is to be learned, 0 if it only stands before others. None: all are.
    pub learned: Beside,
}

impl Example {
    /// Whether the labelled piece of this number is to be learned.
    pub fn learns(&self, label: usize) -> bool {
        self.learned.0.as_ref().is_none_or(|learned| learned[label] > 0.0)
    }

    /// Labelled pieces that are to be learned.
    pub fn learned(&self) -> usize {
        (0..self.labelled.len()).filter(|&label| self.learns(label)).count()
    }
}

/// A pretrained model of some family. Immutable; a copy with other weights shares those that did not change.
pub trait Family: Send + Sync {
    fn facts(&self) -> &Facts;

    /// Under what terms the family's published weights may be used, where that is known.
    fn licence(&self) -> Option<&'static str> {
        None
    }

    fn device(&self) -> &Device;

    fn footprint(&self) -> Arc<dyn Footprint>;

    /// Of activations.
    fn dtype(&self) -> DType;

    /// What has a name: may learn, may be changed by subjects, is kept in blocks if quantised.
    fn weights(&self) -> &Weights;

    /// The same model with other numbers in its weights.
    fn with(&self, weights: Weights) -> Arc<dyn Family>;

    // Pictures.

    /// The grid (height, width in codes) of a picture of `width` x `height` pixels; errors name the side that is wrong.
    fn grid(&self, width: u32, height: u32) -> Result<(u32, u32)>;

    /// Pixels (width, height) of tokens.
    fn pixels(&self, tokens: &Tokens) -> (u32, u32);

    /// Errors if pictures cannot be fitted to this target, naming `image_size`.
    fn check_target(&self, target: u32) -> Result<()>;

    /// A picture brought to a size that the model knows; `target` is the side of the square whose area it is to have.
    fn fit(&self, picture: &Picture, target: u32, crop: Crop) -> Result<Picture>;

    /// The tokens of a picture whose sides are multiples of the unit.
    fn encode(&self, picture: &Picture, run: &Run) -> Result<Tokens>;

    fn decode(&self, tokens: &Tokens, run: &Run) -> Result<Picture>;

    // Text.

    /// What a prompt says to the model about a picture of `width` x `height` pixels; each of the `words` in it stands for its
    /// learned vectors.
    fn condition(&self, prompt: &str, words: &[Word], width: u32, height: u32) -> Result<Condition>;

    /// What stands around every prompt: no identifier may be a word of it.
    fn frame(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether a word is one of the vocabulary.
    fn knows(&self, word: &str) -> Result<bool>;

    /// What stands there instead where nothing is asked for: the other branch of guidance.
    fn unguided(&self, of: &Condition) -> Result<Condition>;

    /// Reads texts beforehand that are to come again and again, in families for which that is work.
    fn read(&self, conditions: &[Condition]) -> Result<()> {
        let _ = conditions;
        Ok(())
    }

    /// The rows that stand for an ordinary text, f32 [n, width]: where a learned vector can start. Errors if the model's
    /// vocabulary does not know it.
    fn word_rows(&self, text: &str) -> Result<Tensor>;

    /// Root mean square of the numbers in the rows of these texts, each row counted once.
    fn usual_size(&self, texts: &[String]) -> Result<f32>;

    // Learning and scoring.

    /// A picture behind its condition.
    fn example(&self, condition: &Condition, tokens: &Tokens) -> Result<Example>;

    /// Draws a picture of a size in pixels (width, height) and keeps what was predicted on the way: an example from which a changed
    /// copy of this model learns to go on predicting the same (distillation). None in families that do not teach so.
    fn teach(
        &self,
        condition: &Condition,
        size: (u32, u32),
        seed: u64,
        teacher: Teacher,
        stop: &Control,
    ) -> Result<Option<Example>> {
        let _ = (condition, size, seed, teacher, stop);
        Ok(None)
    }

    /// Begins a pass over some examples, each with its weight per label in the loss. `vectors` are all learned vectors,
    /// f32 [N, width].
    fn pass<'a>(
        &'a self,
        group: &[(&Example, f32)],
        vectors: Option<&Tensor>,
        how: &Mode,
    ) -> Result<Box<dyn Pass + 'a>>;

    // Drawing.

    fn prediction(&self) -> Prediction<'_>;
}

/// How a pass is done.
#[derive(Clone, Default)]
pub struct Mode {
    /// With a key for each example.
    pub dropout: Option<Dropout>,
    pub by_scale: ByScale,
    pub stop: Control,
}

/// How pictures are learned in families that draw them scale after scale.
#[derive(Clone, Debug, Default)]
pub struct ByScale {
    /// What each grid counts in the loss of labels; the last number counts for the grids behind, too. Empty: all count 1.
    pub weights: Vec<f32>,
    /// Up to this share of a grid's bits is turned over in what later grids see. Only with dropout, which has the keys.
    pub self_correction: f32,
    /// Who examples that carry a teacher's predictions come from.
    pub teacher: Teacher,
}

/// What the untouched model hands over to learn from, see [`Family::teach`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Teacher {
    /// What it predicts when it draws; student and teacher are compared bit by bit.
    #[default]
    Correct,
    /// As the code released with arXiv 2504.02612 computes it: each grid by itself.
    Reference,
}

impl Teacher {
    pub const ALL: [Teacher; 2] = [Teacher::Correct, Teacher::Reference];

    /// As it is written in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Teacher::Correct => "correct",
            Teacher::Reference => "reference",
        }
    }

    /// By the name that [`Teacher::name`] gives.
    pub fn parse(name: &str) -> Result<Self> {
        by_name("teacher", name, Self::ALL, Self::name)
    }
}

/// What a layer keeps for the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: it does not go backward.
    Nothing,
    /// What it was given; the rest is computed anew.
    Input,
    /// All that its backward pass needs.
    All,
}

/// What a pass is judged by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Objective {
    /// Weight of the squared log-normaliser beside the cross entropy.
    pub z_loss: f64,
    /// Whether the way back follows.
    pub with_gradient: bool,
}

/// A loss: of all labels, weighted, and the cross entropy of each in nats.
pub struct Loss {
    pub total: f64,
    pub nats: Vec<f32>,
}

/// Examples on their way through the layers and back: `forward` of layer 0, 1, ..., then `loss`, then `backward` of the last
/// layer and those before it, as far as anything learns. Several passes go through a layer together, so that its gradients are
/// whole when it is done and it can be updated before the next.
pub trait Pass: Send {
    /// Tokens in it, padding included.
    fn tokens(&self) -> usize;

    fn forward(&mut self, layer: usize, keep: Keep) -> Result<()>;

    fn loss(&mut self, objective: &Objective) -> Result<Loss>;

    /// The gradients of what is `wanted` of a layer, sorted by [`Target`](crate::weights::Target).
    fn backward(&mut self, layer: usize, wanted: &Wanted) -> Result<Gradients>;

    /// The gradient of the learned vectors, f32 [N, width], when all layers went backward.
    fn vectors(&mut self) -> Result<Tensor>;
}

/// How a family draws.
pub enum Prediction<'a> {
    /// Code after code, rows top to bottom.
    NextToken(&'a dyn NextToken),
    /// Grid after grid, coarse to fine, all codes of a grid at once.
    NextScale(&'a dyn NextScale),
}

/// Pictures that are drawn scale after scale.
pub struct Scales<'a> {
    /// Of each picture what it is to show, and what stands against that.
    pub conditions: &'a [(Condition, Condition)],
    /// All learned vectors, f32 [N, width].
    pub vectors: Option<&'a Tensor>,
    /// The last grid, (height, width) in codes.
    pub grid: (u32, u32),
    /// One for each grid; the last one given counts for those behind.
    pub guidance: &'a [f32],
    pub temperature: &'a [f32],
    /// Of each bit, the less likely value is never chosen if its probability is at most 1 less this.
    pub top_p: f32,
    /// Of each picture.
    pub seeds: &'a [u64],
    pub stop: Control,
}

/// A transformer that predicts one grid of codes after the other.
pub trait NextScale: Sync {
    /// The grids of a picture whose last one this is, coarse to fine.
    fn grids(&self, last: (u32, u32)) -> Result<Vec<(u32, u32)>>;

    /// Draws pictures, each by its seed alone. `seen` gets what is drawn of each after every grid.
    fn draw(&self, what: &Scales, seen: &mut dyn FnMut(&[Tokens]) -> Result<()>) -> Result<Vec<Tokens>>;
}

/// A transformer that predicts one code after the other.
///
/// A *symbol* is a code or, in families that close the rows of a picture, the newline behind the last code.
pub trait NextToken: Sync {
    /// Codes that there are.
    fn codes(&self) -> usize;

    /// Whether each row of codes is closed by a newline.
    fn closes_rows(&self) -> bool;

    /// Everything up to the piece that predicts the first code of a grid (height, width in codes).
    fn opening(&self, condition: &Condition, grid: (u32, u32)) -> Result<Vec<Piece>>;

    /// What shorter openings are filled up with in front; nothing sees it.
    fn filler(&self) -> Piece;

    /// Input embeddings [B, T, hidden] of rows of one length.
    fn embed(&self, rows: &[&[Piece]], vectors: Option<&Tensor>) -> Result<Tensor>;

    /// Input embeddings [times B, T, hidden] of symbols, u32 [B, T] on the model's device, all of them `times` times.
    fn embed_symbols(&self, symbols: &Tensor, times: usize) -> Result<Tensor>;

    fn rotary(&self) -> &Rotary;

    fn new_cache(&self, rows: usize, capacity: usize) -> Result<Cache>;

    /// Hidden states [B, T, hidden] of input embeddings, which also go into the cache if there is one.
    fn forward(&self, x: &Tensor, context: &Context, cache: Option<&mut Cache>) -> Result<Tensor>;

    /// Logits of the codes, f32 [.., codes], of hidden states [.., hidden].
    fn logits(&self, hidden: &Tensor) -> Result<Tensor>;
}
