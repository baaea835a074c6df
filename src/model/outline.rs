//! What is known about a model before its weights are read: enough to say how much memory it takes.

use super::family::Draft;
use super::footprint::{Footprint, Place};
use super::recommended::Recommended;
use super::{model_files, registry, Model, OpenOptions, TextEncoder};
use crate::device::{self, open_device};
use crate::weight::{parse_dtype, Format};
use crate::{Error, Result};
use candle_core::Device;
use std::path::Path;
use std::sync::Arc;

/// The shape of a model and where it would run.
#[derive(Clone)]
pub struct Outline {
    pub footprint: Arc<dyn Footprint>,
    pub at: Place,
    pub device: Device,
    /// Memory that the device could still give, if that is known.
    pub free: Option<u64>,
    /// Whether its weights are in memory already.
    pub opened: bool,
    pub recommended: Recommended,
}

impl Outline {
    /// Of a model whose weights are not in memory yet.
    pub(super) fn new(
        footprint: Arc<dyn Footprint>,
        format: Format,
        device: &Device,
        recommended: &Recommended,
    ) -> Self {
        Outline {
            footprint,
            at: Place::new(format, device),
            device: device.clone(),
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
        let draft = (registry::family_of(&files)?.draft)(&files)?;
        let recommended = Recommended::read(&files, &draft.defaults())?;
        Ok(Outline::of_draft(&*draft, options, format, &device, &recommended)?.0)
    }

    /// Of a model whose weights are not in memory yet, and whether its text encoder is to stay there.
    pub(super) fn of_draft(
        draft: &dyn Draft,
        options: &OpenOptions,
        format: Format,
        device: &Device,
        recommended: &Recommended,
    ) -> Result<(Self, bool)> {
        let whole = Outline::new(draft.footprint(), format, device, recommended);
        let Some(lean) = draft.without_text_encoder() else {
            return match options.text_encoder {
                TextEncoder::Auto => Ok((whole, true)),
                other => {
                    let message =
                        format!("is {}, but the model has no text encoder of its own; leave it auto", other.name());
                    Err(Error::invalid("text_encoder", message))
                }
            };
        };
        let keep = match options.text_encoder {
            TextEncoder::Keep => true,
            TextEncoder::Unload => false,
            TextEncoder::Auto => whole.free.is_none_or(|free| whole.weights(format) <= free / 2),
        };
        Ok((if keep { whole } else { Outline { footprint: lean, ..whole } }, keep))
    }

    /// Of an opened model.
    pub fn of(model: &Model) -> Self {
        let outline = Outline::new(model.family.footprint(), model.format, model.device(), &model.recommended);
        Outline { opened: true, ..outline }
    }

    /// Bytes of all weights in a format.
    pub fn weights(&self, format: Format) -> u64 {
        bytes(self.footprint.weights(&Place { format, ..self.at }))
    }

    /// Errors if the model would not fit what is free, with a format of the weights that would.
    pub fn check_opening(&self) -> Result<()> {
        let Some(free) = self.free else { return Ok(()) };
        let now = self.weights(self.at.format);
        if now <= free {
            return Ok(());
        }
        let smaller = Format::ALL.into_iter().find(|&f| self.weights(f) <= free);
        let advice = smaller.map(|f| format!("open it with dtype {}", f.name()));
        Err(Error::OutOfMemory { what: "the model".into(), needed: now, free, advice })
    }
}

/// Absurd sizes count as more than there can be.
pub(crate) fn bytes(bytes: u128) -> u64 {
    bytes.try_into().unwrap_or(u64::MAX)
}
