//! How tokens are drawn.

mod coupling;
mod decoder;
pub mod drawing;
mod jacobi;
pub mod link;
mod logits;
pub mod memory;
mod next_scale;
mod noise;
mod sequential;

use crate::error::by_name;
use crate::model::family::Prediction;
use crate::model::personalized::Personalized;
use crate::model::recommended::{Recommendable, Recommended};
use crate::model::subject::Subject;
use crate::model::Model;
use crate::run::{Run, Stage};
use crate::tokens::Tokens;
use crate::{Error, Result};
use drawing::Drawing;
use serde::{Deserialize, Serialize};

/// The most pictures of one call.
pub const MAX_PICTURES: usize = 256;

/// The widest window of speculative decoding.
pub const MAX_WINDOW: u32 = 256;

/// In which order codes are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decoding {
    /// One after the other.
    #[default]
    Sequential,
    /// Several are guessed and verified in one pass; the same picture.
    Speculative,
    /// As `Speculative`, in fewer passes; another picture from the same distribution.
    SpeculativeDistribution,
}

impl Decoding {
    pub const ALL: [Decoding; 3] = [Decoding::Sequential, Decoding::Speculative, Decoding::SpeculativeDistribution];

    /// As it is written in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Decoding::Sequential => "sequential",
            Decoding::Speculative => "speculative",
            Decoding::SpeculativeDistribution => "speculative_distribution",
        }
    }

    /// By the name that [`Decoding::name`] gives.
    pub fn parse(name: &str) -> Result<Self> {
        by_name("decoding", name, Self::ALL, Self::name)
    }
}

/// How to draw. Defaults are the paper's (arXiv 2504.13162) unless the model recommends its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Pixels; a multiple of the model's grid unit.
    pub width: u32,
    /// Pixels; a multiple of the model's grid unit.
    pub height: u32,
    /// Pictures to draw of a prompt, all in one batch; 1 to 256, all prompts of a call together.
    pub count: u32,
    /// Classifier-free guidance scale; 1 switches it off and halves the work.
    pub guidance: f32,
    /// Only the k likeliest codes can be drawn; 0 allows all.
    pub top_k: u32,
    /// Above 0; smaller is safer and duller.
    pub temperature: f32,
    /// The same seed gives the same picture.
    pub seed: u64,
    /// `sequential` draws code by code; `speculative` verifies several guesses in one pass and gives the same picture;
    /// `speculative_distribution` needs fewer passes and gives another picture from the same distribution, which `window`
    /// changes too. Default `sequential`; which is faster depends on model and machine, see docs/decoding.md.
    pub decoding: Decoding,
    /// Places that a pass of speculative decoding verifies, 2 to 256; 0, the default, leaves it to the library: 16, but for
    /// `speculative` on a CPU as many as pay there.
    pub window: u32,
    /// Guidance of each scale instead of one for all, coarse to fine, of models that draw scale after scale; 0 to 100
    /// each. The last one counts for the scales behind, too; more than the picture has scales are an error. Default none.
    pub guidance_by_scale: Vec<f32>,
    /// Temperature of each scale instead of one for all, as `guidance_by_scale`; 0.01 to 100 each. Default none.
    pub temperature_by_scale: Vec<f32>,
    /// Of each bit, the less likely value is never drawn if its probability is at most 1 less this; 0 to 1, and 1 allows all. Of
    /// models that draw bits, which recommend less (0.97).
    pub top_p: f32,
}

/// What only models that draw code by code know, and what only those know that draw scale after scale; they share the rest.
const BY_CODE: [&str; 3] = ["top_k", "decoding", "window"];
const BY_SCALE: [&str; 3] = ["guidance_by_scale", "temperature_by_scale", "top_p"];
const SHARED: [&str; 6] = ["width", "height", "count", "guidance", "temperature", "seed"];

impl Default for Options {
    fn default() -> Self {
        Options {
            width: 768,
            height: 768,
            count: 1,
            guidance: 4.0,
            top_k: 2000,
            temperature: 1.0,
            seed: 0,
            decoding: Decoding::default(),
            window: 0,
            guidance_by_scale: vec![],
            temperature_by_scale: vec![],
            top_p: 1.0,
        }
    }
}

