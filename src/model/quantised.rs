//! Quantised weights in a file beside the model's own: made the first time, read from then on.
//!
//! The file, `sitter.FORMAT.safetensors`, holds the blocks of each quantised matrix as bytes under the matrix's name, and in its
//! header the fingerprint of the checkpoint that they were made of. It can be made anew at any time: one that does not
//! fit is replaced, and where none can be written the model works without.

use crate::files::checkpoint::Checkpoint;
use crate::files::tensor_file::{self, Kind};
use crate::files::Files;
use crate::run::Control;
use crate::weight::{Blocks, Format, Weight};
use crate::weights::Weights;
use crate::{Error, Result};
use candle_core::Device;
use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;

const FILE: Kind = Kind { key: "sitter_weights", name: "a file of quantised weights", version: 1 };

/// Whose weights the file holds.
#[derive(Serialize, Deserialize, PartialEq)]
struct Origin {
    /// Of the checkpoint, hexadecimal.
    fingerprint: String,
    format: String,
}

/// The quantised weights of a model, as far as a file has them.
pub struct Quantised {
    path: PathBuf,
    origin: Origin,
    file: Option<Checkpoint>,
    /// Whether a matrix was asked for that is not there.
    incomplete: Cell<bool>,
}

impl Quantised {
    /// None if the format has no blocks or the model lies in no folder.
    pub fn open(files: &Files, checkpoint: &Checkpoint, format: Format) -> Option<Self> {
        let (Files::Folder(folder), Format::Q8_0 | Format::Q4K) = (files, format) else { return None };
        let path = folder.join(format!("sitter.{}.safetensors", format.name()));
        let fingerprint = checkpoint.fingerprint().ok()?.iter().map(|b| format!("{b:02x}")).collect();
        let origin = Origin { fingerprint, format: format.name().into() };
        let file = match path.exists().then(|| tensor_file::open::<Origin>(&path, &FILE)) {
            Some(Ok(file)) if file.content == origin => Some(file.into_checkpoint()),
            Some(Ok(_)) => {
                log::warn!("{} is of other weights and is not used", path.display());
                None
            }
            Some(Err(e)) => {
                log::warn!("not used: {e}");
                None
            }
            None => None,
        };
        Some(Quantised { path, origin, file, incomplete: Cell::new(false) })
    }

    /// The blocks of a matrix, if they are there and sound.
    pub fn get(&self, name: &str, shape: &[usize], format: Format, device: &Device) -> Result<Option<Weight>> {
        let (&[rows, width], Some(dtype)) = (shape, format.blocks(shape[shape.len() - 1])) else { return Ok(None) };
        let bytes = match self.file.as_ref().map_or(Ok(None), |file| file.raw(name)) {
            Err(e @ (Error::Corrupt { .. } | Error::BadFormat { .. } | Error::Io { .. })) => {
                log::warn!("not used: {e}");
                None
            }
            bytes => bytes?,
        };
        let found = match bytes {
            Some(bytes) => Blocks::read(bytes, [rows, width], dtype, device)?,
            None => None,
        };
        if found.is_none() {
            self.incomplete.set(true);
            if self.file.is_some() {
                log::warn!("{}: {name} is damaged or missing and is made anew", self.path.display());
            }
        }
        Ok(found.map(Weight::Quantised))
    }

    /// Writes the file if a matrix was missing. What stands in the way is logged: the model is there without it. Errors if
    /// `stop` is cancelled.
    pub fn keep(self, weights: &Weights, stop: &Control) -> Result<()> {
        if !self.incomplete.get() {
            return Ok(());
        }
        // Whoever made the folder does not say where else this library writes.
        if self.path.is_symlink() {
            log::warn!("the quantised weights are not kept: {} is a link", self.path.display());
            return Ok(());
        }
        let quantised = weights.iter().filter_map(|entry| match &entry.weight {
            Weight::Quantised(blocks) => Some((entry.spec.name.clone(), Matrix::new(blocks))),
            Weight::Dense(_) => None,
        });
        let matrices: BTreeMap<String, Matrix> = quantised.collect();
        match tensor_file::save(&self.path, &FILE, &self.origin, &matrices, stop) {
            Ok(()) => log::info!("wrote {}: it is read the next time", self.path.display()),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(e) => log::warn!("the quantised weights are not kept: {e}"),
        }
        Ok(())
    }
}

/// A matrix as the file holds it: u8 [rows, bytes of a row].
struct Matrix<'a> {
    blocks: &'a Blocks,
    shape: [usize; 2],
}

impl<'a> Matrix<'a> {
    fn new(blocks: &'a Blocks) -> Self {
        let [rows, _] = blocks.dims();
        Matrix { blocks, shape: [rows, blocks.row_bytes()] }
    }
}

impl View for Matrix<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::U8
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Empty, and so not what was announced, if a device does not give its memory back.
    fn data(&self) -> Cow<'_, [u8]> {
        self.blocks.bytes().unwrap_or_default()
    }

    fn data_len(&self) -> usize {
        self.shape[0] * self.shape[1]
    }
}
