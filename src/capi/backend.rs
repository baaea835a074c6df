//! The verbs as the boundary sees them, so that tests can put something quick and predictable behind it.

use crate::evaluate::{Evaluator, Request};
use crate::model::personalized::Personalized;
use crate::model::subject::Subject;
use crate::model::Model;
use crate::personalize::{self, Dataset, Method};
use crate::picture::{Crop, Picture};
use crate::run::{Run, Stage};
use crate::sample;
use crate::tokens::Tokens;
use crate::{Error, Result};
use std::sync::Arc;

/// A grid with what made it, see `Sample::provenance`.
pub type Drawn = (Tokens, Option<String>);

/// An opened model.
pub trait Backend: Send + Sync + 'static {
    /// Facts, as a JSON object.
    fn info(&self) -> Result<serde_json::Value>;
    fn sample_options(&self) -> Result<sample::Options>;
    /// By the family's own method if none is given.
    fn train_options(&self, method: Option<Method>) -> Result<personalize::Options>;
    /// `target` pixels is the side of the square that the picture is fitted to; 0 lets the model decide.
    fn encode(&self, picture: &Picture, target: u32, run: &mut Run) -> Result<Tokens>;
    fn decode(&self, tokens: &Tokens, run: &mut Run) -> Result<Picture>;
    fn score(&self, prompt: &str, subjects: &[Arc<Subject>], pictures: &[Tokens], run: &mut Run) -> Result<Vec<f32>>;
    fn sample(
        &self,
        prompt: &str,
        subjects: &[Arc<Subject>],
        options: &sample::Options,
        run: &mut Run,
    ) -> Result<Vec<Drawn>>;
    fn train(&self, dataset: &Dataset, options: &personalize::Options, run: &mut Run) -> Result<Subject>;
}

/// Opened networks that measure.
pub trait Measure: Send + Sync + 'static {
    /// Facts, as a JSON object.
    fn info(&self) -> Result<serde_json::Value>;
    /// Numbers of a vector.
    fn dino_size(&self) -> Result<usize>;
    fn clip_size(&self) -> Result<usize>;
    fn dino(&self, pictures: &[&Picture], run: &mut Run) -> Result<Vec<Vec<f32>>>;
    fn clip_image(&self, pictures: &[&Picture], run: &mut Run) -> Result<Vec<Vec<f32>>>;
    fn clip_text(&self, texts: &[&str], run: &mut Run) -> Result<Vec<Vec<f32>>>;
    /// Scores, as a JSON object.
    fn score(&self, request: &Request, run: &mut Run) -> Result<String>;
}

impl Measure for Evaluator {
    fn info(&self) -> Result<serde_json::Value> {
        serde_json::to_value(Evaluator::info(self)).map_err(|e| Error::internal(e.to_string()))
    }

    fn dino_size(&self) -> Result<usize> {
        Evaluator::dino_size(self)
    }

    fn clip_size(&self) -> Result<usize> {
        Evaluator::clip_size(self)
    }

    fn dino(&self, pictures: &[&Picture], run: &mut Run) -> Result<Vec<Vec<f32>>> {
        Evaluator::dino(self, pictures, run)
    }

    fn clip_image(&self, pictures: &[&Picture], run: &mut Run) -> Result<Vec<Vec<f32>>> {
        Evaluator::clip_image(self, pictures, run)
    }

    fn clip_text(&self, texts: &[&str], run: &mut Run) -> Result<Vec<Vec<f32>>> {
        Evaluator::clip_text(self, texts, run)
    }

    fn score(&self, request: &Request, run: &mut Run) -> Result<String> {
        serde_json::to_string(&Evaluator::score(self, request, run)?).map_err(|e| Error::internal(e.to_string()))
    }
}

fn borrowed(subjects: &[Arc<Subject>]) -> Vec<&Subject> {
    subjects.iter().map(Arc::as_ref).collect()
}

impl Backend for Model {
    fn info(&self) -> Result<serde_json::Value> {
        let internal = |e: serde_json::Error| Error::Internal { message: e.to_string() };
        let mut info = serde_json::to_value(Model::info(self)).map_err(internal)?;
        if let Some(object) = info.as_object_mut() {
            // By way of text: as a value, 0.7 of f32 would become 0.699999988.
            let defaults = serde_json::to_string(&self.sample_options()?).map_err(internal)?;
            object.insert("sample_defaults".into(), serde_json::from_str(&defaults).map_err(internal)?);
        }
        Ok(info)
    }

    fn sample_options(&self) -> Result<sample::Options> {
        sample::Options::for_model(self)
    }

    fn train_options(&self, method: Option<Method>) -> Result<personalize::Options> {
        personalize::Options::for_model(self, method)
    }

    fn encode(&self, picture: &Picture, target: u32, run: &mut Run) -> Result<Tokens> {
        let unit = self.facts().unit;
        let own = self.train_options(None)?.image_size;
        let whole = picture.width().is_multiple_of(unit) && picture.height().is_multiple_of(unit);
        let small = u64::from(picture.width()).saturating_mul(picture.height().into()) <= u64::from(own).pow(2);
        let tokens = match target {
            0 if whole && small => Model::encode(self, picture, run)?,
            0 => Model::encode(self, &self.fit(picture, own, Crop::Centre)?, run)?,
            target => Model::encode(self, &self.fit(picture, target, Crop::Centre)?, run)?,
        };
        run.report(Stage::Encode, 1, 1, None)?;
        Ok(tokens)
    }

    fn decode(&self, tokens: &Tokens, run: &mut Run) -> Result<Picture> {
        let picture = Model::decode(self, tokens, run)?;
        run.report(Stage::Decode, 1, 1, None)?;
        Ok(picture)
    }

    fn score(&self, prompt: &str, subjects: &[Arc<Subject>], pictures: &[Tokens], run: &mut Run) -> Result<Vec<f32>> {
        let view = Personalized::new(self, &borrowed(subjects))?;
        view.warn_of_unnamed(prompt);
        view.score(prompt, pictures, run)
    }

    fn sample(
        &self,
        prompt: &str,
        subjects: &[Arc<Subject>],
        options: &sample::Options,
        run: &mut Run,
    ) -> Result<Vec<Drawn>> {
        let view = Personalized::new(self, &borrowed(subjects))?;
        view.warn_of_unnamed(prompt);
        let samples = sample::draw_pictures(&view, &[prompt], options, run)?;
        let with_provenance = samples.into_iter().map(|s| {
            let text = s.provenance(&view, options).1;
            (s.tokens, Some(text))
        });
        Ok(with_provenance.collect())
    }

    fn train(&self, dataset: &Dataset, options: &personalize::Options, run: &mut Run) -> Result<Subject> {
        crate::train(self, dataset, options, run)
    }
}
