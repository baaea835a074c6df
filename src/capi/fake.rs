//! A model that only counts steps, for tests of the boundary: `fake:steps=10,step_ms=5,fail_at=3,panic_at=4`. Each verb does
//! `steps` steps of `step_ms` milliseconds; step `fail_at` errors, step `panic_at` panics (from 1; 0 for never). With
//! `open=1` opening does so too. An evaluator whose DINO has such a name measures in the same steps. Debug builds only.

use super::backend::{Backend, Drawn, Measure};
use crate::evaluate::Request;
use crate::model::subject::{LossRecord, Subject};
use crate::personalize::{self, Dataset, Method};
use crate::picture::Picture;
use crate::run::{Run, Stage};
use crate::sample;
use crate::tokens::Tokens;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How names of fake models begin.
pub const PREFIX: &str = "fake:";
const GRID_UNIT: u32 = 8;
const CODEBOOK: u32 = 256;

#[derive(Default)]
pub struct Fake {
    steps: u64,
    step_ms: u64,
    fail_at: u64,
    panic_at: u64,
}

impl Fake {
    pub fn open(name: &str, run: &mut Run) -> Result<Self> {
        let mut fake = Fake { steps: 4, ..Fake::default() };
        let mut at_open = false;
        for part in name.strip_prefix(PREFIX).unwrap_or(name).split(',').filter(|p| !p.is_empty()) {
            let bad = || Error::invalid("path", format!("{part:?} is not a setting of the fake model"));
            let (key, value) = part.split_once('=').ok_or_else(bad)?;
            let value = value.parse().map_err(|_| bad())?;
            match key {
                "steps" => fake.steps = value,
                "step_ms" => fake.step_ms = value,
                "fail_at" => fake.fail_at = value,
                "panic_at" => fake.panic_at = value,
                "open" => at_open = value != 0,
                _ => return Err(bad()),
            }
        }
        if at_open {
            fake.work(Stage::Open, run)?;
        }
        Ok(fake)
    }

    /// The steps of one verb; true if it was ended early.
    fn work(&self, stage: Stage, run: &mut Run) -> Result<bool> {
        self.work_showing(stage, run, |_, _| ())
    }

    /// As [`Self::work`]; `show` is called with each step done, before it is reported.
    #[allow(clippy::panic)]
    fn work_showing(&self, stage: Stage, run: &mut Run, show: impl Fn(u64, &Run)) -> Result<bool> {
        run.check()?;
        for step in 1..=self.steps {
            std::thread::sleep(Duration::from_millis(self.step_ms));
            if step == self.panic_at {
                panic!("the fake model panics at step {step}");
            }
            if step == self.fail_at {
                return Err(Error::Internal { message: format!("the fake model fails at step {step}") });
            }
            show(step, run);
            let loss = matches!(stage, Stage::Embedding | Stage::Layers).then_some(step as f32);
            if !run.report(stage, step, self.steps, loss)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Backend for Fake {
    fn info(&self) -> Result<serde_json::Value> {
        Ok(serde_json::json!({"family": "fake", "name": PREFIX, "grid_unit_px": GRID_UNIT, "codebook": CODEBOOK}))
    }

    fn sample_options(&self) -> Result<sample::Options> {
        Ok(sample::Options { width: 16, height: 16, ..sample::Options::default() })
    }

    fn train_options(&self, method: Option<Method>) -> Result<personalize::Options> {
        Ok(personalize::Options { image_size: 16, ..personalize::Options::new(method.unwrap_or_default()) })
    }

    fn encode(&self, picture: &Picture, _target: u32, run: &mut Run) -> Result<Tokens> {
        self.work(Stage::Encode, run)?;
        let first = picture.rgb().first().copied().unwrap_or(0);
        Tokens::new(2, 2, vec![u32::from(first); 4])
    }

    fn decode(&self, tokens: &Tokens, run: &mut Run) -> Result<Picture> {
        self.work(Stage::Decode, run)?;
        match tokens.codes().iter().find(|&&c| c >= CODEBOOK) {
            Some(code) => Err(Error::invalid("tokens", format!("code {code} is not one of {CODEBOOK}"))),
            None => {
                let level = |c: &u32| [u8::try_from(*c).unwrap_or(u8::MAX); 3];
                Picture::new(tokens.width(), tokens.height(), tokens.codes().iter().flat_map(level).collect())
            }
        }
    }

    fn score(&self, prompt: &str, _: &[Arc<Subject>], pictures: &[Tokens], run: &mut Run) -> Result<Vec<f32>> {
        self.work(Stage::Score, run)?;
        Ok(vec![prompt.len() as f32; pictures.len()])
    }

    fn sample(&self, _: &str, _: &[Arc<Subject>], options: &sample::Options, run: &mut Run) -> Result<Vec<Drawn>> {
        let code = |i: u32| u32::from(options.seed.wrapping_add(i.into()) as u8);
        self.work_showing(Stage::Sample, run, |step, run| {
            let drawn = step.saturating_mul(4).checked_div(self.steps).unwrap_or(0);
            let codes: Vec<_> = (0..options.count).map(|i| vec![code(i); drawn as usize]).collect();
            run.canvas().show(2, &codes);
        })?;
        (0..options.count).map(|i| Ok((Tokens::new(2, 2, vec![code(i); 4])?, None))).collect()
    }

    fn train(&self, _: &Dataset, options: &personalize::Options, run: &mut Run) -> Result<Subject> {
        if !self.work(Stage::Embedding, run)? {
            self.work(Stage::Layers, run)?;
        }
        Ok(Subject {
            identifier: options.identifier.clone(),
            class_word: options.class_word.clone(),
            vectors: Tensor::zeros((1, 4), DType::F32, &Device::Cpu)?,
            changes: BTreeMap::new(),
            model: PREFIX.into(),
            licence: None,
            method: options.method.name().into(),
            options: serde_json::json!({}),
            losses: (0..self.steps)
                .map(|step| LossRecord { stage: "embedding".into(), step, loss: step as f32 })
                .collect(),
        })
    }
}

/// Numbers of a fake vector.
const VECTOR: usize = 4;

impl Fake {
    fn vectors(&self, count: usize, run: &mut Run) -> Result<Vec<Vec<f32>>> {
        self.work(Stage::Score, run)?;
        Ok(vec![vec![1.0; VECTOR]; count])
    }
}

impl Measure for Fake {
    fn info(&self) -> Result<serde_json::Value> {
        Ok(serde_json::json!({"dino": {"size": VECTOR}, "clip": {"size": VECTOR}, "lpips": null}))
    }

    fn dino_size(&self) -> Result<usize> {
        Ok(VECTOR)
    }

    fn clip_size(&self) -> Result<usize> {
        Ok(VECTOR)
    }

    fn dino(&self, pictures: &[&Picture], run: &mut Run) -> Result<Vec<Vec<f32>>> {
        self.vectors(pictures.len(), run)
    }

    fn clip_image(&self, pictures: &[&Picture], run: &mut Run) -> Result<Vec<Vec<f32>>> {
        self.vectors(pictures.len(), run)
    }

    fn clip_text(&self, texts: &[&str], run: &mut Run) -> Result<Vec<Vec<f32>>> {
        self.vectors(texts.len(), run)
    }

    fn score(&self, request: &Request, run: &mut Run) -> Result<String> {
        self.work(Stage::Score, run)?;
        Ok(serde_json::json!({"protocol": request.protocol.name(), "pictures": request.pictures.len()}).to_string())
    }
}
