//! Our side of the comparison with PyTorch; `compare.py` runs it against `theirs.py` and says how.
//!
//! `ours ROW MODEL [--dtype NAME] [--pixels N] [--once]` sets a row up, prints `ready`, and measures once for every line on
//! its standard input, answering with `{"seconds": .., "work": ..}`: work is what the row counts, codes or pictures or
//! steps. With `--once` it measures a single time without waiting, so that its peak memory is that of the row.
//! The row `check` prints the numbers that both sides must agree on.

use candle_core::{DType, Tensor};
use lexopt::prelude::*;
use serde_json::{json, Value as Json};
use sitter::evaluate::{self, Evaluator, Item, Request};
use sitter::model::family::{Condition, Example, Piece, Prediction, Teacher};
use sitter::model::personalized::Personalized;
use sitter::model::{Model, OpenOptions};
use sitter::personalize::{Batch, Learner, Method, Options};
use sitter::picture::Picture;
use sitter::run::{Control, Flow, Run, Stage};
use sitter::sample::{self, draw_pictures};
use sitter::tokens::Tokens;
use sitter::{Error, Result};
use std::io::Write;
use std::time::Instant;

const PROMPT: &str = "a photo of a red fox on the beach";
const SUBJECT_PROMPT: &str = "a photo of a [V] fox on the beach";
/// Of a subject that ARBooth teaches, and of its class.
const ARBOOTH_PROMPT: &str = "a photo of [V] fox";
const CLASS_PROMPT: &str = "a photo of fox";

fn main() -> std::process::ExitCode {
    match Arguments::read().and_then(|a| a.run()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}

struct Arguments {
    row: String,
    model: String,
    dtype: String,
    pixels: u32,
    once: bool,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut parser = lexopt::Parser::from_env();
        let (mut places, mut dtype, mut pixels, mut once) = (Vec::new(), "f32".to_string(), 512, false);
        let mut read = || -> std::result::Result<(), lexopt::Error> {
            while let Some(argument) = parser.next()? {
                match argument {
                    Long("dtype") => dtype = parser.value()?.string()?,
                    Long("pixels") => pixels = parser.value()?.parse()?,
                    Long("once") => once = true,
                    Value(value) => places.push(value.string()?),
                    other => return Err(other.unexpected()),
                }
            }
            Ok(())
        };
        read().map_err(|e| Error::invalid("command line", e.to_string()))?;
        match <[String; 2]>::try_from(places) {
            Ok([row, model]) => Ok(Arguments { row, model, dtype, pixels, once }),
            Err(_) => Err(Error::invalid("command line", "expected a row and a model")),
        }
    }

    fn open(&self) -> Result<Model> {
        Model::open(
            &self.model,
            &OpenOptions {
                device: "cpu".into(),
                dtype: self.dtype.clone(),
                keep_quantised: false,
                ..Default::default()
            },
            &mut Run::new(),
        )
    }

    fn run(&self) -> Result<()> {
        if self.row == "open" {
            return self.measure(|| self.first_token());
        }
        if self.row == "evaluate" {
            return self.evaluate();
        }
        let model = self.open()?;
        let pixels = self.pixels;
        let codes = model.info().codebook as u32;
        let tokens = grid(pixels / model.facts().patch, codes)?;
        match self.row.as_str() {
            "check" => {
                let found = match model.family().prediction() {
                    Prediction::NextScale(_) => check_scales(&model)?,
                    Prediction::NextToken(_) => check(&model)?,
                };
                println!("{found}");
                Ok(())
            }
            "sample" => self.measure(|| draw(&model, pixels)),
            "prefill" => {
                let view = Personalized::new(&model, &[])?;
                let sequence = view.family.example(&Condition::default(), &tokens)?;
                self.measure(|| timed(1, || last_logits(&view, &sequence.pieces).map(drop)))
            }
            "arbooth_step" => {
                let (mut learner, subject) = arbooth(&model, pixels)?;
                let class = learner.view().condition(CLASS_PROMPT, pixels, pixels)?;
                let mut seed = 0;
                self.measure(|| {
                    timed(1, || {
                        seed += 1;
                        let (size, stop) = ((pixels, pixels), Control::default());
                        let taught = model.family().teach(&class, size, seed, Teacher::Correct, &stop)?;
                        let batch = Batch { subject: vec![subject.clone()], prior: taught.into_iter().collect() };
                        learner.step(&batch, &Run::new()).map(drop)
                    })
                })
            }
            "embedding_step" | "layer_step" => {
                let (mut learner, batch) = lesson(&model, &self.row, &tokens)?;
                self.measure(|| timed(1, || learner.step(&batch, &Run::new()).map(drop)))
            }
            "encode" => {
                let picture = picture(pixels)?;
                self.measure(|| timed(1, || model.encode(&picture, &Run::new()).map(drop)))
            }
            "decode" => self.measure(|| timed(1, || model.decode(&tokens, &Run::new()).map(drop))),
            other => Err(Error::invalid("row", format!("{other} is unknown"))),
        }
    }

    fn measure(&self, mut once: impl FnMut() -> Result<Json>) -> Result<()> {
        let say = |line: String| {
            println!("{line}");
            std::io::stdout().flush().map_err(|e| Error::io("standard output", e))
        };
        if self.once {
            return say(once()?.to_string());
        }
        say("ready".into())?;
        for line in std::io::stdin().lines() {
            line.map_err(|e| Error::io("standard input", e))?;
            say(once()?.to_string())?;
        }
        Ok(())
    }

    /// Scores of the pictures that `dino_clip.py` made, the last four of them as references.
    fn evaluate(&self) -> Result<()> {
        let folder = std::path::Path::new(&self.model);
        let (dino, clip) = (Some(folder.join("dino")), Some(folder.join("clip")));
        let evaluator = Evaluator::open(&evaluate::OpenOptions { dino, clip, lpips: None }, &mut Run::new())?;
        let pictures = folder.join("pictures");
        let entries = std::fs::read_dir(&pictures).map_err(|e| Error::io(&pictures, e))?;
        let mut files: Vec<_> = entries.filter_map(|e| e.ok()).map(|e| e.path()).collect();
        files.sort();
        let items: Vec<Item> = files.iter().map(|path| Item::file(path, "a {} dog in the snow")).collect();
        let (drawn, references) = items.split_at(items.len() - 4);
        let request = Request { pictures: drawn.to_vec(), references: references.to_vec(), ..Request::default() };
        self.measure(|| {
            let started = Instant::now();
            let means = evaluator.score(&request, &mut Run::new())?.means;
            let scores = [means.dino, means.clip_i, means.clip_t];
            Ok(json!({"seconds": started.elapsed().as_secs_f64(), "work": items.len(), "scores": scores}))
        })
    }

    /// From the call that opens the model to its first token.
    fn first_token(&self) -> Result<Json> {
        let (started, mut seconds) = (Instant::now(), 0.0);
        let model = self.open()?;
        let options = sample::Options::for_model(&model)?;
        let mut run = Run::with_events(|event| match event.stage {
            Stage::Sample => {
                seconds = started.elapsed().as_secs_f64();
                Flow::Cancel
            }
            _ => Flow::Continue,
        });
        let stopped = sample::sample(&model, PROMPT, &[], &options, &mut run);
        drop(run);
        match stopped {
            Err(Error::Cancelled) => Ok(json!({"seconds": seconds, "work": 1})),
            Err(e) => Err(e),
            Ok(_) => Err(Error::Internal { message: "a cancelled run drew a picture".into() }),
        }
    }
}

