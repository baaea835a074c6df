//! What is varied, one thing at a time.

use serde::{Deserialize, Serialize};
use sitter::model::personalized::Personalized;
use sitter::model::subject::Subject;
use sitter::model::{Model, OpenOptions};
use sitter::personalize::{Dataset, Method, Options};
use sitter::picture::Picture;
use sitter::run::Run;
use sitter::sample::{self, draw_pictures};
use sitter::Result;
use std::time::Instant;

/// A table: what is varied, and what is measured for each value.
pub struct Case {
    pub name: &'static str,
    pub title: &'static str,
    pub varied: &'static str,
    pub measured: &'static str,
    pub sizes: &'static [u32],
    run: fn(&Model, u32) -> Result<f64>,
}

/// What a line costs. `seconds` is without opening the model.
#[derive(Serialize, Deserialize)]
pub struct Cost {
    pub opened: f64,
    pub seconds: f64,
    pub peak_mib: Option<f64>,
}

impl Case {
    pub const ALL: &[Case] = &[
        Case {
            name: "grid",
            title: "Drawing one guided picture, by its size",
            varied: "codes",
            measured: "s",
            sizes: &[64, 256, 1024, 4096],
            run: |model, n| draw(model, &[], "a photo of a fox", n.isqrt(), 1),
        },
        Case {
            name: "decode",
            title: "Turning codes into a picture, by its size",
            varied: "codes",
            measured: "s",
            sizes: &[64, 256, 1024, 4096],
            run: |model, n| {
                let tokens = grid(model, n.isqrt())?;
                timed(|| model.decode(&tokens, &Run::new()).map(drop))
            },
        },
        Case {
            name: "count",
            title: "Drawing several pictures of 256 codes in one call",
            varied: "pictures",
            measured: "s in all",
            sizes: &[1, 2, 4, 8, 16],
            run: |model, n| draw(model, &[], "a photo of a fox", 16, n),
        },
        Case {
            name: "prompt",
            title: "Drawing a picture of 64 codes, by the length of its prompt",
            varied: "words",
            measured: "s",
            sizes: &[8, 64, 256, 1024],
            run: |model, n| draw(model, &[], &"fox ".repeat(n as usize), 8, 1),
        },
        Case {
            name: "subjects",
            title: "Drawing a picture of 256 codes with one subject, by how many are loaded",
            varied: "subjects",
            measured: "s",
            sizes: &[1, 10, 100],
            run: |model, n| {
                let mut options = few_steps(model)?;
                options.layer_steps = 1;
                let first = sitter::train(model, &pictures(1)?, &options, &mut Run::new())?;
                let loaded: Vec<Subject> = (0..n).map(|_| copied(&first)).collect::<Result<_>>()?;
                draw(model, &[&loaded[0]], "a photo of a [V] fox", 16, 1)
            },
        },
        Case {
            name: "references",
            title: "Training 4 steps, by the number of reference pictures of 256 x 256",
            varied: "pictures",
            measured: "s",
            sizes: &[1, 4, 16],
            run: |model, n| train(model, n, |_| ()),
        },
        Case {
            name: "steps",
            title: "Training by its steps, half of them in each stage",
            varied: "steps",
            measured: "s",
            sizes: &[4, 8, 16],
            run: |model, n| train(model, 1, |o| (o.embedding_steps, o.layer_steps) = (n / 2, n / 2)),
        },
        Case {
            name: "batch",
            title: "Training 4 steps, by the pictures of a step",
            varied: "pictures",
            measured: "s",
            sizes: &[1, 2, 4, 8],
            run: |model, n| train(model, 4, |o| o.batch_size = n),
        },
        Case {
            name: "layers",
            title: "Training 4 steps of the layers stage, by the layers that learn (the last ones)",
            varied: "layers",
            measured: "s",
            sizes: &[1, 4, 16],
            run: |model, n| {
                let all = model.facts().layers as u32;
                train(model, 1, |o| {
                    (o.embedding_steps, o.layer_steps) = (0, 4);
                    o.layers = (all.saturating_sub(n)..all).collect();
                })
            },
        },
    ];

    pub fn measure(&self, folder: &str, n: u32) -> Result<Cost> {
        let started = Instant::now();
        let model = Model::open(folder, &OpenOptions::default(), &mut Run::new())?;
        let opened = started.elapsed().as_secs_f64();
        let seconds = (self.run)(&model, n)?;
        Ok(Cost { opened, seconds, peak_mib: peak_mib() })
    }
}

/// The largest resident set of this process so far.
pub fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

fn timed(call: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    call()?;
    Ok(started.elapsed().as_secs_f64())
}

/// Draws `count` pictures of `side` x `side` codes.
fn draw(model: &Model, subjects: &[&Subject], prompt: &str, side: u32, count: u32) -> Result<f64> {
    let pixels = side * model.facts().patch;
    let options = sample::Options { width: pixels, height: pixels, count, ..sample::Options::default() };
    let view = Personalized::new(model, subjects)?;
    timed(|| draw_pictures(&view, &[prompt], &options, &mut Run::new()).map(drop))
}

fn grid(model: &Model, side: u32) -> Result<sitter::tokens::Tokens> {
    let codes = model.info().codebook as u32;
    sitter::tokens::Tokens::new(side, side, (0..side * side).map(|i| i * 7919 % codes).collect())
}

pub fn pictures(count: u32) -> Result<Dataset> {
    let picture = |n: u32| Picture::new(256, 256, (0..256 * 256 * 3).map(|i| (i * (n + 3) / 7) as u8).collect());
    Dataset::new((0..count).map(picture).collect::<Result<_>>()?)
}

fn few_steps(model: &Model) -> Result<Options> {
    let mut options = Options::for_model(model, Method::TwoStage)?;
    options.class_word = "fox".into();
    options.image_size = 256;
    (options.embedding_steps, options.layer_steps) = (2, 2);
    Ok(options)
}

fn train(model: &Model, references: u32, change: impl FnOnce(&mut Options)) -> Result<f64> {
    let mut options = few_steps(model)?;
    change(&mut options);
    let dataset = pictures(references)?;
    timed(|| sitter::train(model, &dataset, &options, &mut Run::new()).map(drop))
}

/// The same subject again, as a host that loads its file twice has it.
fn copied(subject: &Subject) -> Result<Subject> {
    let file = std::env::temp_dir().join(format!("sitter-cost-{}.safetensors", std::process::id()));
    subject.save(&file)?;
    let loaded = Subject::load(&file);
    std::fs::remove_file(&file).map_err(|e| sitter::Error::io(&file, e))?;
    loaded
}
