//! What a pretrained model is: text tokenizer, image tokenizer, transformer. Immutable once opened.
//!
//! | word | meaning |
//! |---|---|
//! | family | models that are opened, computed and spoken to in one way: a folder of this room |
//! | code | the number that the image tokenizer gives a patch of a picture: a row of the VQ codebook |
//! | tokens | the codes of one picture, with height and width of their grid |
//! | symbol | what is drawn: a code, or what closes a row |
//! | piece | what stands at one place of a sequence: a row of the vocabulary, or a learned vector |
//! | condition | what stands before a picture: its prompt in pieces |
//! | example | a picture behind its condition, to learn from or to score |
//! | place | where a symbol stands in a picture; slot: where a token stands in a cache |
//! | role | what a weight serves (`qkv`, `mlp`), by which it is chosen to learn |

pub mod cache;
mod embedded;
pub mod family;
pub mod footprint;
pub mod infinity;
mod janus;
mod llama;
pub mod lumina;
pub mod outline;
pub mod personalized;
pub mod places;
pub mod quantised;
pub mod recommended;
mod registry;
pub mod subject;
pub mod text;
mod tokenizer_file;
pub mod vqgan;
pub mod words;

pub use embedded::{EMBEDDED, EMBEDDED_INFINITY};
pub use registry::add_family;
pub(crate) use registry::roles;

use crate::device::{open_device, parse_device, GivesBack};
use crate::error::by_name;
use crate::files::Files;
use crate::ops;
use crate::picture::{Crop, Picture};
use crate::run::Run;
use crate::tokens::Tokens;
use crate::weight::{parse_dtype, Format};
use crate::{Error, Result};
use candle_core::Device;
use family::{Facts, Family, Opening};
use footprint::Place;
use outline::Outline;
use recommended::Recommended;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// What becomes of a text encoder that is a network of its own once it has read the texts of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TextEncoder {
    /// Kept where all weights together take at most half of the memory that is free.
    #[default]
    Auto,
    /// Stays in memory.
    Keep,
    /// Read when a text comes that it has not read before, and let go of.
    Unload,
}

impl TextEncoder {
    pub const ALL: [TextEncoder; 3] = [TextEncoder::Auto, TextEncoder::Keep, TextEncoder::Unload];

    /// As it is written in options.
    pub fn name(self) -> &'static str {
        match self {
            TextEncoder::Auto => "auto",
            TextEncoder::Keep => "keep",
            TextEncoder::Unload => "unload",
        }
    }

    /// By the name that [`TextEncoder::name`] gives.
    pub fn parse(name: &str) -> Result<Self> {
        by_name("text_encoder", name, Self::ALL, Self::name)
    }
}

/// Where and in which number format a model runs.
#[derive(Clone, Debug, Serialize)]
pub struct OpenOptions {
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// `auto`, `f32`, `bf16`, `q8_0` or `q4_k`. The image tokenizer always runs in f32.
    pub dtype: String,
    /// Whether quantised weights are kept in a file of the model's folder, `sitter.q8_0.safetensors` or
    /// `sitter.q4_k.safetensors`: written when the model is opened so for the first time, read from then on.
    pub keep_quantised: bool,
    /// Of models whose text encoder is a network of its own: `keep` it in memory, or `unload` it when it has read the
    /// texts of a call, which are remembered. `auto` keeps it where all weights together take at most half of the memory that is
    /// free. Other models take `auto` only.
    pub text_encoder: TextEncoder,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            device: "auto".into(),
            dtype: "auto".into(),
            keep_quantised: true,
            text_encoder: TextEncoder::default(),
        }
    }
}

impl OpenOptions {
    /// Errors if a name is none; whether the device is there is seen when a model is opened on it.
    pub fn check_ranges(&self) -> Result<()> {
        parse_device(&self.device)?;
        parse_dtype(&self.dtype, &Device::Cpu).map(|_| ())
    }
}

/// A pretrained model.
pub struct Model {
    name: String,
    family_name: &'static str,
    family: Arc<dyn Family>,
    format: Format,
    fingerprint: String,
    recommended: Recommended,
    /// Last, so that the weights are gone then.
    _end: GivesBack,
}

/// Facts about an opened model.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// Model family.
    pub family: &'static str,
    /// Folder it was opened from, or `embedded:`.
    pub name: String,
    /// Identifies the weights; a subject belongs to one fingerprint.
    pub fingerprint: String,
    /// Transformer parameters, the image tokenizer not counted.
    pub parameters: u64,
    /// Rows of the vocabulary.
    pub vocabulary: usize,
    /// Codes of the image tokenizer.
    pub codebook: usize,
    /// Picture sides are multiples of this many pixels.
    pub grid_unit_px: u32,
    /// `cpu` or `cuda`.
    pub device: &'static str,
    pub dtype: &'static str,
    /// False if the checkpoint came without the image tokenizer's decoder.
    pub can_decode: bool,
    /// Under what terms the family's published weights may be used, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<&'static str>,
}