fn timed(work: u32, call: impl FnOnce() -> Result<()>) -> Result<Json> {
    let started = Instant::now();
    call()?;
    Ok(json!({"seconds": started.elapsed().as_secs_f64(), "work": work}))
}

/// Codes that no picture has; `theirs.py` makes the same.
fn grid(side: u32, codes: u32) -> Result<Tokens> {
    Tokens::new(side, side, (0..side * side).map(|i| (i * 7919 + 13) % codes).collect())
}

/// A picture with some structure; `theirs.py` makes the same.
fn picture(side: u32) -> Result<Picture> {
    let value = |i: u32| {
        let (x, y, c) = (i / 3 % side, i / 3 / side, i % 3);
        ((x * 3 + y * 5 + c * 80 + x * y / 64) % 256) as u8
    };
    Picture::new(side, side, (0..side * side * 3).map(value).collect())
}

/// The first values of what is learned: [1, hidden]; `theirs.py` makes the same.
fn first_vector(model: &Model) -> Result<Tensor> {
    let hidden = model.facts().width;
    let value = |i: usize| (((i as u32 + 1).wrapping_mul(2654435761)) as f64 / 4294967296.0 - 0.5) * 0.07;
    let values: Vec<f32> = (0..hidden).map(|i| value(i) as f32).collect();
    Ok(Tensor::from_vec(values, (1, hidden), model.device())?)
}

/// The time from the first code of a guided picture to its last.
fn draw(model: &Model, pixels: u32) -> Result<Json> {
    let options = sample::Options { width: pixels, height: pixels, ..sample::Options::for_model(model)? };
    let (mut first, mut seconds, mut work) = (None, 0.0, 0);
    let mut run = Run::with_events(|event| {
        if event.stage == Stage::Sample {
            let first = first.get_or_insert_with(Instant::now);
            (seconds, work) = (first.elapsed().as_secs_f64(), event.done - 1);
        }
        Flow::Continue
    });
    sample::sample(model, PROMPT, &[], &options, &mut run)?;
    drop(run);
    Ok(json!({"seconds": seconds, "work": work}))
}

