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

/// Pixels along each side of what is drawn and taught.
const SIDE: u32 = 256;

/// A work whose peak is promised.
#[derive(Clone)]
pub enum Work {
    Draw,
    Embedding(Recompute),
    /// With everything kept, or with as little as the options allow.
    Layers(Trainable, bool),
}

/// MiB.
#[derive(Serialize, Deserialize)]
pub struct Promise {
    pub estimate: f64,
    pub peak: Option<f64>,
}

impl Work {
    pub fn all() -> Vec<Work> {
        let mut all = vec![Work::Draw, Work::Embedding(Recompute::Never), Work::Embedding(Recompute::Always)];
        all.extend(Trainable::SETS.into_iter().flat_map(|t| [Work::Layers(t.clone(), false), Work::Layers(t, true)]));
        all
    }

    pub fn title(&self) -> String {
        match self {
            Work::Draw => "draw four pictures with guidance".into(),
            Work::Embedding(recompute) => format!("embedding stage, recompute {}", recompute.name()),
            Work::Layers(t, false) => {
                format!("layers stage, {}, recompute never, f32 states, gradients kept", t.name())
            }
            Work::Layers(t, true) => {
                format!("layers stage, {}, recompute always, int8 states, no master weights", t.name())
            }
        }
    }

    pub fn measure(&self, folder: &str, dtype: &str) -> Result<Promise> {
        let open = OpenOptions { dtype: dtype.into(), keep_quantised: false, ..OpenOptions::default() };
        let outline = Outline::read(folder, &open)?;
        let drawing = sample::Options { width: SIDE, height: SIDE, count: 4, ..sample::Options::default() };
        let options = self.options();
        let estimate = Estimate::of(&outline, &Request { sample: &drawing, prompts: 1, train: &options });
        let model = Model::open(folder, &open, &mut Run::new())?;
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
        Ok(Promise { estimate: promised as f64 / f64::from(1 << 20), peak: peak_mib() })
    }

    fn options(&self) -> Options {
        let base = Options { class_word: "fox".into(), image_size: SIDE, ..Options::new(Method::TwoStage) };
        match self.clone() {
            Work::Draw => base,
            Work::Embedding(recompute) => Options { embedding_steps: 2, layer_steps: 0, recompute, ..base },
            Work::Layers(trainable, lean) => Options {
                embedding_steps: 0,
                layer_steps: 2,
                trainable,
                recompute: if lean { Recompute::Always } else { Recompute::Never },
                optimizer_state: if lean { StateFormat::Int8 } else { StateFormat::F32 },
                master_weights: !lean,
                keep_gradients: !lean,
                ..base
            },
        }
    }
}
