//! What is known about a model before its weights are read: enough to say how much memory it takes.

use super::checkpoint::Checkpoint;
use super::lumina::config::Config;
use super::recommended::Recommended;
use super::vqgan;
use super::weight::Format;
use super::{model_files, vqgan_parts, Model, OpenOptions};
use crate::device::{self, open_device, parse_dtype};
use crate::Result;
use candle_core::Device;
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
    pub recommended: Recommended,
}

impl Outline {
    /// Of a model whose weights are not in memory yet.
    pub(super) fn new(
        config: &Config,
        vqgan: &vqgan::Config,
        vqgan_numbers: u64,
        format: Format,
        device: &Device,
        recommended: &Recommended,
    ) -> Self {
        Outline {
            config: config.clone(),
            vqgan: vqgan.clone(),
            vqgan_numbers,
            format,
            device: device.clone(),
            on_gpu: !device.is_cpu(),
            free: device::free_memory(device),
            opened: false,
            recommended: recommended.clone(),
        }
    }

    /// Of a model folder or `embedded:`; reads its configuration and the headers of its weights.
    pub fn read(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let files = model_files(path.as_ref())?;
        let device = open_device(&options.device)?;
        let format = parse_dtype(&options.dtype, &device)?;
        let config_text = files.text("config.json")?;
        let config = Config::from_json(&config_text, &files.path("config.json"))?;
        let checkpoint = Checkpoint::open(&files, "model")?;
        let parts = vqgan_parts(&files, &checkpoint, &config_text)?;
        let recommended = Recommended::read(&files)?;
        Ok(Outline::new(&config, &parts.config, parts.numbers(&checkpoint), format, &device, &recommended))
    }

    /// Of an opened model.
    pub fn of(model: &Model) -> Self {
        let (config, vqgan) = (&model.transformer.config, model.vqgan.config());
        let outline =
            Outline::new(config, vqgan, model.vqgan_numbers, model.format, model.device(), &model.recommended);
        Outline { opened: true, ..outline }
    }
}
