//! How tokens are drawn.

pub mod logits;

use crate::estimate;
use crate::model::lumina::transformer::{Cache, Span};
use crate::model::outline::Outline;
use crate::model::personalized::{Personalized, Piece};
use crate::model::subject::Subject;
use crate::model::tokens::Tokens;
use crate::model::weight::Weight;
use crate::model::Model;
use crate::random::picture_seed;
use crate::run::{Control, Run, Stage};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// The most pictures of one call.
pub const MAX_PICTURES: usize = 256;

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
}

impl Default for Options {
    fn default() -> Self {
        Options { width: 768, height: 768, count: 1, guidance: 4.0, top_k: 2000, temperature: 1.0, seed: 0 }
    }
}

impl Options {
    /// The defaults with what the model's `sitter.json` recommends under `sample`.
    pub fn for_model(model: &Model) -> Result<Self> {
        model.recommended("sample", &Options::default())
    }

    /// Errors if a value is out of its range, naming it.
    pub fn check_ranges(&self) -> Result<()> {
        let finite = |field: &str, value: f32, low: f32, high: f32| match value >= low && value <= high {
            true => Ok(()),
            false => Err(Error::invalid(field, format!("{value} is outside {low} to {high}"))),
        };
        finite("guidance", self.guidance, 0.0, 100.0)?;
        finite("temperature", self.temperature, 0.01, 100.0)?;
        if !(1..=MAX_PICTURES).contains(&(self.count as usize)) {
            return Err(Error::invalid("count", format!("{} is outside 1 to {MAX_PICTURES}", self.count)));
        }
        Ok(())
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
        let (width, height) = view.model.layout().pixels(&self.tokens);
        // JSON numbers are f64: 0.7 stays 0.7 by way of its text only.
        let decimal = |v: f32| v.to_string().parse().unwrap_or(f64::from(v));
        let json = serde_json::json!({
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
        });
        ("sitter", json.to_string())
    }
}

/// Draws `options.count` pictures of a prompt. A prompt names a subject by its identifier.
///
/// Reports each code drawn. Finishing early has no effect, since a picture that lacks rows is no picture.
pub fn sample(
    model: &Model,
    prompt: &str,
    subjects: &[&Subject],
    options: &Options,
    run: &mut Run,
) -> Result<Vec<Sample>> {
    draw_pictures(&Personalized::new(model, subjects)?, &[prompt], options, run)
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
    if prompts.is_empty() || prompts.len() * options.count as usize > MAX_PICTURES {
        let message = format!(
            "{} prompts of {} pictures; allowed are 1 to {MAX_PICTURES} pictures in one call",
            prompts.len(),
            options.count
        );
        return Err(Error::invalid("prompts", message));
    }
    run.check()?;
    let layout = view.model.layout();
    let (height, width) = layout.grid(options.width, options.height)?;
    estimate::check_sampling(&Outline::of(view.model), options, prompts.len() as u64)?;
    let pieces = prompts.iter().map(|p| view.prompt(p.as_ref(), options.width, options.height));
    let mut decoder =
        Decoder::new(view, &pieces.collect::<Result<Vec<_>>>()?, (height, width), options, run.control())?;
    let each = |p| (0..options.count).map(move |i| (p, picture_seed(options.seed, i)));
    let (texts, seeds): (Vec<&str>, Vec<u64>) = prompts.iter().map(AsRef::as_ref).flat_map(each).unzip();
    let mut codes = vec![Vec::with_capacity((height * width) as usize); seeds.len()];
    for position in 0..height * width {
        let drawn: Vec<u32> = decoder
            .logits
            .iter_mut()
            .zip(&seeds)
            .map(|(logits, &seed)| {
                logits::keep_top_k(logits, options.top_k as usize);
                logits::draw(logits, options.temperature, seed, position)
            })
            .collect();
        codes.iter_mut().zip(&drawn).for_each(|(codes, &code)| codes.push(code));
        run.canvas().show(width, &codes);
        run.report(Stage::Sample, position as u64 + 1, (height * width) as u64, None)?;
        // What follows the last code is fixed, and nothing is drawn after it.
        if position + 1 < height * width {
            decoder.step(&drawn, (position + 1).is_multiple_of(width))?;
        }
    }
    let samples = codes.into_iter().zip(texts).zip(seeds).map(|((codes, prompt), seed)| {
        Ok(Sample { prompt: prompt.to_string(), tokens: Tokens::new(height, width, codes)?, seed })
    });
    samples.collect()
}

/// The transformer in the middle of drawing: conditional rows first, then, under guidance, unconditional ones.
///
/// All rows share the cache's slots, and all pictures begin in the same one. A row whose prompt is shorter than the longest,
/// or that has none, begins later: the slots before its first token are masked, and its positions count from there.
struct Decoder<'v> {
    view: &'v Personalized<'v>,
    cache: Cache,
    head: Weight,
    guidance: Option<f32>,
    stop: Control,
    /// The slot of each row's first token.
    first: Vec<usize>,
    /// The guided logits of the next code, for each picture.
    logits: Vec<Vec<f32>>,
}

