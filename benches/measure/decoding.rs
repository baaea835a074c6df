//! Measures the ways of decoding against each other: what stands in docs/decoding.md.
//!
//! `cargo run --release --example decoding -- [--model FOLDER] [--size PIXELS] [--pictures N] [--batch N] [--prompt TEXT]
//! [--window N]... [--guidance N] [--top-k N] [--temperature N]` draws N pictures by each way, so many in one batch, and prints a
//! row for each: passes (the mean over batches), seconds per picture, and how many pictures are those of sequential decoding.

use lexopt::prelude::*;
use sitter::model::personalized::Personalized;
use sitter::model::{Model, OpenOptions, EMBEDDED};
use sitter::run::{Control, Run};
use sitter::sample::drawing::Drawing;
use sitter::sample::{Decoding, Options};
use sitter::Result;
use std::time::Instant;

struct Arguments {
    model: String,
    size: Option<u32>,
    pictures: u32,
    batch: u32,
    prompt: String,
    windows: Vec<u32>,
    guidance: Option<f32>,
    top_k: Option<u32>,
    temperature: Option<f32>,
}

fn arguments() -> std::result::Result<Arguments, lexopt::Error> {
    let mut found = Arguments {
        model: EMBEDDED.into(),
        size: None,
        pictures: 16,
        batch: 1,
        prompt: "a photo of a fox in the snow".into(),
        windows: vec![],
        guidance: None,
        top_k: None,
        temperature: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("model") => found.model = parser.value()?.string()?,
            Long("size") => found.size = Some(parser.value()?.parse()?),
            Long("pictures") => found.pictures = parser.value()?.parse()?,
            Long("batch") => found.batch = parser.value()?.parse()?,
            Long("prompt") => found.prompt = parser.value()?.string()?,
            Long("window") => found.windows.push(parser.value()?.parse()?),
            Long("guidance") => found.guidance = Some(parser.value()?.parse()?),
            Long("top-k") => found.top_k = Some(parser.value()?.parse()?),
            Long("temperature") => found.temperature = Some(parser.value()?.parse()?),
            _ => return Err(argument.unexpected()),
        }
    }
    if found.windows.is_empty() {
        found.windows = vec![4, 8, 16, 32, 64];
    }
    Ok(found)
}

/// One way of drawing all pictures.
struct Measured {
    codes: Vec<Vec<u32>>,
    passes: f64,
    seconds: f64,
    cpu_seconds: f64,
}

/// Time that all threads have computed: on a busy machine it says more than the clock.
#[cfg(unix)]
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the structure given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

#[cfg(not(unix))]
fn cpu_seconds() -> f64 {
    f64::NAN
}

fn measure(view: &Personalized, arguments: &Arguments, options: &Options) -> Result<Measured> {
    let batches = arguments.pictures.div_ceil(arguments.batch);
    let mut found = Measured { codes: vec![], passes: 0.0, seconds: 0.0, cpu_seconds: 0.0 };
    let (started, cpu) = (Instant::now(), cpu_seconds());
    for batch in 0..batches {
        let options = Options { seed: u64::from(batch), count: arguments.batch, ..options.clone() };
        let mut drawing = Drawing::new(view, &[&arguments.prompt], &options, Control::default())?;
        while drawing.pass()? < drawing.total() {}
        found.passes += drawing.traffic().passes as f64 / f64::from(batches);
        found.codes.extend(drawing.finish());
    }
    let pictures = f64::from(batches * arguments.batch);
    found.seconds = started.elapsed().as_secs_f64() / pictures;
    found.cpu_seconds = (cpu_seconds() - cpu) / pictures;
    Ok(found)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments = arguments()?;
    let model = Model::open(&arguments.model, &OpenOptions::default(), &mut Run::new())?;
    let view = Personalized::new(&model, &[])?;
    let mut options = Options::for_model(&model)?;
    options.width = arguments.size.unwrap_or(options.width);
    options.height = arguments.size.unwrap_or(options.height);
    options.guidance = arguments.guidance.unwrap_or(options.guidance);
    options.top_k = arguments.top_k.unwrap_or(options.top_k);
    options.temperature = arguments.temperature.unwrap_or(options.temperature);
    println!("| decoding | window | passes | seconds | CPU seconds | same pictures |\n|---|---|---|---|---|---|");
    let sequential = measure(&view, &arguments, &options)?;
    let row = |decoding: Decoding, window: &str, m: &Measured| {
        let same = m.codes.iter().zip(&sequential.codes).filter(|(a, b)| a == b).count();
        let (name, all) = (decoding.name(), m.codes.len());
        println!("| {name} | {window} | {:.1} | {:.3} | {:.3} | {same} of {all} |", m.passes, m.seconds, m.cpu_seconds);
    };
    row(Decoding::Sequential, "", &sequential);
    for decoding in [Decoding::Speculative, Decoding::SpeculativeDistribution] {
        for &window in &arguments.windows {
            let found = measure(&view, &arguments, &Options { decoding, window, ..options.clone() })?;
            row(decoding, &window.to_string(), &found);
        }
    }
    Ok(())
}
