//! How much memory training a model takes, as a markdown table: sizes of pictures and trainable sets against what the
//! optimizer's states are kept in. Nothing is opened.
//!
//! `cargo run --release --example memory -- FOLDER [--cpu] [--dtype NAME]`; without `--cpu` as on a GPU.

use sitter::estimate::{Estimate, Request};
use sitter::model::outline::Outline;
use sitter::model::OpenOptions;
use sitter::personalize::{Method, Options, Recompute, StateFormat, Trainable};
use sitter::{sample, Error, Result};
use std::process::ExitCode;

/// Memory of cards, in GB; a tenth is left to the driver and to fragments.
const CARDS: [u64; 4] = [16, 24, 48, 80];

fn main() -> ExitCode {
    match print() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn print() -> Result<()> {
    use lexopt::prelude::*;
    let (mut folder, mut cpu, mut dtype) = (None, false, "bf16".to_string());
    let mut parser = lexopt::Parser::from_env();
    let mut read = || -> std::result::Result<(), lexopt::Error> {
        while let Some(argument) = parser.next()? {
            match argument {
                Long("cpu") => cpu = true,
                Long("dtype") => dtype = parser.value()?.string()?,
                Value(value) => folder = Some(value.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(())
    };
    read().map_err(|e| Error::invalid("command line", e.to_string()))?;
    let folder = folder.ok_or_else(|| Error::invalid("command line", "expected a model folder"))?;
    let mut outline = Outline::read(
        folder,
        &OpenOptions { device: "cpu".into(), dtype, keep_quantised: false, ..Default::default() },
    )?;
    outline.at.on_gpu = !cpu;
    let sample = sample::Options::recommended(&outline.recommended)?;
    let gb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e9);
    println!("| pixels | what learns | states | {} GB | host GB | fits |", if cpu { "in all" } else { "card" });
    println!("|---|---|---|---|---|---|");
    for side in [512, 768, 1024] {
        let base = Options {
            image_size: side,
            recompute: Recompute::Always,
            keep_gradients: false,
            ..Options::new(Method::TwoStage)
        };
        let row = |what: &str, state: &str, options: &Options, layers: bool| {
            let of = Estimate::of(&outline, &Request { sample: &sample, prompts: 1, train: options });
            let (needed, host) = if layers { (of.layers, of.layers_host) } else { (of.embedding, 0) };
            let fits = CARDS.iter().find(|&&card| needed <= card * 1_000_000_000 * 9 / 10);
            let fits = fits.map_or("none".into(), |card| format!("{card} GB"));
            println!("| {side} | {what} | {state} | {} | {} | {fits} |", gb(needed), gb(host));
        };
        row("embedding", "f32", &base, false);
        let sets = [
            ("LoRA, rank 16", Trainable::LORA, 16),
            ("LoRA, rank 64", Trainable::LORA, 64),
            ("q, k, v", Trainable::QKV, 0),
            ("all", Trainable::ALL, 0),
        ];
        for (what, trainable, rank) in sets {
            for format in StateFormat::ALL {
                let master_weights = format == StateFormat::F32;
                let lora_rank = rank.max(1);
                let trainable = trainable.clone();
                let options = Options { trainable, lora_rank, optimizer_state: format, master_weights, ..base.clone() };
                row(what, format.name(), &options, true);
            }
        }
    }
    Ok(())
}
