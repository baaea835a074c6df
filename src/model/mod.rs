//! What a pretrained model is: text tokenizer, image tokenizer, transformer. Immutable once opened.

pub mod checkpoint;
pub mod embedded;
pub mod files;
pub mod lumina;
pub mod ops;
pub mod outline;
pub mod personalized;
mod pickle;
pub mod quantised;
pub mod recommended;
pub mod subject;
pub(crate) mod tensor_file;
pub mod text;
mod tokenizer_file;
pub mod tokens;
pub mod vqgan;
pub mod weight;

use crate::device::{open_device, parse_device, parse_dtype};
use crate::estimate;
use crate::picture::Picture;
use crate::run::{Run, Stage};
use crate::{Error, Result};
use candle_core::{DType, Device};
use checkpoint::Checkpoint;
use files::Files;
use lumina::config::Config;
use lumina::layout::{Layout, LARGEST_GRID};
use lumina::transformer::Transformer;
use outline::Outline;
use quantised::Quantised;
use recommended::Recommended;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use text::Text;
use tokens::Tokens;
use vqgan::Vqgan;
use weight::Format;

/// The name under which the small model inside the library is opened.
pub const EMBEDDED: &str = "embedded:";

/// Where and in which number format a model runs.
#[derive(Clone, Debug, Serialize)]
pub struct OpenOptions {
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// `auto`, `f32`, `bf16`, `q8_0` or `q4_k`. The image tokenizer always runs in f32.
    pub dtype: String,
    /// Whether quantised weights are kept in a file of the model's folder, `sitter.q8_0.safetensors` or
    /// `sitter.q4_k.safetensors`: written when the model is opened so for the first time, mapped from then on.
    pub keep_quantised: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { device: "auto".into(), dtype: "auto".into(), keep_quantised: true }
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
    transformer: Transformer,
    format: Format,
    layout: Layout,
    text: Text,
    vqgan: Vqgan,
    vqgan_numbers: u64,
    fingerprint: String,
    recommended: Recommended,
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
}

impl Model {
    /// Opens a model folder in Hugging Face layout, or `embedded:`.
    ///
    /// The folder holds `config.json`, `model.safetensors` (or shards and an index), `tokenizer.json`, and the image
    /// tokenizer as `vqgan.safetensors` or `vqgan.ckpt` beside `vqgan.yaml` (a subfolder `tokenizer` will do), or inside
    /// the model's safetensors. Every weight is checked for name, shape, dtype and finite values.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions, run: &mut Run) -> Result<Self> {
        let path = path.as_ref();
        let files = model_files(path)?;
        let device = open_device(&options.device)?;
        let format = parse_dtype(&options.dtype, &device)?;
        run.check()?;

        let config_text = files.text("config.json")?;
        let config = Config::from_json(&config_text, &files.path("config.json"))?;
        let tokenizer = files.bytes("tokenizer.json")?;
        let text = Text::open(tokenizer.clone(), &files.path("tokenizer.json"), &run.control())?;
        let checkpoint = Checkpoint::open(&files, "model")?;
        let parts = vqgan_parts(&files, &checkpoint, &config_text)?;
        let (vqgan_numbers, recommended) = (parts.numbers(&checkpoint), Recommended::read(&files)?);
        // If the files hold less than the configuration says, loading will tell what is wrong.
        if checkpoint.count("") >= config.parameters() {
            let outline = Outline::new(&config, &parts.config, vqgan_numbers, format, &device, &recommended);
            estimate::check_opening(&outline)?;
        }
        let (vqgan, vq_fingerprint) = parts.open(&checkpoint, &device)?;
        let vq = vqgan.config();
        let text = text.of_model(config.vocab_size)?;
        let layout = Layout::new(&text, vq.n_embed, vq.downsampling(), config.vocab_size)?;
        let quantised = options.keep_quantised.then(|| Quantised::open(&files, &checkpoint, format)).flatten();
        let transformer =
            Transformer::load(&checkpoint, quantised.as_ref(), &config, format, &device, |done, total| {
                run.report(Stage::Open, done, total, None).map(|_| ())
            })?;
        if let Some(quantised) = quantised {
            quantised.keep(&transformer, &run.control())?;
        }

