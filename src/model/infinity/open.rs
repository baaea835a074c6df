//! Opening a folder as it is published: transformer and image tokenizer as pickles or safetensors, and the folder of a T5.

use super::config::Config;
use super::encoder::Encoder;
use super::family::Infinity;
use super::files::{Parts, TextFiles};
use super::footprint::InfinityFootprint;
use super::names::ROLES;
use super::settings::Settings;
use super::t5;
use super::text::Text;
use super::transformer::Transformer;
use super::vae::{Shape, Vae, Weights};
use crate::files::Files;
use crate::model::family::{Draft, Entry, Opened, Opening};
use crate::model::footprint::Footprint;
use crate::model::quantised::Quantised;
use crate::model::recommended::Recommended;
use crate::model::text;
use crate::run::{Run, Stage};
use crate::{Error, Result};
use serde_json::{json, Value};
use std::sync::Arc;

/// The family's line in the registry.
pub static ENTRY: Entry = Entry {
    name: "infinity",
    sign: "a checkpoint with text_proj_for_sos.ca.mat_q (Infinity)",
    roles: &ROLES,
    claims: Parts::claims,
    draft: |files| Ok(Box::new(draft(files)?)),
};

struct InfinityDraft {
    parts: Parts,
    config: Config,
    shape: Shape,
    text: TextFiles,
    sizes: t5::Sizes,
    settings: Settings,
    /// With the text encoder in memory, and without.
    footprints: [Arc<InfinityFootprint>; 2],
}

fn draft(files: &Files) -> Result<InfinityDraft> {
    let settings: Settings =
        Recommended::read(files, &serde_json::Value::Null)?.over("infinity", &Settings::default())?;
    let parts = Parts::find(files)?;
    let config = Config::from_shapes(&parts.transformer)?;
    let groups = Some(settings.groups).filter(|&groups| groups > 0);
    let vae = Weights { checkpoint: &parts.vae, prefix: "" };
    let shape = vae.shape(groups)?;
    if config.bits != shape.d && config.bits != 4 * shape.d {
        let message = format!(
            "tokens of {} bits do not fit the image tokenizer {}, whose latents have {} channels; a model has as many bits, or four \
             times as many where it sees 2x2 cells as one",
            config.bits,
            parts.vae.path().display(),
            shape.d
        );
        return Err(Error::bad_format(parts.transformer.path(), message));
    }
    let text = TextFiles::find(files)?;
    let checkpoint = text.checkpoint()?;
    let sizes = t5::Sizes::of(&checkpoint).ok_or_else(|| {
        Error::bad_format(checkpoint.path(), "has no T5 encoder with gated GELU (shared.weight, encoder.block.*)")
    })?;
    if sizes.width != config.text {
        let message = format!(
            "features of {} numbers; the transformer reads {}: they are not of the same model",
            sizes.width, config.text
        );
        return Err(Error::bad_format(checkpoint.path(), message));
    }
    let numbers = parts.vae.count("encoder.") + parts.vae.count("decoder.");
    let footprints = [true, false].map(|keep| Arc::new(InfinityFootprint::new(&config, &shape, numbers, sizes, keep)));
    Ok(InfinityDraft { parts, config, shape, text, sizes, settings, footprints })
}

impl Draft for InfinityDraft {
    fn footprint(&self) -> Arc<dyn Footprint> {
        self.footprints[0].clone()
    }

    fn without_text_encoder(&self) -> Option<Arc<dyn Footprint>> {
        Some(self.footprints[1].clone())
    }

    fn is_complete(&self) -> bool {
        self.parts.transformer.count("") >= self.config.parameters()
    }

    /// Drawing is as upstream's scripts have it for the 2B, and for the 8B, which sees 2x2 cells as one; optimisation is ARBooth's for
    /// the other methods, too, steps and rates excepted: those are for a method that learns everything at once.
    fn defaults(&self) -> Value {
        let folded = self.config.bits != self.shape.d;
        let side = 64 * self.shape.stride() * if folded { 2 } else { 1 };
        let temperature = if folded { 1.0 } else { 0.5 };
        json!({
            "sample": {"width": side, "height": side, "guidance": 3.0, "top_k": 0, "temperature": temperature, "top_p": 0.97},
            "method": "arbooth",
            "train": {
                "image_size": side, "trainable": "arbooth", "embedding_vectors": 4, "beta1": 0.9, "beta2": 0.999,
                "weight_decay": 0.005, "clip_norm": 0.0, "z_loss": 0.0, "dropout": 0.1, "guidance_dropout": 0.1,
                "scale_weights": [1, 1, 1, 1, 1, 1, 1, 1, 0.5], "self_correction": 0.3,
            },
        })
    }

    fn open(self: Box<Self>, how: &Opening, run: &mut Run) -> Result<Opened> {
        let InfinityDraft { parts, config, shape, text: encoder_files, sizes, settings, footprints } = *self;
        let [whole, lean] = footprints;
        let (tokenizer_name, files) = (encoder_files.name("tokenizer.json"), encoder_files.files().clone());
        let tokenizer = files.bytes(&tokenizer_name)?;
        let reader = text::Text::open(tokenizer.clone(), &files.path(&tokenizer_name), &run.control())?;
        let reader = Text::new(reader, sizes.rows)?;
        let encoder_weights = encoder_files.checkpoint()?.fingerprint()?;
        let vae = Vae::load(&Weights { checkpoint: &parts.vae, prefix: "" }, shape, &how.device)?;
        // Before the transformer: if it does not stay, the two are never in memory together.
        let (layers, total) = (sizes.layers, sizes.layers + config.blocks.len() as u64 + 1);
        let mut report = |done: u64, total: u64| run.report(Stage::Open, done, total, None).map(|_| ());
        let encoder =
            Encoder::open(encoder_files, how.format, &how.device, how.keep_text, &mut |done| report(done, total))?;
        let quantised =
            how.keep_quantised.then(|| Quantised::open(how.files, &parts.transformer, how.format)).flatten();
        let transformer = Transformer::load(
            &parts.transformer,
            quantised.as_ref(),
            config,
            how.format,
            &how.device,
            |done, total| report(layers + done, layers + total),
        )?;
        if let Some(quantised) = quantised {
            quantised.keep(&transformer.weights, &run.control())?;
        }
        let identity = vec![
            b"infinity".to_vec(),
            tokenizer.to_vec(),
            parts.transformer.fingerprint()?.to_vec(),
            parts.vae.fingerprint()?.to_vec(),
            encoder_weights.to_vec(),
            settings.level_embedding.clone().into_bytes(),
        ];
        let family = Infinity::new(
            transformer,
            vae,
            (reader, encoder),
            sizes.rows,
            &settings,
            if how.keep_text { whole } else { lean },
        );
        Ok(Opened { family: Arc::new(family), identity })
    }
}