impl Model {
    /// Opens a model folder, or a model inside the library: [`EMBEDDED`], or [`EMBEDDED_INFINITY`]. What the folder of a family
    /// holds is in docs/models.md; every weight is checked for name, shape, dtype and finite values.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions, run: &mut Run) -> Result<Self> {
        let files = model_files(path.as_ref())?;
        let device = open_device(&options.device)?;
        let format = parse_dtype(&options.dtype, &device)?;
        run.check()?;
        if !ops::own_kernels_on(&device) {
            ops::try_out(format, &device)?;
        }
        let entry = registry::family_of(&files)?;
        let draft = (entry.draft)(&files)?;
        let recommended = Recommended::read(&files, &draft.defaults())?;
        // If the files hold less than the configuration says, loading will tell what is wrong.
        let (outline, keep_text) = Outline::of_draft(&*draft, options, format, &device, &recommended)?;
        if draft.is_complete() {
            outline.check_opening()?;
        }
        let how = Opening { files: &files, format, device, keep_quantised: options.keep_quantised, keep_text };
        let opened = draft.open(&how, run)?;

        let mut hash = Sha256::new();
        for part in &opened.identity {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let fingerprint = hash.finalize()[..16].iter().map(|b| format!("{b:02x}")).collect();
        let name = match &files {
            Files::Embedded(name, _) => name.to_string(),
            Files::Folder(folder) => folder.display().to_string(),
        };
        let _end = GivesBack(opened.family.device().clone());
        Ok(Model { name, family_name: entry.name, family: opened.family, format, fingerprint, recommended, _end })
    }

    pub fn info(&self) -> Info {
        let facts = self.facts();
        Info {
            family: self.family_name,
            name: self.name.clone(),
            fingerprint: self.fingerprint.clone(),
            parameters: facts.parameters,
            vocabulary: facts.vocabulary,
            codebook: facts.codebook,
            grid_unit_px: facts.unit,
            device: if self.device().is_cuda() { "cuda" } else { "cpu" },
            dtype: self.format.name(),
            can_decode: facts.can_decode,
            licence: self.family.licence(),
        }
    }

    /// Where and in what numbers it runs, as far as memory goes.
    pub(crate) fn place(&self) -> Place {
        Place::new(self.format, self.device())
    }

    /// A picture brought to a size that the model knows; `target` is the side of the square whose area it is to have.
    pub fn fit(&self, picture: &Picture, target: u32, crop: Crop) -> Result<Picture> {
        self.family.fit(picture, target, crop)
    }

    /// The tokens of a picture, whose sides must be multiples of the grid unit; see [`Model::fit`].
    pub fn encode(&self, picture: &Picture, run: &Run) -> Result<Tokens> {
        self.family.encode(picture, run)
    }

    /// The picture of tokens, which may be of a larger grid than any that the model draws.
    pub fn decode(&self, tokens: &Tokens, run: &Run) -> Result<Picture> {
        self.family.decode(tokens, run)
    }

    /// Pixels (width, height) of tokens.
    pub fn pixels(&self, tokens: &Tokens) -> (u32, u32) {
        self.family.pixels(tokens)
    }

    pub fn facts(&self) -> &Facts {
        self.family.facts()
    }

    /// What it computes with.
    pub fn family(&self) -> &Arc<dyn Family> {
        &self.family
    }

    pub fn recommended(&self) -> &Recommended {
        &self.recommended
    }

    pub fn device(&self) -> &Device {
        self.family.device()
    }

    /// The folder it was opened from, or the name of a model inside the library.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last part of the name: what may travel with pictures, since where a person keeps the model is nobody's business.
    pub fn short_name(&self) -> &str {
        Path::new(&self.name).file_name().and_then(|n| n.to_str()).unwrap_or(&self.name)
    }

    /// 32 hexadecimal digits that identify configuration, vocabulary and weights, however they are sharded.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The files of a model folder or of a model inside the library.
fn model_files(path: &Path) -> Result<Files> {
    if let Some(files) = embedded::files(path)? {
        return Ok(files);
    }
    use std::io::ErrorKind::{NotADirectory, NotFound};
    const EXPECTED: &str = "expected a folder with config.json, model.safetensors and tokenizer.json";
    let message = match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(Files::Folder(path.to_owned())),
        Ok(_) => format!("is not a model folder; {EXPECTED}"),
        Err(e) if !matches!(e.kind(), NotFound | NotADirectory) => return Err(Error::io(path, e)),
        Err(_) => format!("is not a model folder: there is nothing of this name; {EXPECTED}"),
    };
    Err(Error::NotFound { path: path.to_owned(), message })
}
