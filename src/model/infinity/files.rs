//! Finding the three parts of a model in its folder: transformer, image tokenizer, text encoder. Checkpoints are known by their
//! tensors, whatever their files are called; the text encoder lies in a folder of its own.

use super::config::Config;
use super::vae;
use crate::files::checkpoint::Checkpoint;
use crate::files::Files;
use crate::model::family::model_type;
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Where the tensors may be in a pickle: at its top, or in a dict of it (of upstream's and ARBooth's training checkpoints, too).
const KEYS: [Option<&str>; 6] =
    [None, Some("vae"), Some("model"), Some("state_dict"), Some("trainer/gpt_fsdp"), Some("gpt_fsdp")];
/// Folders in which the text encoder is looked for first.
const TEXT_FOLDERS: [&str; 2] = ["text_encoder", "flan-t5-xl"];

/// The checkpoints of a model.
pub struct Parts {
    pub transformer: Checkpoint,
    pub vae: Checkpoint,
}

impl Parts {
    pub fn find(files: &Files) -> Result<Parts> {
        let (mut transformer, mut vae, mut failure) = (None, None, None);
        for candidate in candidates(files)? {
            match candidate.open() {
                Ok(found) if Config::fits(&found) => put(&mut transformer, found, "transformer")?,
                Ok(found) if is_vae(&found) => put(&mut vae, found, "image tokenizer")?,
                Ok(_) => {}
                // It may be something else that lies there; if a part is missing, this is the reason.
                Err(e) => failure = failure.or(Some(e)),
            }
        }
        let missing = |what: &str, sign: &str| {
            let message = format!("no {what} among the files: a .pth or .safetensors file with {sign} is needed");
            Error::NotFound { path: files.path(""), message }
        };
        match (transformer, vae, failure) {
            (Some(transformer), Some(vae), _) => Ok(Parts { transformer, vae }),
            (_, _, Some(failure)) => Err(failure),
            (None, _, None) => Err(missing("transformer", "text_proj_for_sos.ca.mat_q (infinity_2b_reg.pth)")),
            (_, None, None) => Err(missing("image tokenizer", "encoder.conv_in (infinity_vae_d32reg.pth)")),
        }
    }

    /// Whether there is a transformer of this family in the folder.
    pub fn claims(files: &Files) -> bool {
        let candidates = candidates(files).unwrap_or_default();
        candidates.iter().any(|candidate| candidate.open().is_ok_and(|found| Config::fits(&found)))
    }
}

fn put(place: &mut Option<Checkpoint>, found: Checkpoint, what: &str) -> Result<()> {
    match place.replace(found) {
        None => Ok(()),
        Some(other) => {
            let path = place.as_ref().map_or_else(Default::default, |c| c.path().display().to_string());
            Err(Error::bad_format(other.path(), format!("is the {what}, and so is {path}; remove one")))
        }
    }
}

fn is_vae(checkpoint: &Checkpoint) -> bool {
    vae::Weights { checkpoint, prefix: "" }.are_there()
}

/// A file, or shards with their index.
enum Candidate {
    SafeTensors(Files, String),
    Pickle(Files, String),
    /// The index of shards: its name less what says that it is one.
    SafeTensorShards(Files, String),
    PickleShards(Files, String),
}

impl Candidate {
    fn open(&self) -> Result<Checkpoint> {
        match self {
            Candidate::SafeTensors(files, name) => Checkpoint::open_file(files, name),
            Candidate::SafeTensorShards(files, stem) => Checkpoint::open(files, stem),
            Candidate::Pickle(files, name) => open_pickle(files, name),
            Candidate::PickleShards(files, index) => pickle_shards(files, index),
        }
    }
}

/// What may be a checkpoint: files at the top, and the shards that an index there or one folder below names.
fn candidates(files: &Files) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for name in files.list()? {
        // What this library itself keeps beside a model.
        if name.starts_with("sitter.") || name.starts_with('.') {
            continue;
        }
        let files = files.clone();
        let is_shard = name.contains("-of-");
        if let Some(stem) = name.strip_suffix(".safetensors.index.json") {
            found.push(Candidate::SafeTensorShards(files, stem.into()));
        } else if name.ends_with(".bin.index.json") {
            found.push(Candidate::PickleShards(files, name));
        } else if name.ends_with(".safetensors") && !is_shard && files.exists(&name) {
            found.push(Candidate::SafeTensors(files, name));
        } else if [".pth", ".pt", ".ckpt", ".bin"].iter().any(|e| name.ends_with(e)) && !is_shard && files.exists(&name)
        {
            found.push(Candidate::Pickle(files, name));
        } else if let Files::Folder(folder) = &files {
            let inner = Files::Folder(folder.join(&name));
            if folder.join(&name).is_dir() && !says_t5(&inner, "") {
                let names = inner.list()?;
                for index in names.iter().filter(|n| n.ends_with(".index.json")) {
                    match index.strip_suffix(".safetensors.index.json") {
                        Some(stem) => found.push(Candidate::SafeTensorShards(inner.clone(), stem.into())),
                        None => found.push(Candidate::PickleShards(inner.clone(), index.clone())),
                    }
                }
            }
        }
    }
    Ok(found)
}

