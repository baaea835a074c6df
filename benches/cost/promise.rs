//! What the estimate promises beside what a process really holds.

use super::cases::{peak_mib, pictures};
use serde::{Deserialize, Serialize};
use sitter::estimate::{Estimate, Request};
use sitter::model::outline::Outline;
use sitter::model::personalized::Personalized;
use sitter::model::{Model, OpenOptions};
use sitter::personalize::{Method, Options, Recompute, StateFormat, Trainable};
use sitter::run::Run;
use sitter::sample::{self, draw_pictures};
use sitter::Result;
use std::time::Instant;

/// A work whose peak is promised.
#[derive(Clone)]
pub enum Work {
    Draw,
    Embedding(Recompute),
    /// With everything kept, or with as little as the options allow.
    Layers(Trainable, bool),
    /// A step with its teacher, so, too.
    Arbooth(bool),
}

/// MiB, and seconds of the work without opening the model.
#[derive(Serialize, Deserialize)]
pub struct Promise {
    pub estimate: f64,
    pub peak: Option<f64>,
    pub seconds: f64,
}

/// What is drawn and taught.
#[derive(Clone, Copy)]
pub struct Pictures {
    /// Pixels along each side.
    pub side: u32,
    /// Drawn in one call.
    pub count: u32,
}

impl Work {
    /// Those that this model can do.
    pub fn all(folder: &str) -> Result<Vec<Work>> {
        let outline = Outline::read(folder, &OpenOptions::default())?;
        if Method::recommended(&outline.recommended) == Method::Arbooth {
            return Ok(vec![Work::Draw, Work::Arbooth(false), Work::Arbooth(true)]);
        }
        let mut all = vec![Work::Draw, Work::Embedding(Recompute::Never), Work::Embedding(Recompute::Always)];
        all.extend(Trainable::SETS.into_iter().flat_map(|t| [Work::Layers(t.clone(), false), Work::Layers(t, true)]));
        Ok(all)
    }

    pub fn title(&self) -> String {
        match self {
            Work::Draw => "draw with guidance".into(),
            Work::Embedding(recompute) => format!("embedding stage, recompute {}", recompute.name()),
            Work::Layers(t, false) => {
                format!("layers stage, {}, recompute never, f32 states, gradients kept", t.name())
            }
            Work::Layers(t, true) => {
                format!("layers stage, {}, recompute always, int8 states, no master weights", t.name())
            }
            Work::Arbooth(false) => "step of arbooth, recompute never, f32 states".into(),
            Work::Arbooth(true) => "step of arbooth, recompute always, int8 states, no master weights".into(),
        }
    }

    pub fn measure(&self, folder: &str, dtype: &str, of: Pictures) -> Result<Promise> {
        let open = OpenOptions { dtype: dtype.into(), keep_quantised: false, ..OpenOptions::default() };
        let outline = Outline::read(folder, &open)?;
        let recommended = sample::Options::recommended(&outline.recommended)?;
        let drawing = sample::Options { width: of.side, height: of.side, count: of.count, ..recommended };
        let options = Options { image_size: of.side, ..self.options(&outline)? };
        let estimate = Estimate::of(&outline, &Request { sample: &drawing, prompts: 1, train: &options });
        let model = Model::open(folder, &open, &mut Run::new())?;
        let begun = Instant::now();
        let promised = match self {
            Work::Draw => {
                let view = Personalized::new(&model, &[])?;
                draw_pictures(&view, &["a photo of a fox"], &drawing, &mut Run::new())?;
                estimate.sample
            }
            _ => {
                sitter::train(&model, &pictures(1)?, &options, &mut Run::new())?;
                estimate.training(&options)
            }
        };
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Promise { estimate: promised as f64 / f64::from(1 << 20), peak: peak_mib(), seconds })
    }

    fn options(&self, outline: &Outline) -> Result<Options> {
        let by = |method| Options::recommended(&outline.recommended, method);
        let base = Options { class_word: "fox".into(), ..by(Method::TwoStage)? };
        let lean = |lean: bool, options: Options| Options {
            recompute: if lean { Recompute::Always } else { Recompute::Never },
            optimizer_state: if lean { StateFormat::Int8 } else { StateFormat::F32 },
            master_weights: !lean,
            keep_gradients: !lean,
            ..options
        };
        Ok(match self.clone() {
            Work::Draw => base,
            Work::Embedding(recompute) => Options { embedding_steps: 2, layer_steps: 0, recompute, ..base },
            Work::Layers(trainable, is_lean) => {
                lean(is_lean, Options { embedding_steps: 0, layer_steps: 2, trainable, ..base })
            }
            Work::Arbooth(is_lean) => {
                let published = by(Method::Arbooth)?;
                lean(is_lean, Options { class_word: "fox".into(), layer_steps: 1, batch_size: 1, ..published })
            }
        })
    }
}
