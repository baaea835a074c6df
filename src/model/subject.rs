//! What training learned about one subject, and the small file it is kept in.

use super::Model;
use crate::files::tensor_file::{self, Kind};
use crate::run::Control;
use crate::weights::Change;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const FILE: Kind = Kind { key: "sitter_subject", name: "a subject", version: 1 };

/// Says what is wrong with an identifier, if anything. It stands in prompts as a word.
pub fn check_identifier(identifier: &str) -> std::result::Result<(), String> {
    let is_word = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control());
    match !identifier.is_empty() && identifier.len() <= 64 && is_word(identifier) {
        true => Ok(()),
        false => Err(format!("is {identifier:?}; allowed are 1 to 64 bytes without blanks")),
    }
}

/// One recorded training loss: computed at `step` of `stage` before its update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossRecord {
    /// `embedding` or `layers`.
    pub stage: String,
    /// From 0.
    pub step: u64,
    /// Cross entropy and z-loss as one number, in nats per labelled token.
    pub loss: f32,
}

/// A learned subject. It belongs to the model it was trained on.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The word that stands for the subject in a prompt, `[V]` by default.
    pub identifier: String,
    pub class_word: String,
    /// [vectors, hidden], f32, on the CPU.
    pub vectors: Tensor,
    /// By the weight's name in the checkpoint.
    pub changes: BTreeMap<String, Change>,
    /// Fingerprint of the model, see [`Model::fingerprint`].
    pub model: String,
    /// Under what terms the model's weights may be used, where that is known; they may hold for what was made from them, too.
    pub licence: Option<String>,
    /// The preset it was trained with.
    pub method: String,
    /// All options of the training, as JSON.
    pub options: serde_json::Value,
    pub losses: Vec<LossRecord>,
}

/// What a subject file says about itself besides its tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Description {
    identifier: String,
    class_word: String,
    model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    licence: Option<String>,
    method: String,
    options: serde_json::Value,
    losses: Vec<LossRecord>,
}

/// Facts about a subject.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    pub identifier: String,
    pub class_word: String,
    /// Fingerprint of the model that it belongs to.
    pub model: String,
    /// Under what terms that model's weights may be used, where it was known when the subject was taught.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    pub method: String,
    /// Vectors that stand for the identifier.
    pub vectors: usize,
    /// Weights of the model that it changes, and the numbers stored for them.
    pub changed_weights: usize,
    pub stored_numbers: usize,
    /// Training steps done, and the loss of the last one.
    pub steps: usize,
    pub last_loss: Option<f32>,
}

impl Subject {
    pub fn info(&self) -> Info {
        Info {
            identifier: self.identifier.clone(),
            class_word: self.class_word.clone(),
            model: self.model.clone(),
            licence: self.licence.clone(),
            method: self.method.clone(),
            vectors: self.vectors.dims()[0],
            changed_weights: self.changes.len(),
            stored_numbers: self.changes.values().map(Change::numbers).sum(),
            steps: self.losses.len(),
            last_loss: self.losses.last().map(|l| l.loss),
        }
    }

    /// Writes the subject file: one safetensors that holds only what training changed. It appears whole or not at all,
    /// and replaces an older one of that name.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut tensors = BTreeMap::from([("vectors".to_string(), self.vectors.contiguous()?)]);
        for (name, change) in &self.changes {
            match change {
                Change::Delta(delta) => {
                    tensors.insert(format!("delta.{name}"), delta.contiguous()?);
                }
                Change::LowRank { down, up } => {
                    tensors.insert(format!("down.{name}"), down.contiguous()?);
                    tensors.insert(format!("up.{name}"), up.contiguous()?);
                }
            }
        }
        let description = Description {
            identifier: self.identifier.clone(),
            class_word: self.class_word.clone(),
            model: self.model.clone(),
            licence: self.licence.clone(),
            method: self.method.clone(),
            options: self.options.clone(),
            losses: self.losses.clone(),
        };
        tensor_file::save(path.as_ref(), &FILE, &description, &tensors, &Control::default())
    }

    /// Reads a subject file. Which model it belongs to is checked where it meets one.
    pub fn load(path: impl AsRef<Path>) -> Result<Subject> {
        let file = tensor_file::open::<Description>(path.as_ref(), &FILE)?;
        let vectors = match file.contains("vectors") {
            true => file.get("vectors")?.to_dtype(DType::F32)?,
            false => return Err(file.bad("the tensor vectors is missing")),
        };
        if vectors.rank() != 2 || vectors.elem_count() == 0 {
            return Err(
                file.bad(format!("the tensor vectors has shape {:?}; expected [vectors, hidden]", vectors.dims()))
            );
        }
        check_identifier(&file.content.identifier).map_err(|what| file.bad(format!("its identifier {what}")))?;
        let licence = file.content.licence.as_deref().unwrap_or_default();
        for (what, text, most) in [("class word", file.content.class_word.as_str(), 1024), ("licence", licence, 4096)] {
            if text.len() > most || text.contains(char::is_control) {
                let start: String = text.chars().take(100).collect();
                return Err(file.bad(format!("its {what} is {start:?}; allowed are up to {most} bytes of plain text")));
            }
        }
        let mut changes = BTreeMap::new();
        for name in file.names() {
            if let Some(weight) = name.strip_prefix("delta.") {
                changes.insert(weight.to_string(), Change::Delta(file.get(name)?));
            } else if let Some(weight) = name.strip_prefix("down.") {
                let other = format!("up.{weight}");
                if !file.contains(&other) {
                    return Err(file.bad(format!("the tensor {other} is missing, though {name} is there")));
                }
                let (down, up) = (file.get(name)?, file.get(&other)?);
                match (down.dims(), up.dims()) {
                    ([a, _], [_, b]) if a == b => {}
                    (d, u) => {
                        return Err(file.bad(format!("{name} of shape {d:?} does not fit {other} of shape {u:?}")))
                    }
                }
                changes.insert(weight.to_string(), Change::LowRank { down, up });
            } else if let Some(weight) = name.strip_prefix("up.") {
                if !file.contains(&format!("down.{weight}")) {
                    return Err(file.bad(format!("the tensor down.{weight} is missing, though {name} is there")));
                }
            } else if name != "vectors" {
                return Err(file.bad(format!("the tensor {name} has no place in a subject")));
            }
        }
        let d = file.content;
        Ok(Subject {
            identifier: d.identifier,
            class_word: d.class_word,
            vectors,
            changes,
            model: d.model,
            licence: d.licence,
            method: d.method,
            options: d.options,
            losses: d.losses,
        })
    }

    /// Errors if the subject was trained on another model.
    pub fn check_model(&self, model: &Model) -> Result<()> {
        if self.model == model.fingerprint() {
            return Ok(());
        }
        Err(Error::WrongModel {
            subject: self.model.clone(),
            model: format!("{} ({})", model.fingerprint(), model.name()),
        })
    }

    /// The same subject with the layers put back to the model's own: only its vectors remain.
    pub fn without_layers(&self) -> Subject {
        Subject { changes: BTreeMap::new(), ..self.clone() }
    }
}