/// The first of the dicts in a pickle that has tensors; if none has, what is wrong with the file.
fn open_pickle(files: &Files, name: &str) -> Result<Checkpoint> {
    let mut failure = None;
    for key in KEYS {
        match Checkpoint::open_pickle(files, name, key) {
            Ok(found) => return Ok(found),
            Err(e) => failure = failure.or(Some(e)),
        }
    }
    Err(failure.unwrap_or_else(|| Error::internal("no keys")))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn pickle_shards(files: &Files, index: &str) -> Result<Checkpoint> {
    let bad = |message: String| Error::bad_format(files.path(index), message);
    let Index { weight_map } = serde_json::from_str(&files.text(index)?)
        .map_err(|e| bad(format!("is not an index of shards ({e}); get it again")))?;
    let shards: BTreeSet<&String> = weight_map.values().collect();
    if shards.is_empty() {
        return Err(bad("names no tensors in its weight_map; get the file again".into()));
    }
    let joined = Checkpoint::joined(
        shards.into_iter().map(|shard| Checkpoint::open_pickle(files, shard, None)).collect::<Result<_>>()?,
    )?;
    match weight_map.keys().find(|name| !joined.contains(name)) {
        None => Ok(joined),
        Some(absent) => {
            Err(bad(format!("says that tensor {absent} is in a shard, which does not have it; get all shards again")))
        }
    }
}

/// The text encoder's folder.
pub struct TextFiles {
    files: Files,
    /// What stands before each name: empty for folders, the folder's name among files inside the library.
    prefix: String,
}

impl TextFiles {
    /// `text_encoder`, `flan-t5-xl`, or the only folder whose configuration says t5.
    pub fn find(files: &Files) -> Result<TextFiles> {
        let names: BTreeSet<String> = match files {
            Files::Folder(_) => files.list()?.into_iter().collect(),
            Files::Embedded(..) => {
                files.list()?.iter().filter_map(|n| Some(n.split_once('/')?.0.to_string())).collect()
            }
        };
        let of = |name: &str| match files {
            Files::Folder(folder) => TextFiles { files: Files::Folder(folder.join(name)), prefix: String::new() },
            Files::Embedded(..) => TextFiles { files: files.clone(), prefix: format!("{name}/") },
        };
        let is_t5 = |name: &&str| {
            let found = of(name);
            says_t5(&found.files, &found.prefix)
        };
        if let Some(name) = TEXT_FOLDERS.iter().find(|n| names.contains(**n) && is_t5(n)) {
            return Ok(of(name));
        }
        let others: Vec<&str> = names.iter().map(String::as_str).filter(is_t5).collect();
        match others[..] {
            [name] => Ok(of(name)),
            [] => Err(Error::NotFound {
                path: files.path(TEXT_FOLDERS[0]),
                message: "no text encoder: a folder text_encoder with config.json (model_type t5), tokenizer.json and \
                          model.safetensors or pytorch_model.bin is needed, such as google/flan-t5-xl"
                    .into(),
            }),
            _ => Err(Error::bad_format(
                files.path(""),
                format!("has several text encoders: {}; remove all but one", others.join(", ")),
            )),
        }
    }

    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn files(&self) -> &Files {
        &self.files
    }

    pub fn config(&self) -> Result<super::t5::Config> {
        let name = self.name("config.json");
        super::t5::Config::from_json(&self.files.text(&name)?, &self.files.path(&name))
    }

    /// The weights as safetensors or, if there are none, as pickles.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let there = |name: &str| self.files.exists(&self.name(name));
        let safetensors = there("model.safetensors") || there("model.safetensors.index.json");
        if !safetensors && there("pytorch_model.bin") {
            return Checkpoint::open_pickle(&self.files, &self.name("pytorch_model.bin"), None);
        }
        if !safetensors && there("pytorch_model.bin.index.json") {
            return pickle_shards(&self.files, &self.name("pytorch_model.bin.index.json"));
        }
        Checkpoint::open(&self.files, &self.name("model"))
    }
}

/// Whether the configuration with this prefix is that of a T5.
fn says_t5(files: &Files, prefix: &str) -> bool {
    let name = format!("{prefix}config.json");
    files.exists(&name) && model_type(files, &name).as_deref() == Some("t5")
}
