//! Opening a folder as published: `config.json`, `tokenizer.json`, and the weights as safetensors (`model.safetensors` or shards
//! with an index) or as PyTorch files (`pytorch_model.bin` or shards with an index), under the names of either form.

use super::config::{Config, Tensors};
use super::footprint::JanusFootprint;
use super::names::{self, Form};
use super::prompt::Prompts;
use super::Janus;
use crate::files::checkpoint::Checkpoint;
use crate::files::Files;
use crate::model::family::{model_type, Draft, Entry, Facts, Opened, Opening};
use crate::model::footprint::Footprint;
use crate::model::llama::{Source, Transformer};
use crate::model::quantised::Quantised;
use crate::model::text::Text;
use crate::model::vqgan::Vqgan;
use crate::run::{Run, Stage};
use crate::Result;
use candle_core::DType;
use serde_json::{json, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The family's line in the registry.
pub static ENTRY: Entry = Entry {
    name: "janus-pro",
    sign: "\"janus\" or \"multi_modality\" (Janus-Pro)",
    roles: &["qkv", "attention", "mlp", "head", "aligner"],
    claims,
    draft: |files| Ok(Box::new(draft(files)?)),
};

fn claims(files: &Files) -> bool {
    matches!(model_type(files, "config.json").as_deref(), Some("janus" | "multi_modality"))
}

struct JanusDraft {
    config: Config,
    checkpoint: Checkpoint,
    form: Form,
    footprint: Arc<JanusFootprint>,
}

fn draft(files: &Files) -> Result<JanusDraft> {
    let config_text = files.text("config.json")?;
    let mut checkpoint = weights(files)?;
    let form = Form::of(&checkpoint);
    checkpoint.retain(|called| form.serves(called));
    let tensors = Tensors { checkpoint: &checkpoint, form };
    let config = Config::read(&config_text, &files.path("config.json"), &tensors)?;
    let footprint = Arc::new(JanusFootprint::new(&config, checkpoint.count(form.vq())));
    Ok(JanusDraft { config, checkpoint, form, footprint })
}

/// The weights in either kind of file; safetensors if both are there.
fn weights(files: &Files) -> Result<Checkpoint> {
    let there = |name: &str| files.exists(name);
    let pickled = there("pytorch_model.bin") || there("pytorch_model.bin.index.json");
    let safe = there("model.safetensors") || there("model.safetensors.index.json");
    match pickled && !safe {
        true => Checkpoint::open_pickles(files, "pytorch_model"),
        false => Checkpoint::open(files, "model"),
    }
}

impl Draft for JanusDraft {
    fn footprint(&self) -> Arc<dyn Footprint> {
        self.footprint.clone()
    }

    fn is_complete(&self) -> bool {
        let levels = self.config.vq.ch_mult.len();
        self.config.specs().iter().all(|spec| self.checkpoint.contains(&self.form.file_name(&spec.name, levels)))
    }

    /// Drawing is as the authors publish it, optimisation as they report it; the rest is chosen.
    fn defaults(&self) -> Value {
        let side = self.config.side;
        json!({
            "sample": {"width": side, "height": side, "guidance": 5.0, "top_k": 0, "temperature": 1.0},
            "train": {"image_size": side, "weight_decay": 0.0, "clip_norm": 1.0, "z_loss": 0.0, "dropout": 0.0},
        })
    }

    fn open(self: Box<Self>, how: &Opening, run: &mut Run) -> Result<Opened> {
        let JanusDraft { config, checkpoint, form, footprint } = *self;
        let tokenizer = how.files.bytes("tokenizer.json")?;
        let text = Text::open(tokenizer, &how.files.path("tokenizer.json"), &run.control())?;
        let text = text.of_model(config.shape.vocabulary)?;
        let vocabulary = vocabulary(&text, config.shape.vocabulary);
        let prompts = Prompts::new(text)?;
        let levels = config.vq.ch_mult.len();
        // What is read, by our name and by that of the files.
        let names = RefCell::new(BTreeMap::new());
        let name = |name: &str| {
            let called = form.file_name(name, levels);
            names.borrow_mut().insert(name.to_owned(), called.clone());
            called
        };
        let vqgan = Vqgan::load(&config.vq, true, |part, shape| {
            checkpoint.get(&name(&format!("{}{part}", names::VQ)), shape, DType::F32, &how.device)
        })?;

        let quantised = how.keep_quantised.then(|| Quantised::open(how.files, &checkpoint, how.format)).flatten();
        let source = Source {
            checkpoint: &checkpoint,
            quantised: quantised.as_ref(),
            format: how.format,
            device: &how.device,
            name: &name,
        };
        let shape = &config.shape;
        let total = shape.layers as u64 + 2;
        let mut report = |done| run.report(Stage::Open, done, total, None).map(|_| ());
        let mut transformer = Transformer::load(shape, &source, &mut report)?;
        let aligner = names::aligner(shape);
        for spec in config.specs().split_off(names::head(shape)) {
            let format = if transformer.weights.len() < aligner { how.format.head() } else { how.format };
            let weight = match spec.linear {
                true => source.matrix(&spec, format)?,
                false => source.small(&spec.name, &spec.dims)?.into(),
            };
            transformer.weights.push(spec, weight);
        }
        let code_vectors = source.small(names::CODES, &[config.codes, config.code_width])?;
        report(total)?;
        if let Some(quantised) = quantised {
            quantised.keep(&transformer.weights, &run.control())?;
        }
        let facts = Facts {
            parameters: config.parameters(),
            vocabulary: shape.vocabulary,
            codebook: config.codes,
            unit: config.side,
            patch: config.vq.downsampling(),
            width: shape.hidden,
            layers: shape.layers,
            can_decode: true,
        };
        // Quantised weights came from a file of their own.
        for spec in transformer.weights.iter().map(|entry| &entry.spec) {
            name(&spec.name);
        }
        let names = names.borrow();
        let names = names.iter().map(|(ours, called)| (ours.as_str(), called.as_str())).collect();
        let identity = vec![untold(&config), vocabulary, checkpoint.fingerprint_as(&names)?.to_vec()];
        let (prompts, vqgan) = (Arc::new(prompts), Arc::new(vqgan));
        let family = Arc::new(Janus { transformer, code_vectors, prompts, vqgan, footprint, facts });
        Ok(Opened { family, identity })
    }
}

/// What the shapes of tensors do not tell of a model. With its words and its numbers it makes up the fingerprint, which is the same for
/// both published forms: neither the text of their configurations nor their names of tensors are in it.
fn untold(config: &Config) -> Vec<u8> {
    let Config { shape, side, .. } = config;
    let facts = json!({"heads": shape.heads, "norm_eps": shape.norm_eps, "rope_theta": shape.rope_theta, "side": side});
    facts.to_string().into_bytes()
}

/// The words that have vectors, in the order of their numbers. Others may have been added to one of the forms.
fn vocabulary(text: &Text, rows: usize) -> Vec<u8> {
    let known = text.vocabulary().filter(|(_, id)| (*id as usize) < rows);
    let mut words: Vec<(u32, String)> = known.map(|(word, id)| (id, word)).collect();
    words.sort_unstable();
    json!(words).to_string().into_bytes()
}
