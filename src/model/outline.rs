//! What is known about a model before its weights are read: enough to say how much memory it takes.

use super::checkpoint::Checkpoint;
use super::lumina::config::Config;
use super::vqgan;
use super::weight::Format;
use super::{model_files, recommended, vqgan_parts, Model, OpenOptions};
use crate::device::{self, open_device, parse_dtype};
use crate::{personalize, sample, Result};
use candle_core::Device;
use serde_json::Value;
use std::path::Path;

/// The shape of a model and where it would run.
pub struct Outline {
    pub config: Config,
    pub vqgan: vqgan::Config,
    /// Numbers in the image tokenizer.
    pub vqgan_numbers: u64,
    pub format: Format,
    pub device: Device,
    /// Whether to count as on a GPU: activations in the dtype of the weights, optimizer states in the memory of the host.
    pub on_gpu: bool,
    /// Memory that the device could still give, if that is known.
    pub free: Option<u64>,
    /// Whether its weights are in memory already.
    pub opened: bool,
    recommended: Value,
}

impl Outline {
    /// Of a model folder or `embedded:`; reads its configuration and the headers of its weights.
    pub fn read(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let files = model_files(path.as_ref())?;
        let device = open_device(&options.device)?;
        let format = parse_dtype(&options.dtype, &device)?;
        let config_text = files.text("config.json")?;
        let config = Config::from_json(&config_text, &files.path("config.json"))?;
        let checkpoint = Checkpoint::open(&files, "model")?;
        let parts = vqgan_parts(&files, &checkpoint, &config_text)?;
        let vqgan_numbers = parts.checkpoint(&checkpoint).count(parts.prefix);
        let recommended = recommended(&files)?;
        let (on_gpu, free) = (!device.is_cpu(), device::free_memory(&device));
        Ok(Outline {
            config,
            vqgan: parts.config,
            vqgan_numbers,
            format,
            device,
            on_gpu,
            free,
            opened: false,
            recommended,
        })
    }

    /// Of an opened model.
    pub fn of(model: &Model) -> Self {
        Outline {
            config: model.transformer.config.clone(),
            vqgan: model.vqgan.config().clone(),
            vqgan_numbers: model.vqgan_numbers,
            format: model.format,
            device: model.device().clone(),
            on_gpu: !model.device().is_cpu(),
            free: device::free_memory(model.device()),
            opened: true,
            recommended: model.recommended.clone(),
        }
    }

    /// How the model draws unless told otherwise.
    pub fn sample_options(&self) -> Result<sample::Options> {
        super::overlaid(&self.recommended, "sitter.json".as_ref(), "sample", &sample::Options::default())
    }

    /// How it is taught by a method unless told otherwise.
    pub fn train_options(&self, method: personalize::Method) -> Result<personalize::Options> {
        use personalize::Options;
        let file = "sitter.json".as_ref();
        let common = super::overlaid(&self.recommended, file, "train", &Options::new(method))?;
        let section = format!("train.{}", method.name());
        let options: Options = super::overlaid(&self.recommended, file, &section, &Options { method, ..common })?;
        Ok(Options { method, ..options })
    }
}