impl Recommendable for Options {
    const HARMLESS: &'static [&'static str] =
        &["width", "height", "guidance", "top_k", "temperature", "seed", "decoding", "window", "top_p"];
    // Lists, since they win over the one number for all, which the user may set without knowing of them.
    const USERS: &'static [&'static str] = &["count", "guidance_by_scale", "temperature_by_scale"];

    fn check_ranges(&self) -> Result<()> {
        Options::check_ranges(self)
    }
}

impl Options {
    /// The defaults with what the model's `sitter.json` recommends under `sample`.
    pub fn for_model(model: &Model) -> Result<Self> {
        Self::recommended(model.recommended())
    }

    /// As [`Options::for_model`], before the model is opened.
    pub fn recommended(by: &Recommended) -> Result<Self> {
        by.over("sample", &Options::default())
    }

    /// Errors if a value is out of its range, naming it.
    pub fn check_ranges(&self) -> Result<()> {
        let finite = |field: &str, value: f32, low: f32, high: f32| match value >= low && value <= high {
            true => Ok(()),
            false => Err(Error::invalid(field, format!("{value} is outside {low} to {high}"))),
        };
        finite("guidance", self.guidance, 0.0, 100.0)?;
        finite("temperature", self.temperature, 0.01, 100.0)?;
        for &value in &self.guidance_by_scale {
            finite("guidance_by_scale", value, 0.0, 100.0)?;
        }
        for &value in &self.temperature_by_scale {
            finite("temperature_by_scale", value, 0.01, 100.0)?;
        }
        finite("top_p", self.top_p, 0.0, 1.0)?;
        if self.window != 0 && !(2..=MAX_WINDOW).contains(&self.window) {
            return Err(Error::invalid("window", format!("{} is neither 0 nor 2 to {MAX_WINDOW}", self.window)));
        }
        if !(1..=MAX_PICTURES).contains(&(self.count as usize)) {
            return Err(Error::invalid("count", format!("{} is outside 1 to {MAX_PICTURES}", self.count)));
        }
        Ok(())
    }

    /// How the codes of so many pictures are drawn, and how many places a pass verifies. `own_kernels` says whether those for the
    /// CPU do it.
    fn way(&self, pictures: usize, own_kernels: bool) -> (Decoding, usize) {
        /// More rows of a batch cost a CPU as much as the passes that they save, see docs/decoding.md.
        const ROWS: usize = 8;
        const USUAL: usize = 16;
        let rows = pictures * if self.guided() { 2 } else { 1 };
        let window = match (self.decoding, self.window as usize) {
            (Decoding::Sequential, _) => 1,
            // The same picture in any case.
            (Decoding::Speculative, 0) if own_kernels => ROWS / rows.max(1),
            (_, 0) => USUAL,
            (_, window) => window,
        };
        match window {
            0 | 1 => (Decoding::Sequential, 1),
            window => (self.decoding, window),
        }
    }

    /// Guidance of each scale; the last one counts for those behind.
    pub fn guidance_of_scales(&self) -> &[f32] {
        one_or(&self.guidance, &self.guidance_by_scale)
    }

    /// Temperature of each scale; the last one counts for those behind.
    pub fn temperature_of_scales(&self) -> &[f32] {
        one_or(&self.temperature, &self.temperature_by_scale)
    }

    /// What is given scale by scale, with its name.
    fn lists(&self) -> [(&'static str, &[f32]); 2] {
        [(BY_SCALE[0], &self.guidance_by_scale), (BY_SCALE[1], &self.temperature_by_scale)]
    }

    /// Whether a second branch stands against the prompt.
    pub fn guided(&self) -> bool {
        self.guidance_of_scales().iter().any(|&guidance| guidance != 1.0)
    }

    /// Errors if an option is set that the model's way of drawing has no use for, naming it and those that it knows. What leaves it
    /// alone is always allowed.
    fn check_known(&self, by: &Prediction) -> Result<()> {
        let (odd, way, known) = match by {
            Prediction::NextToken(_) => (
                [
                    (!self.guidance_by_scale.is_empty(), BY_SCALE[0], "an empty list"),
                    (!self.temperature_by_scale.is_empty(), BY_SCALE[1], "an empty list"),
                    (self.top_p != 1.0, BY_SCALE[2], "1"),
                ],
                "code by code",
                BY_CODE,
            ),
            Prediction::NextScale(_) => (
                [
                    (self.top_k != 0, BY_CODE[0], "0"),
                    (self.decoding != Decoding::Sequential, BY_CODE[1], Decoding::Sequential.name()),
                    // Nothing reads it then.
                    (false, BY_CODE[2], ""),
                ],
                "scale after scale",
                BY_SCALE,
            ),
        };
        match odd.iter().find(|(set, ..)| *set) {
            None => Ok(()),
            Some((_, name, neutral)) => {
                let known = [&SHARED[..], &known[..]].concat().join(", ");
                let message = format!(
                    "is nothing to a model that draws {way}; leave it at {neutral}. Such a model knows {known}"
                );
                Err(Error::invalid(*name, message))
            }
        }
    }
}

/// The list, or what stands for all where it is empty.
fn one_or<'a>(all: &'a f32, list: &'a [f32]) -> &'a [f32] {
    match list {
        [] => std::slice::from_ref(all),
        list => list,
    }
}

/// One drawn picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub prompt: String,
    pub tokens: Tokens,
    /// Drawn alone with this seed, the picture is the same.
    pub seed: u64,
}

