//! Checkpoints of a training in progress: written every so often, and taken up again to the same result.

use super::learner::Learner;
use super::options::Options;
use crate::device::to_host;
use crate::files::tensor_file::{self, Kind, Opened};
use crate::model::subject::LossRecord;
use crate::model::Model;
use crate::run::{Run, Stage};
use crate::tokens::Tokens;
use crate::{save, Error, Result};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;

const FILE: Kind = Kind { key: "sitter_training", name: "a training checkpoint", version: 1 };

/// What a checkpoint belongs to; training can only go on from it if nothing of this has changed.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Fingerprint of the model, and the number format that it runs in.
    model: String,
    dtype: String,
    /// SHA-256 of the encoded pictures and their captions.
    references: String,
    /// All options but those about the checkpoint itself and about pictures to look at, each as its JSON text: numbers must not suffer from being parsed.
    options: BTreeMap<String, String>,
}

impl Identity {
    pub fn new(model: &Model, options: &Options, references: &[Vec<Tokens>], captions: Option<&[String]>) -> Self {
        let mut hash = Sha256::new();
        for (index, copies) in references.iter().enumerate() {
            for tokens in copies {
                hash.update([index as u32, tokens.height(), tokens.width()].map(u32::to_le_bytes).concat());
                tokens.codes().iter().for_each(|c| hash.update(c.to_le_bytes()));
            }
        }
        for caption in captions.unwrap_or_default() {
            hash.update((caption.len() as u64).to_le_bytes());
            hash.update(caption);
        }
        let all = match serde_json::to_value(options) {
            Ok(serde_json::Value::Object(all)) => all,
            _ => Default::default(),
        };
        let all = all.into_iter().filter(|(name, _)| {
            !name.starts_with("checkpoint_") && !name.starts_with("sample_") && name != "optimizer_device"
        });
        Identity {
            model: model.fingerprint().to_string(),
            dtype: model.info().dtype.to_string(),
            references: hash.finalize().iter().map(|b| format!("{b:02x}")).collect(),
            options: all.map(|(name, value)| (name, value.to_string())).collect(),
        }
    }

    /// What differs from an older identity, in words.
    fn differences(&self, old: &Identity) -> Vec<String> {
        let mut found = Vec::new();
        if self.model != old.model {
            found.push(format!("the model ({}, now {})", old.model, self.model));
        }
        if self.dtype != old.dtype {
            found.push(format!("the model's dtype ({}, now {})", old.dtype, self.dtype));
        }
        let defaults = serde_json::to_value(Options::default()).unwrap_or_default();
        for (name, now) in &self.options {
            match old.options.get(name) {
                Some(before) if before == now => {}
                Some(before) => found.push(format!("{name} ({before}, now {now})")),
                // Options that an older version did not have were at their defaults.
                None if defaults.get(name).is_none_or(|default| now != &default.to_string()) => {
                    found.push(name.clone())
                }
                None => {}
            }
        }
        if self.references != old.references {
            found.push("the reference pictures or their captions".into());
        }
        found
    }
}

/// Where training stood.
#[derive(Serialize, Deserialize)]
struct Position {
    identity: Identity,
    stage: String,
    steps: u64,
    losses: Vec<LossRecord>,
    /// Height, width and prompt of the class pictures for prior preservation.
    prior: Vec<(u32, u32, String)>,
    /// All grids of each of them, if they have several.
    #[serde(default)]
    prior_grids: Vec<Vec<(u32, u32)>>,
}

/// The checkpoint file of one training.
pub(super) struct Checkpointing {
    path: Option<PathBuf>,
    every: u64,
    identity: Identity,
    /// What an interrupted training left behind.
    earlier: Option<Opened<Position>>,
}

impl Checkpointing {
    /// Errors if what the options ask for cannot be done: to be called before work that would be lost.
    pub fn check(options: &Options) -> Result<()> {
        let Some(path) = &options.checkpoint_path else { return Ok(()) };
        if path.exists() {
            tensor_file::open::<Position>(path, &FILE)?;
        }
        match options.checkpoint_every {
            0 => Ok(()),
            _ => save::check(path),
        }
    }

    /// Looks for what an interrupted training left behind.
    pub fn begin(options: &Options, identity: Identity) -> Result<Self> {
        let path = options.checkpoint_path.clone();
        let mut earlier = None;
        if let Some(path) = path.as_deref().filter(|p| p.exists()) {
            let file = tensor_file::open::<Position>(path, &FILE)?;
            let differences = identity.differences(&file.content.identity);
            if !differences.is_empty() {
                let message = format!(
                    "{} was written by a training that differs in {}; delete it to start anew, or choose another file",
                    path.display(),
                    differences.join(", ")
                );
                return Err(Error::invalid("checkpoint_path", message));
            }
            let Position { stage, steps, .. } = &file.content;
            let total = match stage.as_str() {
                name if name == Stage::Embedding.name() => options.embedding_steps,
                name if name == Stage::Layers.name() => options.layer_steps,
                other => return Err(file.bad(format!("is of a stage {other:?}; there are embedding and layers"))),
            };
            if *steps > u64::from(total) {
                return Err(file.bad(format!("is of step {steps} of stage {stage}, which has {total}")));
            }
            log::info!("going on from {}: stage {}, step {}", path.display(), file.content.stage, file.content.steps);
            earlier = Some(file);
        }
        Ok(Checkpointing { path, every: options.checkpoint_every.into(), identity, earlier })
    }