        let mut hash = Sha256::new();
        for part in [config_text.as_bytes(), &tokenizer, &checkpoint.fingerprint(), &vq_fingerprint] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let fingerprint = hash.finalize()[..16].iter().map(|b| format!("{b:02x}")).collect();
        let name = match &files {
            Files::Embedded(_) => EMBEDDED.to_string(),
            Files::Folder(folder) => folder.display().to_string(),
        };
        Ok(Model { name, transformer, format, layout, text, vqgan, vqgan_numbers, fingerprint, recommended })
    }

    pub fn info(&self) -> Info {
        Info {
            family: "lumina-mgpt",
            name: self.name.clone(),
            fingerprint: self.fingerprint.clone(),
            parameters: self.transformer.config.parameters(),
            vocabulary: self.transformer.config.vocab_size,
            codebook: self.layout.code_tokens().len(),
            grid_unit_px: self.layout.unit(),
            device: if self.device().is_cuda() { "cuda" } else { "cpu" },
            dtype: self.format.name(),
            can_decode: self.vqgan.can_decode(),
        }
    }

    /// The tokens of a picture, whose sides must be multiples of the grid unit; see [`Picture::fit`].
    pub fn encode(&self, picture: &Picture, run: &Run) -> Result<Tokens> {
        self.layout.grid(picture.width(), picture.height())?;
        let mut tokens = self.vqgan.encode(&picture.to_tensor(self.device())?, run)?;
        tokens.pop().ok_or_else(|| Error::Internal { message: "the image tokenizer gave nothing".into() })
    }

    /// The picture of a grid of tokens, which may be larger than any that the model draws, but no larger than its grammar
    /// has words for: 510 codes along a side.
    pub fn decode(&self, tokens: &Tokens, run: &Run) -> Result<Picture> {
        if tokens.width().max(tokens.height()) > LARGEST_GRID {
            let (height, width) = (tokens.height(), tokens.width());
            let message =
                format!("a grid of {height} x {width} codes; at most {LARGEST_GRID} are decoded along a side");
            return Err(Error::invalid("tokens", message));
        }
        let pixels = self.vqgan.decode(std::slice::from_ref(tokens), run)?;
        Picture::from_tensor(&pixels.squeeze(0)?)
    }

    pub fn recommended(&self) -> &Recommended {
        &self.recommended
    }

    pub fn transformer(&self) -> &Transformer {
        &self.transformer
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn text(&self) -> &Text {
        &self.text
    }

    pub fn device(&self) -> &Device {
        self.transformer.device()
    }

    /// The folder it was opened from, or `embedded:`.
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

/// The files of a model folder or of `embedded:`.
fn model_files(path: &Path) -> Result<Files> {
    if path.to_str() == Some(EMBEDDED) {
        return Ok(Files::Embedded(embedded::FILES));
    }
    use std::io::ErrorKind::{NotADirectory, NotFound};
    const EXPECTED: &str = "expected a folder with config.json, model.safetensors and tokenizer.json";
    let message = match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(Files::Folder(path.to_owned())),
        Ok(_) => format!("is not a model folder; {EXPECTED}"),
        Err(e) if !matches!(e.kind(), NotFound | NotADirectory) => return Err(Error::io(path, e)),
        Err(_) if path.to_str() == EMBEDDED.strip_suffix(':') => {
            format!("is not a model folder; did you mean \"{EMBEDDED}\", the model inside the library?")
        }
        Err(_) => format!("is not a model folder: there is nothing of this name; {EXPECTED}"),
    };
    Err(Error::NotFound { path: path.to_owned(), message })
}