impl Sample {
    /// What made this picture, as the key and text of a PNG text chunk (see `Picture::save_png`): JSON with model,
    /// subjects, prompt, seed and settings.
    pub fn provenance(&self, view: &Personalized, options: &Options) -> (&'static str, String) {
        let subjects: Vec<_> = view.words.iter().map(|w| &w.identifier).collect();
        let (width, height) = view.family.pixels(&self.tokens);
        // JSON numbers are f64: 0.7 stays 0.7 by way of its text only.
        let decimal = |v: f32| v.to_string().parse().unwrap_or(f64::from(v));
        let mut json = serde_json::json!({
            "software": concat!("sitter ", env!("CARGO_PKG_VERSION")),
            "model": view.model.short_name(),
            "fingerprint": view.model.fingerprint(),
            "subjects": subjects,
            "prompt": self.prompt,
            "seed": self.seed,
            "width": width,
            "height": height,
            "guidance": decimal(options.guidance),
            "top_k": options.top_k,
            "temperature": decimal(options.temperature),
            "decoding": options.decoding.name(),
        });
        // What leaves everything as it is says nothing.
        let mut add = |name: &str, set: bool, value: serde_json::Value| {
            if let (true, Some(json)) = (set, json.as_object_mut()) {
                json.insert(name.into(), value);
            }
        };
        let list = |values: &[f32]| values.iter().map(|&v| decimal(v)).collect::<Vec<f64>>().into();
        for (name, values) in options.lists() {
            add(name, !values.is_empty(), list(values));
        }
        add(BY_SCALE[2], options.top_p != 1.0, decimal(options.top_p).into());
        ("sitter", json.to_string())
    }
}

/// Draws `options.count` pictures of a prompt. A prompt names a subject by its identifier.
///
/// Reports each code drawn, or each grid of codes. Finishing early has no effect, since a picture that lacks rows is no picture.
pub fn sample(
    model: &Model,
    prompt: &str,
    subjects: &[&Subject],
    options: &Options,
    run: &mut Run,
) -> Result<Vec<Sample>> {
    let view = Personalized::new(model, subjects)?;
    view.warn_of_unnamed(prompt);
    draw_pictures(&view, &[prompt], options, run)
}

/// As [`sample`], for a model whose subjects are already applied, and for several prompts in one batch: the pictures of the
/// first prompt, then those of the next. But for rounding, each is what drawing it alone gives.
pub fn draw_pictures(
    view: &Personalized,
    prompts: &[impl AsRef<str>],
    options: &Options,
    run: &mut Run,
) -> Result<Vec<Sample>> {
    options.check_ranges()?;
    let prediction = view.family.prediction();
    options.check_known(&prediction)?;
    if let Prediction::NextScale(model) = prediction {
        return next_scale::draw(view, model, prompts, options, run);
    }
    let mut drawing = Drawing::new(view, prompts, options, run.control())?;
    let total = drawing.total() as u64;
    let mut known = 0;
    while known < total {
        known = drawing.pass()? as u64;
        run.canvas().show(drawing.grid().1, drawing.codes());
        run.report(Stage::Sample, known, total, None)?;
    }
    let (height, width) = drawing.grid();
    let texts = prompts.iter().flat_map(|p| vec![p.as_ref().to_string(); options.count as usize]);
    let seeds = drawing.seeds().to_vec();
    let samples = drawing
        .finish()
        .into_iter()
        .zip(texts)
        .zip(seeds)
        .map(|((codes, prompt), seed)| Ok(Sample { prompt, tokens: Tokens::new(height, width, codes)?, seed }));
    samples.collect()
}