impl<'v> Decoder<'v> {
    fn new(
        view: &'v Personalized,
        prompts: &[Vec<Piece>],
        (height, width): (u32, u32),
        options: &Options,
        stop: Control,
    ) -> Result<Self> {
        let transformer = &view.transformer;
        let layout = view.model.layout();
        let opening = layout.image_head(height, width)?.map(Piece::Token);
        let guidance = (options.guidance != 1.0).then_some(options.guidance);
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let start = longest + opening.len();
        let capacity = start + height as usize * (width as usize + 1);

        // One row per prompt, and one without: they are multiplied when the prompts are read.
        let unconditional: &[Piece] = &[];
        let read = prompts.iter().map(Vec::as_slice).chain(guidance.map(|_| unconditional));
        let padded =
            |prompt: &[Piece]| [&vec![Piece::Token(layout.bos); longest - prompt.len()], prompt, &opening].concat();
        let (rows, begin): (Vec<_>, Vec<_>) = read.map(|p| (padded(p), longest - p.len())).unzip();
        let positions: Vec<Vec<u32>> =
            begin.iter().map(|&b| (0..start).map(|slot| slot.saturating_sub(b) as u32).collect()).collect();
        // Slots before the first token see themselves, so that no softmax is empty; nothing else sees them.
        let span = |slot: usize, first: usize| if slot < first { (slot, slot + 1) } else { (first, slot + 1) };
        let spans: Vec<Vec<Span>> = begin
            .iter()
            .map(|&b| (0..start).map(|slot| span(slot, b)).map(|(from, to)| (from as u32, to as u32)).collect())
            .collect();
        let mut cache = transformer.new_cache(rows.len(), capacity)?;
        let context = transformer.context(&positions, &spans, start, None)?.stopped_by(stop.clone());
        let rows: Vec<&[Piece]> = rows.iter().map(Vec::as_slice).collect();
        let hidden = transformer.forward(&view.embed(&rows)?, &context, Some(&mut cache))?;

        let pictures = prompts.len() * options.count as usize;
        let mut source: Vec<u32> = (0..pictures as u32).map(|picture| picture / options.count).collect();
        if guidance.is_some() {
            source.extend(vec![prompts.len() as u32; pictures]);
        }
        let first: Vec<usize> = source.iter().map(|&row| begin[row as usize]).collect();
        let mut decoder = Decoder {
            view,
            cache: cache.select_rows(&source)?,
            head: transformer.head_rows(layout.code_tokens())?,
            guidance,
            stop,
            first,
            logits: vec![],
        };
        // All pictures of a prompt begin with the same logits.
        let mut read = decoder.read_logits(&hidden)?;
        if let Some(guidance) = guidance {
            let unconditional = read.pop().unwrap_or_default();
            read.iter_mut().for_each(|c| logits::guide(c, &unconditional, guidance));
        }
        decoder.logits = read.into_iter().flat_map(|l| vec![l; options.count as usize]).collect();
        Ok(decoder)
    }

    /// Feeds the code just drawn for each picture, and the newline where a row ends.
    fn step(&mut self, drawn: &[u32], row_ends: bool) -> Result<()> {
        let layout = self.view.model.layout();
        let mut rows: Vec<Vec<Piece>> =
            drawn.iter().map(|&c| vec![Piece::Token(layout.code_tokens()[c as usize])]).collect();
        if row_ends {
            rows.iter_mut().for_each(|r| r.push(Piece::Token(layout.newline)));
        }
        let new = rows[0].len();
        if self.guidance.is_some() {
            rows.extend(rows.clone());
        }
        let slot = self.cache.filled()[0];
        let positions: Vec<Vec<u32>> =
            self.first.iter().map(|&f| ((slot - f) as u32..(slot - f + new) as u32).collect()).collect();
        let span = |first: usize| move |new: usize| (first as u32, (slot + new + 1) as u32);
        let spans: Vec<Vec<Span>> = self.first.iter().map(|&f| (0..new).map(span(f)).collect()).collect();
        let rows: Vec<&[Piece]> = rows.iter().map(Vec::as_slice).collect();
        let transformer = &self.view.transformer;
        let context = transformer.context(&positions, &spans, slot + new, None)?.stopped_by(self.stop.clone());
        let hidden = self.view.transformer.forward(&self.view.embed(&rows)?, &context, Some(&mut self.cache))?;
        self.logits = self.read_logits(&hidden)?;
        if let Some(guidance) = self.guidance {
            let unconditional = self.logits.split_off(drawn.len());
            self.logits.iter_mut().zip(&unconditional).for_each(|(c, u)| logits::guide(c, u, guidance));
        }
        Ok(())
    }

    /// Code logits behind the last place of each row: f32 whatever the model runs in.
    fn read_logits(&self, hidden: &Tensor) -> Result<Vec<Vec<f32>>> {
        let (rows, t, h) = hidden.dims3()?;
        let last = hidden.narrow(1, t - 1, 1)?.reshape((rows, h))?;
        let logits = crate::model::ops::linear(&last, &self.head)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        if logits.iter().flatten().any(|l| l.is_nan()) {
            return Err(Error::Internal {
                message: "the transformer produced NaN; are the model's or the subject's weights sound?".into(),
            });
        }
        Ok(logits)
    }
}
