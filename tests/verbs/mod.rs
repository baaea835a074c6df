//! What the library does, on tiny models: drawing, encoding, scoring, teaching. For tests of the ways in which it is done.

use sitter::model::family::Prediction;
use sitter::model::personalized::Personalized;
use sitter::model::subject::Subject;
use sitter::model::{Model, OpenOptions};
use sitter::personalize::{train, Adaptation, Dataset, Method, Options, Request, Trainable};
use sitter::picture::Picture;
use sitter::run::Run;
use sitter::sample::{self, draw_pictures, Decoding, Sample};
use sitter::tokens::Tokens;
use sitter::Result;
use std::path::Path;

/// Models with a picture decoder, so that pictures can be learned from, and the pixels along a side of what they draw and learn; 0 is
/// the model's own.
pub const LEARNING: [(&str, u32); 3] = [("plain", 8), ("janus", 0), ("infinity", 64)];

pub fn open(name: &str, device: &str, dtype: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let options =
        OpenOptions { device: device.into(), dtype: dtype.into(), keep_quantised: false, ..Default::default() };
    Model::open(folder, &options, &mut Run::new()).unwrap()
}

pub fn own_side(model: &Model, side: u32) -> u32 {
    if side == 0 {
        sample::Options::for_model(model).unwrap().width
    } else {
        side
    }
}

/// The ways in which a model can draw.
pub fn decodings(model: &Model) -> &'static [Decoding] {
    match model.family().prediction() {
        Prediction::NextToken(_) => &Decoding::ALL,
        Prediction::NextScale(_) => &[Decoding::Sequential],
    }
}

pub fn drawing(model: &Model, side: u32) -> sample::Options {
    let options = sample::Options { count: 2, seed: 5, ..sample::Options::for_model(model).unwrap() };
    let side = own_side(model, side);
    sample::Options { width: side, height: side, ..options }
}

/// Pictures of two prompts of different length.
pub fn draw(model: &Model, subjects: &[&Subject], options: &sample::Options) -> Vec<Sample> {
    let view = Personalized::new(model, subjects).unwrap();
    draw_pictures(&view, &["a dog", "a photo of a red cat in the snow"], options, &mut Run::new()).unwrap()
}

pub fn picture(n: u32, side: u32) -> Picture {
    let pixel = |i: u32| ((i / 3 % side / 2 + i / 3 / side / 2 + n) % 4 * 64 + i % 3 * 9) as u8;
    Picture::new(side, side, (0..side * side * 3).map(pixel).collect()).unwrap()
}

pub fn score(model: &Model, subjects: &[&Subject], tokens: &Tokens) -> f32 {
    let view = Personalized::new(model, subjects).unwrap();
    view.score("a photo of a dog", std::slice::from_ref(tokens), &mut Run::new()).unwrap()[0]
}

pub fn teach(model: &Model, options: &Options, side: u32, run: &mut Run) -> Result<Subject> {
    let dataset = Dataset::new((0..2).map(|n| picture(n, side)).collect()).unwrap();
    let mut draw = |view: &Personalized, wanted: &Request, run: &mut Run| {
        let Request { width, height, count, seed, .. } = *wanted;
        let options = sample::Options { width, height, count, seed, ..sample::Options::for_model(model)? };
        Ok(draw_pictures(view, &[&wanted.prompt], &options, run)?.into_iter().map(|s| s.tokens).collect())
    };
    train(model, &dataset, options, &mut draw, run)
}

/// A short training of each kind that this model has: by every method, of every set of weights, low-rank, and with pictures of the
/// class.
pub fn trainings(model: &Model, side: u32) -> Vec<Options> {
    let by_scale = matches!(model.family().prediction(), Prediction::NextScale(_));
    let mut roles: Vec<&str> = model.family().weights().iter().flat_map(|entry| entry.spec.roles).copied().collect();
    roles.extend(["all"]);
    roles.sort_unstable();
    roles.dedup();
    let of = |method| Options::for_model(model, method).unwrap();
    let mut cases: Vec<Options> =
        Method::ALL.into_iter().filter(|method| by_scale || *method != Method::Arbooth).map(of).collect();
    cases.extend(
        roles.iter().map(|role| Options { trainable: Trainable::parse(role).unwrap(), ..of(Method::Dreambooth) }),
    );
    cases.push(Options { adaptation: Adaptation::LowRank, trainable: Trainable::ALL, ..of(Method::TwoStage) });
    cases.push(Options { prior_weight: 0.5, prior_count: 2, ..of(Method::Dreambooth) });
    let short = |case: Options| Options {
        class_word: "dog".into(),
        image_size: side,
        embedding_steps: case.embedding_steps.min(2),
        layer_steps: case.layer_steps.min(2),
        layer_learning_rate: 1e-3,
        lora_rank: 2,
        batch_size: 2,
        dropout: 0.1,
        templates: vec!["a photo of a {}".into(), "a red {} in the snow".into()],
        ..case
    };
    cases.into_iter().map(short).collect()
}
