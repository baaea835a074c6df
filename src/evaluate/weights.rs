//! The files of a network: where its weights are in a folder, and which they were.

use super::vit::{Linear, Norm};
use crate::files::checkpoint::Checkpoint;
use crate::files::Files;
use crate::run::Control;
use crate::{Error, Result};
use candle_core::{DType, Device};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::Path;

/// The weights of one network and what lies beside them.
pub struct Weights {
    pub files: Files,
    pub checkpoint: Checkpoint,
    /// Looked at before each tensor: large networks take seconds to load.
    pub control: Control,
}

/// A file that scores were made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fingerprint {
    pub file: String,
    pub sha256: String,
}

impl Weights {
    /// Opens a folder (`model.safetensors`, its shards, `pytorch_model.bin`, or the only file of weights in it), or a file of
    /// weights. `role` is what the network is needed as.
    pub fn open(path: &Path, role: &str, control: &Control) -> Result<Self> {
        let (files, checkpoint) = Self::find(path, role)?;
        Ok(Weights { files, checkpoint, control: control.clone() })
    }

    fn find(path: &Path, role: &str) -> Result<(Files, Checkpoint)> {
        let found = std::fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::NotFound { path: path.into(), message: format!("no such file or folder; {role} is wanted") }
            }
            _ => Error::io(path, e),
        })?;
        if !found.is_dir() {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return Self::of_file(Files::Folder(folder.into()), &name);
        }
        let files = Files::Folder(path.into());
        let names = files.list()?;
        let is = |name: &str, ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        if names.iter().any(|n| n.starts_with("model") && is(n, &[".safetensors", ".safetensors.index.json"])) {
            let checkpoint = Checkpoint::open(&files, "model")?;
            return Ok((files, checkpoint));
        }
        if files.exists("pytorch_model.bin") {
            return Self::of_file(files, "pytorch_model.bin");
        }
        let others: Vec<&String> = names.iter().filter(|n| is(n, &[".safetensors", ".pth", ".pt", ".bin"])).collect();
        match others[..] {
            [only] => Self::of_file(files.clone(), only),
            [] => Err(Error::NotFound {
                path: path.into(),
                message: format!(
                    "has no weights of {role}; model.safetensors, pytorch_model.bin or a .pth file is needed"
                ),
            }),
            _ => Err(Error::NotFound {
                path: path.into(),
                message: format!("has {} files of weights; name the one that {role} is in", others.len()),
            }),
        }
    }

    fn of_file(files: Files, name: &str) -> Result<(Files, Checkpoint)> {
        let checkpoint = match name.ends_with(".safetensors") {
            true => Checkpoint::open_file(&files, name)?,
            false => Checkpoint::open_pickle(&files, name, None)?,
        };
        Ok((files, checkpoint))
    }

    /// `config.json`, if there is one.
    pub fn config(&self) -> Result<Option<serde_json::Value>> {
        const NAME: &str = "config.json";
        if !self.files.exists(NAME) {
            return Ok(None);
        }
        let bad = |e: serde_json::Error| Error::bad_format(self.files.path(NAME), format!("is not JSON: {e}"));
        serde_json::from_str(&self.files.text(NAME)?).map(Some).map_err(bad)
    }

    /// An error about the weights as a whole.
    pub fn unsupported(&self, message: impl Into<String>) -> Error {
        Error::UnsupportedModel { file: self.checkpoint.path().into(), message: message.into() }
    }

    /// SHA-256 of the weights' files, and of others that are there.
    pub fn fingerprints(&self, others: &[&str]) -> Result<Vec<Fingerprint>> {
        let own = self.checkpoint.files().filter_map(|path| path.file_name()?.to_str());
        let others = others.iter().copied().filter(|name| self.files.exists(name));
        let names: Vec<&str> = own.chain(others).collect();
        let fingerprint = |name: &&str| {
            let (bytes, mut hash) = (self.files.bytes(name)?, Sha256::new());
            for part in bytes.chunks(1 << 24) {
                self.control.check()?;
                hash.update(part);
            }
            let sha256 = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
            Ok(Fingerprint { file: name.to_string(), sha256 })
        };
        names.par_iter().map(fingerprint).collect()
    }

    pub fn vector(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.control.check()?;
        let tensor = self.checkpoint.get(name, shape, DType::F32, &Device::Cpu)?;
        Ok(tensor.flatten_all()?.to_vec1()?)
    }

    /// `NAME.weight` [outputs, inputs] and `NAME.bias`.
    pub fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
        let weight = self.vector(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Linear { weight, bias: self.vector(&format!("{name}.bias"), &[outputs])? })
    }

    /// `NAME.weight` and `NAME.bias`.
    pub fn norm(&self, name: &str, width: usize, eps: f32) -> Result<Norm> {
        let weight = self.vector(&format!("{name}.weight"), &[width])?;
        Ok(Norm { weight, bias: self.vector(&format!("{name}.bias"), &[width])?, eps })
    }

    /// The shape of a tensor that has to have `N` dimensions, none of them 0.
    pub fn shape<const N: usize>(&self, name: &str, expected: &str) -> Result<[usize; N]> {
        let found = self.checkpoint.shape(name);
        let shape = found.and_then(|s| <[usize; N]>::try_from(s).ok()).filter(|s| !s.contains(&0));
        shape.ok_or_else(|| Error::Tensor {
            file: self.checkpoint.path().into(),
            tensor: name.into(),
            expected: expected.into(),
            found: found.map_or("no such tensor".into(), |s| format!("shape {s:?}")),
        })
    }

    /// How many consecutive layers there are, by a tensor that each has.
    pub fn layers(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|&i| self.checkpoint.contains(&name(i))).count()
    }
}