    /// The losses recorded before the interruption.
    pub fn losses(&self) -> Vec<LossRecord> {
        self.earlier.as_ref().map_or(vec![], |e| e.content.losses.clone())
    }

    /// The class pictures drawn before the interruption, if there was one.
    pub fn prior(&self) -> Result<Option<Vec<(String, Tokens)>>> {
        let Some(earlier) = &self.earlier else { return Ok(None) };
        let pictures = earlier.content.prior.iter().enumerate().map(|(i, (height, width, prompt))| {
            let name = format!("prior.{i}");
            if let Some(grids) = earlier.content.prior_grids.get(i).filter(|grids| grids.len() > 1) {
                let cells: usize = grids.iter().map(|(h, w)| *h as usize * *w as usize).sum();
                let halves = earlier.get_shaped(&name, &[2, cells])?.to_vec2::<f32>()?;
                let codes = halves[0].iter().zip(&halves[1]).map(|(high, low)| (*high as u32) << 16 | *low as u32);
                return Ok((prompt.clone(), Tokens::of_grids(grids, codes.collect())?));
            }
            let codes = earlier.get_shaped(&name, &[*height as usize * *width as usize])?.to_vec1::<f32>()?;
            Ok((prompt.clone(), Tokens::new(*height, *width, codes.into_iter().map(|c| c as u32).collect())?))
        });
        Ok(Some(pictures.collect::<Result<_>>()?))
    }

    /// The vectors as the embedding stage left them, if the interruption came after it.
    pub fn finished_embedding(&self, shape: &[usize]) -> Result<Option<Tensor>> {
        match &self.earlier {
            Some(e) if e.content.stage == Stage::Layers.name() => Ok(Some(e.get_shaped("vectors", shape)?)),
            _ => Ok(None),
        }
    }

    /// Brings a learner that is at the beginning of its stage to where the interruption came, if it came in this stage.
    pub fn restore(&self, learner: &mut Learner) -> Result<()> {
        match &self.earlier {
            Some(e) if e.content.stage == learner.stage().name() => {
                learner.restore(e.content.steps, |name, shape| e.get_shaped(name, shape))
            }
            _ => Ok(()),
        }
    }

    /// Writes a checkpoint if one is due. A run that is cancelled meanwhile leaves the one before it, and so does a failure,
    /// after which training goes on: whoever has filled the disk may make room before the next one is due.
    pub fn save(
        &self,
        learner: &Learner,
        losses: &[LossRecord],
        prior: &[(String, Tokens)],
        run: &mut Run,
    ) -> Result<()> {
        let Some(path) = self.path.as_deref().filter(|_| self.every > 0 && learner.steps().is_multiple_of(self.every))
        else {
            return Ok(());
        };
        let mut tensors = learner.state()?;
        tensors.insert("vectors".into(), to_host(&learner.vectors()?)?);
        for (i, (_, tokens)) in prior.iter().enumerate() {
            // As f32, the one kind of number that these files hold; it is exact far beyond any codebook.
            let numbers = |of: fn(u32) -> u32| tokens.codes().iter().map(|&c| of(c) as f32).collect::<Vec<_>>();
            let codes = match tokens.grids().len() {
                1 => Tensor::new(numbers(|c| c), &Device::Cpu)?,
                // Codes of many bits, in halves.
                _ => Tensor::new(vec![numbers(|c| c >> 16), numbers(|c| c & 0xffff)], &Device::Cpu)?,
            };
            tensors.insert(format!("prior.{i}"), codes);
        }
        let position = Position {
            identity: self.identity.clone(),
            stage: learner.stage().name().to_string(),
            steps: learner.steps(),
            losses: losses.to_vec(),
            prior: prior.iter().map(|(prompt, t)| (t.height(), t.width(), prompt.clone())).collect(),
            prior_grids: match prior.iter().any(|(_, t)| t.grids().len() > 1) {
                true => prior.iter().map(|(_, t)| t.grids()).collect(),
                false => vec![],
            },
        };
        match tensor_file::save(path, &FILE, &position, &tensors, &run.control()) {
            Err(e @ (Error::Io { .. } | Error::NotFound { .. })) => {
                let (step, every) = (position.steps, self.every);
                run.warn(&format!("no checkpoint at step {step}, tried again in {every} steps: {e}"));
                Ok(())
            }
            saved => saved,
        }
    }

    /// Training came to its end: the file is of no more use.
    pub fn remove(&self, run: &mut Run) {
        if let Some(Err(e)) = self.path.as_deref().map(save::remove) {
            run.warn(&format!("the checkpoint is of no more use, but stays: {e}"));
        }
    }
}
