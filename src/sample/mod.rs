//! How tokens are drawn.

pub mod logits;

use crate::model::lumina::transformer::{causal_mask, Cache};
use crate::model::personalized::{Personalized, Piece};
use crate::model::subject::Subject;
use crate::model::tokens::Tokens;
use crate::model::Model;
use crate::random::picture_seed;
use crate::run::{Control, Run, Stage};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// How to draw. Defaults are the paper's (arXiv 2504.13162) unless the model recommends its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Pixels; a multiple of the model's grid unit.
    pub width: u32,
    /// Pixels; a multiple of the model's grid unit.
    pub height: u32,
    /// Pictures to draw, all in one batch; 1 to 256.
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
        if !(1..=256).contains(&self.count) {
            return Err(Error::invalid("count", format!("{} is outside 1 to 256", self.count)));
        }
        Ok(())
    }
}

/// One drawn picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub tokens: Tokens,
    /// Drawn alone with this seed, the picture is the same.
    pub seed: u64,
}

impl Sample {
    /// What made this picture, as the key and text of a PNG text chunk (see `Picture::save_png`): JSON with model,
    /// subjects, prompt, seed and settings.
    pub fn provenance(&self, view: &Personalized, prompt: &str, options: &Options) -> (&'static str, String) {
        let subjects: Vec<_> = view.words.iter().map(|w| &w.identifier).collect();
        let (width, height) = view.model.layout().pixels(&self.tokens);
        let json = serde_json::json!({
            "software": concat!("sitter ", env!("CARGO_PKG_VERSION")),
            "model": view.model.name(),
            "fingerprint": view.model.fingerprint(),
            "subjects": subjects,
            "prompt": prompt,
            "seed": self.seed,
            "width": width,
            "height": height,
            "guidance": options.guidance,
            "top_k": options.top_k,
            "temperature": options.temperature,
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
    draw_pictures(&Personalized::new(model, subjects)?, prompt, options, run)
}

/// As [`sample`], for a model whose subjects are already applied.
pub fn draw_pictures(view: &Personalized, prompt: &str, options: &Options, run: &mut Run) -> Result<Vec<Sample>> {
    options.check_ranges()?;
    run.check()?;
    let layout = view.model.layout();
    let (height, width) = layout.grid(options.width, options.height)?;
    let prompt = view.prompt(prompt, options.width, options.height)?;
    let mut decoder = Decoder::new(view, &prompt, (height, width), options, run.control())?;
    let seeds: Vec<u64> = (0..options.count).map(|i| picture_seed(options.seed, i)).collect();
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
        run.report(Stage::Sample, position as u64 + 1, (height * width) as u64, None)?;
        // What follows the last code is fixed, and nothing is drawn after it.
        if position + 1 < height * width {
            decoder.step(&drawn, (position + 1).is_multiple_of(width))?;
        }
    }
    let samples = codes
        .into_iter()
        .zip(seeds)
        .map(|(codes, seed)| Ok(Sample { tokens: Tokens::new(height, width, codes)?, seed }));
    samples.collect()
}

/// The transformer in the middle of drawing: conditional rows first, then, under guidance, unconditional ones.
///
/// All rows share the cache's slots. The unconditional rows begin at the image start token, which has position 0 for
/// them; the slots of the prompt before it are masked.
struct Decoder<'v> {
    view: &'v Personalized<'v>,
    cache: Cache,
    head: Tensor,
    guidance: f32,
    count: usize,
    prompt: usize,
    stop: Control,
    /// [rows, 1, 1, capacity]: minus infinity where an unconditional row must not look. None without guidance.
    hidden_slots: Option<Tensor>,
    /// The guided logits of the next code, for each picture.
    logits: Vec<Vec<f32>>,
}

impl<'v> Decoder<'v> {
    fn new(
        view: &'v Personalized,
        prompt: &[Piece],
        (height, width): (u32, u32),
        options: &Options,
        stop: Control,
    ) -> Result<Self> {
        let transformer = &view.transformer;
        let layout = view.model.layout();
        let device = transformer.device();
        let opening = layout.image_head(height, width)?.map(Piece::Token);
        let (count, guided) = (options.count as usize, options.guidance != 1.0);
        let start = prompt.len() + opening.len();
        let capacity = start + height as usize * (width as usize + 1);

        let conditional = [prompt, &opening].concat();
        let unconditional = [vec![Piece::Token(layout.bos); prompt.len()], opening.to_vec()].concat();
        let mut rows = vec![conditional.as_slice()];
        let mut positions = vec![(0..start as u32).collect::<Vec<_>>()];
        let mut mask = causal_mask(start, start, device)?;
        if guided {
            rows.push(&unconditional);
            positions.push((0..start as u32).map(|slot| slot.saturating_sub(prompt.len() as u32)).collect());
            // The prompt's slots see themselves, so that no softmax is empty; nothing else sees them.
            let sees = |i: usize, j: usize| j <= i && (j >= prompt.len() || i == j);
            let bias = |i, j| if sees(i, j) { 0f32 } else { f32::NEG_INFINITY };
            let values: Vec<f32> = (0..start).flat_map(|i| (0..start).map(move |j| bias(i, j))).collect();
            mask = Tensor::cat(&[mask, Tensor::from_vec(values, (1, 1, start, start), device)?], 0)?;
        }
        let mut cache = transformer.new_cache(rows.len(), capacity)?;
        let context = transformer.context(&positions, Some(mask), None)?.stopped_by(stop.clone());
        let hidden = transformer.forward(&view.embed(&rows)?, &context, Some(&mut cache))?;
        let hidden_slots = guided.then(|| {
            let values: Vec<f32> = (0..2 * count)
                .flat_map(|row| {
                    (0..capacity)
                        .map(move |slot| if row >= count && slot < prompt.len() { f32::NEG_INFINITY } else { 0.0 })
                })
                .collect();
            Tensor::from_vec(values, (2 * count, 1, 1, capacity), device)
        });
        let mut decoder = Decoder {
            view,
            cache: cache.repeat_rows(count)?,
            head: transformer.head_rows(layout.code_tokens())?,
            guidance: options.guidance,
            count,
            stop,
            prompt: prompt.len(),
            hidden_slots: hidden_slots.transpose()?,
            logits: vec![],
        };
        let first = decoder.read_logits(&hidden)?;
        decoder.logits = first.into_iter().flat_map(|l| vec![l; count]).collect();
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
        let slot = self.cache.filled();
        let slots = |base: usize| ((slot - base) as u32..(slot - base + new) as u32).collect::<Vec<u32>>();
        let mut positions = vec![slots(0)];
        if self.hidden_slots.is_some() {
            rows.extend(rows.clone());
            positions = [vec![slots(0); self.count], vec![slots(self.prompt); self.count]].concat();
        }
        let device = self.view.transformer.device();
        let causal = (new > 1).then(|| causal_mask(new, slot + new, device)).transpose()?;
        let hidden_slots = self.hidden_slots.as_ref().map(|m| m.narrow(3, 0, slot + new)).transpose()?;
        let mask = match (causal, hidden_slots) {
            (Some(causal), Some(hidden)) => Some(hidden.broadcast_add(&causal)?),
            (causal, hidden) => causal.or(hidden),
        };
        let rows: Vec<&[Piece]> = rows.iter().map(Vec::as_slice).collect();
        let context = self.view.transformer.context(&positions, mask, None)?.stopped_by(self.stop.clone());
        let hidden = self.view.transformer.forward(&self.view.embed(&rows)?, &context, Some(&mut self.cache))?;
        self.logits = self.read_logits(&hidden)?;
        Ok(())
    }

    /// Code logits behind the last place of each row, guided: f32 whatever the model runs in.
    fn read_logits(&self, hidden: &Tensor) -> Result<Vec<Vec<f32>>> {
        let (rows, t, h) = hidden.dims3()?;
        let last = hidden.narrow(1, t - 1, 1)?.reshape((rows, h))?;
        let mut logits = crate::model::ops::linear(&last, &self.head)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        if self.hidden_slots.is_some() {
            let unconditional = logits.split_off(rows / 2);
            for (c, u) in logits.iter_mut().zip(&unconditional) {
                logits::guide(c, u, self.guidance);
            }
        }
        if logits.iter().flatten().any(|l| l.is_nan()) {
            return Err(Error::Internal {
                message: "the transformer produced NaN; are the model's or the subject's weights sound?".into(),
            });
        }
        Ok(logits)
    }
}