/// Where the image tokenizer is.
struct VqganParts {
    /// A file of its own, or none if it is inside the model's safetensors.
    own: Option<Checkpoint>,
    prefix: &'static str,
    config: vqgan::Config,
    /// The description that is not there, if the 7B models' is taken in its place.
    undescribed: Option<PathBuf>,
}

impl VqganParts {
    fn checkpoint<'a>(&'a self, model: &'a Checkpoint) -> &'a Checkpoint {
        self.own.as_ref().unwrap_or(model)
    }

    /// Numbers in the image tokenizer.
    fn numbers(&self, model: &Checkpoint) -> u64 {
        self.checkpoint(model).count(self.prefix)
    }

    /// The image tokenizer and its fingerprint.
    fn open(&self, model: &Checkpoint, device: &Device) -> Result<(Vqgan, [u8; 32])> {
        let (checkpoint, prefix) = (self.checkpoint(model), self.prefix);
        let get = |name: &str, shape: &[usize]| checkpoint.get(&format!("{prefix}{name}"), shape, DType::F32, device);
        let has_decoder = checkpoint.contains(&format!("{prefix}decoder.conv_in.weight"));
        let vqgan = Vqgan::load(&self.config, has_decoder, get).map_err(|e| match (e, &self.undescribed) {
            (Error::Tensor { file, tensor, expected, found }, Some(path)) => {
                let message = format!(
                    "is not there, nor vq_config in config.json, to say what image tokenizer it is, and that of the 7B models, \
                     which is taken then, does not fit: {}: tensor {tensor}: expected {expected}, found {found}; copy vqgan.yaml, too",
                    file.display()
                );
                Error::NotFound { path: path.clone(), message }
            }
            (e, _) => e,
        })?;
        // A tokenizer inside the model's safetensors is part of the model's own fingerprint.
        Ok((vqgan, self.own.as_ref().map_or([0; 32], Checkpoint::fingerprint)))
    }
}

/// Finds the image tokenizer: a file of its own first, then the model's safetensors.
fn vqgan_parts(files: &Files, model: &Checkpoint, config: &str) -> Result<VqganParts> {
    let find = |name: &str| {
        let names = [name.to_string(), format!("tokenizer/{name}")];
        names.into_iter().find(|n| files.exists(n))
    };
    let own = match (find("vqgan.safetensors"), find("vqgan.ckpt")) {
        (Some(name), _) => Some(Checkpoint::open_file(files, &name)?),
        (None, Some(name)) => Some(Checkpoint::open_pickle(files, &name, Some("state_dict"))?),
        (None, None) => None,
    };
    let inside = "model.vqmodel.";
    let prefix = match &own {
        Some(_) => "",
        None if model.contains(&format!("{inside}quantize.embedding.weight")) => inside,
        None => {
            return Err(Error::NotFound {
                path: files.path("vqgan.ckpt"),
                message: "no image tokenizer: the folder needs vqgan.yaml with vqgan.ckpt or vqgan.safetensors (Meta's \
                          Chameleon release has the first two in its tokenizer folder), and the model's safetensors hold \
                          no model.vqmodel.* tensors"
                    .into(),
            })
        }
    };
    let mut undescribed = None;
    let config = match find("vqgan.yaml") {
        Some(name) => vqgan::Config::from_yaml(&files.text(&name)?, files.path(&name))?,
        None => {
            let file = files.path("config.json");
            let json: serde_json::Value =
                serde_json::from_str(config).map_err(|e| Error::bad_format(&file, format!("not JSON: {e}")))?;
            match json.get("vq_config") {
                Some(vq) => vqgan::Config::from_vq_config(vq, &file)?,
                None => {
                    undescribed = Some(files.path("vqgan.yaml"));
                    vqgan::Config::default()
                }
            }
        }
    };
    Ok(VqganParts { own, prefix, config, undescribed })
}
