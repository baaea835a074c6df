//! What it costs to keep a model's weights in fewer bits, as a markdown table: nats per token of pictures that the f32 model
//! drew, how often the likeliest next token is the same, and memory.
//!
//! `cargo run --release --example formats -- MODEL PIXELS PICTURES`, MODEL a folder or `embedded:`.

use candle_core::{Tensor, D};
use sitter::estimate::{Estimate, Request};
use sitter::model::family::{Example, Prediction};
use sitter::model::outline::Outline;
use sitter::model::personalized::Personalized;
use sitter::model::{Model, OpenOptions};
use sitter::personalize::{Method, Options};
use sitter::run::Run;
use sitter::tokens::Tokens;
use sitter::weight::Format;
use sitter::{sample, Error, Result};
use std::process::ExitCode;

const PROMPTS: [&str; 4] = [
    "a photo of a red fox",
    "a photo of a cat on the beach",
    "a photo of an owl at night",
    "a photo of a blue bear in the snow",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Option<(u32, u32)> =
        arguments.get(1).zip(arguments.get(2)).and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let result = match (arguments.first(), numbers) {
        (Some(model), Some((pixels, count))) => print(model, pixels, count),
        _ => Err(Error::invalid("command line", "expected MODEL PIXELS PICTURES")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn open(model: &str, format: Format) -> Result<Model> {
    Model::open(
        model,
        &OpenOptions { device: "cpu".into(), dtype: format.name().into(), keep_quantised: false, ..Default::default() },
        &mut Run::new(),
    )
}

fn print(name: &str, pixels: u32, count: u32) -> Result<()> {
    let whole = open(name, Format::F32)?;
    let settings = sample::Options { width: pixels, height: pixels, count, ..sample::Options::for_model(&whole)? };
    let view = Personalized::new(&whole, &[])?;
    let pictures = sample::draw_pictures(&view, &PROMPTS, &settings, &mut Run::new())?;
    let drawn: Vec<(String, Tokens)> = pictures.into_iter().map(|p| (p.prompt, p.tokens)).collect();
    let expected = likeliest(&view, &drawn)?;
    drop(view);
    println!("| weights | MB | nats per token | likeliest code as in f32 |");
    println!("|---|---|---|---|");
    for format in Format::ALL {
        let model = open(name, format)?;
        let view = Personalized::new(&model, &[])?;
        let mut nats = 0.0;
        for (prompt, tokens) in &drawn {
            nats += f64::from(view.score(prompt, std::slice::from_ref(tokens), &mut Run::new())?[0]);
        }
        let found = likeliest(&view, &drawn)?;
        let same = found.iter().zip(&expected).filter(|(a, b)| a == b).count();
        let request = Request { sample: &settings, prompts: 1, train: &Options::new(Method::TwoStage) };
        let weights = Estimate::of(&Outline::of(&model), &request).weights;
        println!(
            "| {} | {:.1} | {:.4} | {:.2}% |",
            format.name(),
            weights as f64 / 1e6,
            nats / drawn.len() as f64,
            100.0 * same as f64 / expected.len() as f64
        );
    }
    Ok(())
}

/// The likeliest code at each labelled place of the pictures.
fn likeliest(view: &Personalized, drawn: &[(String, Tokens)]) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for (prompt, tokens) in drawn {
        let Example { pieces, labelled, .. } = view.example(prompt, tokens)?;
        let Prediction::NextToken(next) = view.family.prediction() else { panic!("draws code by code") };
        let x = next.embed(&[&pieces], None)?;
        let hidden = next.forward(&x, &next.rotary().causal(pieces.len())?, None)?.squeeze(0)?;
        let at: Vec<u32> = labelled.map(|place| place as u32 - 1).collect();
        let hidden = hidden.index_select(&Tensor::new(at, hidden.device())?, 0)?;
        found.extend(next.logits(&hidden)?.argmax(D::Minus1)?.to_vec1::<u32>()?);
    }
    Ok(found)
}
