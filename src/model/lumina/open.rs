//! Opening a folder in Hugging Face layout: `config.json`, `model.safetensors` or shards with an index, `tokenizer.json`, and
//! the image tokenizer as `vqgan.safetensors` or `vqgan.ckpt` beside `vqgan.yaml` (a subfolder `tokenizer` will do), or inside
//! the model's safetensors.

use super::config::Config;
use super::footprint::LuminaFootprint;
use super::layout::Layout;
use super::transformer;
use super::Lumina;
use crate::files::checkpoint::Checkpoint;
use crate::files::Files;
use crate::model::family::{model_type, Draft, Entry, Opened, Opening};
use crate::model::footprint::Footprint;
use crate::model::llama::Source;
use crate::model::quantised::Quantised;
use crate::model::text::Text;
use crate::model::vqgan::{self, Vqgan};
use crate::run::{Run, Stage};
use crate::{Error, Result};
use candle_core::{DType, Device};
use std::path::PathBuf;
use std::sync::Arc;

/// The family's line in the registry.
pub static ENTRY: Entry = Entry {
    name: "lumina-mgpt",
    sign: "\"chameleon\" (Lumina-mGPT)",
    roles: &["qkv", "attention", "mlp"],
    claims,
    draft: |files| Ok(Box::new(draft(files)?)),
};

fn claims(files: &Files) -> bool {
    model_type(files, "config.json").as_deref() == Some("chameleon")
}

struct LuminaDraft {
    config_text: String,
    config: Config,
    checkpoint: Checkpoint,
    vqgan: VqganParts,
    footprint: Arc<LuminaFootprint>,
}

fn draft(files: &Files) -> Result<LuminaDraft> {
    let config_text = files.text("config.json")?;
    let config = Config::from_json(&config_text, &files.path("config.json"))?;
    let checkpoint = Checkpoint::open(files, "model")?;
    let vqgan = vqgan_parts(files, &checkpoint, &config_text)?;
    let footprint = Arc::new(LuminaFootprint::new(&config, &vqgan.config, vqgan.numbers(&checkpoint)));
    Ok(LuminaDraft { config_text, config, checkpoint, vqgan, footprint })
}

impl Draft for LuminaDraft {
    fn footprint(&self) -> Arc<dyn Footprint> {
        self.footprint.clone()
    }

    fn is_complete(&self) -> bool {
        self.checkpoint.count("") >= self.config.parameters()
    }

    fn open(self: Box<Self>, how: &Opening, run: &mut Run) -> Result<Opened> {
        let LuminaDraft { config_text, config, checkpoint, vqgan, footprint } = *self;
        let tokenizer = how.files.bytes("tokenizer.json")?;
        let text = Text::open(tokenizer.clone(), &how.files.path("tokenizer.json"), &run.control())?;
        let (vqgan, vq_fingerprint) = vqgan.open(&checkpoint, &how.device)?;
        let vq = vqgan.config();
        let text = text.of_model(config.vocab_size)?;
        let layout = Layout::new(&text, vq.n_embed, vq.downsampling(), config.vocab_size)?;
        let quantised = how.keep_quantised.then(|| Quantised::open(how.files, &checkpoint, how.format)).flatten();
        let source = Source {
            checkpoint: &checkpoint,
            quantised: quantised.as_ref(),
            format: how.format,
            device: &how.device,
            name: &str::to_owned,
        };
        let transformer =
            transformer::load(&config, &source, |done, total| run.report(Stage::Open, done, total, None).map(|_| ()))?;
        if let Some(quantised) = quantised {
            quantised.keep(&transformer.weights, &run.control())?;
        }
        let identity = vec![
            config_text.into_bytes(),
            tokenizer.to_vec(),
            checkpoint.fingerprint()?.to_vec(),
            vq_fingerprint.to_vec(),
        ];
        let family = Arc::new(Lumina::new(&config, transformer, layout, text, vqgan, footprint)?);
        Ok(Opened { family, identity })
    }
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
        Ok((vqgan, self.own.as_ref().map_or(Ok([0; 32]), Checkpoint::fingerprint)?))
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
