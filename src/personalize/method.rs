//! The methods: presets of the options, as their papers have them.

use super::options::Options;
use super::trainable::{Adaptation, Trainable};
use crate::error::by_name;
use crate::model::recommended::Recommended;
use crate::model::Model;
use crate::Result;
use serde::{Deserialize, Serialize};

/// ARBooth's learning rate: 6e-3 / 256.
const ARBOOTH_RATE: f64 = 2.34375e-5;

/// How a subject is taught: presets of the same machinery, see [`Options::new`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// First the identifier's vectors, then transformer weights (the paper's method).
    #[default]
    TwoStage,
    /// The vectors alone.
    TextualInversion,
    /// Vectors and transformer weights together from the start.
    Dreambooth,
    /// As `TwoStage`, the second stage with low-rank changes.
    Lora,
    /// Vectors, cross-attention and MLP together, and in turn with them what the untouched model predicts of the class (ARBooth, arXiv
    /// 2504.02612). For families that draw scale after scale.
    Arbooth,
}

impl Method {
    pub const ALL: [Method; 5] =
        [Method::TwoStage, Method::TextualInversion, Method::Dreambooth, Method::Lora, Method::Arbooth];

    /// As it is written in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Method::TwoStage => "two_stage",
            Method::TextualInversion => "textual_inversion",
            Method::Dreambooth => "dreambooth",
            Method::Lora => "lora",
            Method::Arbooth => "arbooth",
        }
    }

    /// By the name that [`Method::name`] gives.
    pub fn parse(name: &str) -> Result<Self> {
        by_name("method", name, Self::ALL, Self::name)
    }

    /// The one that a model's family has by default.
    pub fn recommended(by: &Recommended) -> Self {
        by.method().and_then(|name| Method::parse(name).ok()).unwrap_or_default()
    }
}

impl Options {
    /// The preset of a method, as its paper has it.
    pub fn new(method: Method) -> Self {
        let base = Options { method, ..Options::default() };
        match method {
            Method::TwoStage => base,
            Method::TextualInversion => Options { layer_steps: 0, per_image_tokens: false, ..base },
            Method::Dreambooth => {
                Options { embedding_steps: 0, train_embedding_in_layer_stage: true, per_image_tokens: false, ..base }
            }
            Method::Lora => {
                Options { adaptation: Adaptation::LowRank, layer_steps: 150, layer_learning_rate: 1e-4, ..base }
            }
            // Rates, steps and batch of the released code.
            Method::Arbooth => Options {
                embedding_steps: 0,
                embedding_learning_rate: ARBOOTH_RATE,
                embedding_vectors: 4,
                initial_noise: 0.0,
                layer_steps: 500,
                layer_learning_rate: ARBOOTH_RATE,
                trainable: Trainable::ARBOOTH,
                train_embedding_in_layer_stage: true,
                batch_size: 2,
                weight_decay: 0.005,
                beta2: 0.999,
                clip_norm: 0.0,
                z_loss: 0.0,
                dropout: 0.1,
                per_image_tokens: false,
                templates: vec!["a photo of {}".into()],
                prior_weight: 0.5,
                prior_distillation: true,
                scale_weights: vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5],
                self_correction: 0.3,
                ..base
            },
        }
    }

    /// The preset of a method with what the model's `sitter.json` recommends: under `train` for all methods, under
    /// `train.NAME` for the method of that name. None is the method that the model's family has by default.
    pub fn for_model(model: &Model, method: impl Into<Option<Method>>) -> Result<Self> {
        Self::recommended(model.recommended(), method)
    }

    /// As [`Options::for_model`], before the model is opened.
    pub fn recommended(by: &Recommended, method: impl Into<Option<Method>>) -> Result<Self> {
        let method = method.into().unwrap_or_else(|| Method::recommended(by));
        let common = by.over("train", &Options::new(method))?;
        let section = format!("train.{}", method.name());
        let options: Options = by.over(&section, &Options { method, ..common })?;
        Ok(Options { method, ..options })
    }
}