/// Logits of the codes behind the last of the pieces.
fn last_logits(view: &Personalized, pieces: &[Piece]) -> Result<Vec<f32>> {
    let Prediction::NextToken(next) = view.family.prediction() else { panic!("draws code by code") };
    let context = next.rotary().causal(pieces.len())?;
    let hidden = next.forward(&next.embed(&[pieces], None)?, &context, None)?;
    let logits = next.logits(&hidden.narrow(1, pieces.len() - 1, 1)?)?;
    Ok(logits.flatten_all()?.to_vec1()?)
}

/// One sequence, and what is to learn from it in the stage called `row`.
fn lesson<'m>(model: &'m Model, row: &str, tokens: &Tokens) -> Result<(Learner<'m>, Batch)> {
    let options = Options {
        class_word: "fox".into(),
        dropout: 0.0,
        per_image_tokens: false,
        layer_learning_rate: 1e-4,
        ..Options::new(Method::TwoStage)
    };
    let vector = first_vector(model)?;
    let learner = match row {
        "embedding_step" => Learner::embedding(model, &options, &vector)?,
        _ => Learner::layers(model, &options, &vector)?,
    };
    let subject = vec![learner.view().example(SUBJECT_PROMPT, tokens)?];
    Ok((learner, Batch { subject, prior: vec![] }))
}

/// What learns by ARBooth, and the example of a subject's picture.
fn arbooth(model: &Model, pixels: u32) -> Result<(Learner<'_>, Example)> {
    let options = Options {
        class_word: "fox".into(),
        dropout: 0.0,
        self_correction: 0.0,
        ..Options::for_model(model, Method::Arbooth)?
    };
    let vectors = Tensor::zeros((4, model.facts().width), DType::F32, model.device())?;
    let learner = Learner::layers(model, &options, &vectors)?;
    let example = learner.view().example(ARBOOTH_PROMPT, &model.encode(&picture(pixels)?, &Run::new())?)?;
    Ok((learner, example))
}

/// What `infinity.py check` compares with its own: the likeliest bits, and how likely those of a picture are.
fn check_scales(model: &Model) -> Result<Json> {
    let likeliest = sample::Options { width: 256, height: 256, top_p: 0.0, ..sample::Options::for_model(model)? };
    let view = Personalized::new(model, &[])?;
    let drawn = draw_pictures(&view, &[PROMPT], &likeliest, &mut Run::new())?;
    let tokens = [model.encode(&picture(256)?, &Run::new())?];
    let nats = view.score(PROMPT, &tokens, &mut Run::new())?[0];
    let (mut learner, subject) = arbooth(model, 256)?;
    let batch = Batch { subject: vec![subject], prior: vec![] };
    let steps = (0..3).map(|_| learner.step(&batch, &Run::new())).collect::<Result<Vec<_>>>()?;
    let steps: Vec<Json> = steps.iter().map(|s| json!([s.loss, s.gradient_norm])).collect();
    Ok(json!({"greedy": drawn[0].tokens.codes(), "labels": tokens[0].codes(), "nats": nats, "arbooth": steps}))
}

/// What `theirs.py check` compares with its own: token ids, logits, greedy codes, losses, codes and pixels.
fn check(model: &Model) -> Result<Json> {
    let view = Personalized::new(model, &[])?;
    let (unit, patch, codes) = (model.facts().unit, model.facts().patch, model.facts().codebook as u32);
    // Small grids where they are allowed, else the one that is.
    let (side, [width, height], pixels) = match unit / patch {
        0..8 => (8, [3 * unit, 2 * unit], 4 * unit),
        all => (all, [unit, unit], unit),
    };
    let tokens = grid(side, codes)?;
    let pieces = view.example(PROMPT, &tokens)?.pieces;
    let ids = |pieces: &[Piece]| -> Vec<Option<u32>> {
        let id = |piece: &Piece| match piece {
            Piece::Token(id) => Some(*id),
            Piece::Vector(_) | Piece::Code(_) => None,
        };
        pieces.iter().map(id).collect()
    };
    let half = pieces.len() - 40;
    let mut losses = serde_json::Map::new();
    for row in ["embedding_step", "layer_step"] {
        let (mut learner, batch) = lesson(model, row, &tokens)?;
        let steps = (0..3).map(|_| learner.step(&batch, &Run::new())).collect::<Result<Vec<_>>>()?;
        losses.insert(row.into(), steps.iter().map(|s| json!([s.loss, s.gradient_norm])).collect());
        losses.insert(format!("{row} ids"), json!(ids(&batch.subject[0].pieces)));
    }
    let greedy = sample::Options { width, height, top_k: 1, ..sample::Options::for_model(model)? };
    let drawn = draw_pictures(&view, &[PROMPT], &greedy, &mut Run::new())?;
    let picture = picture(pixels)?;
    Ok(json!({
        "ids": ids(&pieces),
        "logits": [last_logits(&view, &pieces[..half])?, last_logits(&view, &pieces)?],
        "greedy": drawn[0].tokens.codes(),
        "losses": losses,
        "codes": model.encode(&picture, &Run::new())?.codes(),
        "pixels": model.decode(&tokens, &Run::new())?.rgb(),
    }))
}
