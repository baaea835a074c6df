//! Writes a model folder of Lumina's, Janus's or Infinity's layout with random weights: for measuring speed and memory at real sizes, and for
//! tests of everything that does not need a picture to be pretty.
//!
//! `cargo run --release --example random_model -- 7b OUT` writes 14 GB and needs 600 MB of memory: every tensor is made
//! while it is written. `-- --help` lists what can be changed.

mod infinity;
mod janus;
pub mod shape;
mod vocabulary;
mod weights;

use serde_json::json;
use shape::{Layout, Shape};
use sitter::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use weights::Drawn;

fn main() -> ExitCode {
    match Shape::from_command_line().and_then(|s| s.map_or(Ok(()), |(shape, out)| write(&shape, &out))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

pub fn write(shape: &Shape, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
    let text = |name: &str, text: String| {
        let path = out.join(name);
        std::fs::write(&path, text).map_err(|e| Error::io(&path, e))
    };
    if let Layout::Infinity(sizes) = &shape.layout {
        let inner = out.join("text_encoder");
        std::fs::create_dir_all(&inner).map_err(|e| Error::io(&inner, e))?;
        text("text_encoder/config.json", format!("{:#}\n", infinity::text_config(shape, sizes)))?;
        text("text_encoder/tokenizer.json", vocabulary::t5(shape.vocabulary)?.to_string())?;
        write_weights(infinity::text_encoder(shape, sizes), shape, &inner)?;
        save(infinity::vae(shape, sizes), &out.join("vae.safetensors"))?;
        let tensors = infinity::transformer(shape, sizes);
        let parameters: usize = tensors.iter().map(Drawn::count).sum();
        save(tensors, &out.join("infinity.safetensors"))?;
        println!("{}: {parameters} parameters without image tokenizer and text encoder", out.display());
        return Ok(());
    }
    if matches!(shape.layout, Layout::Janus) {
        text("config.json", format!("{:#}\n", janus::config(shape)))?;
        text("tokenizer.json", vocabulary::janus(shape.vocabulary)?.to_string())?;
        let tensors = [weights::transformer(shape), janus::around(shape)?].concat();
        let numbers = write_weights(tensors, shape, out)?;
        println!("{}: {numbers} numbers with the image tokenizer", out.display());
        return Ok(());
    }
    text("config.json", format!("{:#}\n", shape.config()))?;
    text("tokenizer.json", vocabulary::tokenizer(shape.vocabulary)?.to_string())?;
    text("vqgan.yaml", shape.vqgan_yaml())?;
    // A checkpoint of this size draws pictures of 512 pixels, not of the 768 that are the default.
    text(
        "sitter.json",
        format!("{:#}\n", json!({"sample": {"width": 512, "height": 512}, "train": {"image_size": 512}})),
    )?;
    save(weights::vqgan(shape)?, &out.join("vqgan.safetensors"))?;
    let parameters = write_weights(weights::transformer(shape), shape, out)?;
    println!("{}: {parameters} parameters without the image tokenizer", out.display());
    Ok(())
}

/// `model.safetensors`, or shards with their index if it would be larger than a shard. Returns how many numbers they hold.
fn write_weights(tensors: Vec<Drawn>, shape: &Shape, out: &Path) -> Result<usize> {
    let mut shards: Vec<Vec<Drawn>> = vec![vec![]];
    let mut filled = 0;
    for tensor in tensors {
        if filled > 0 && filled + tensor.bytes() > shape.shard_bytes {
            shards.push(vec![]);
            filled = 0;
        }
        filled += tensor.bytes();
        shards.last_mut().expect("there is one from the start").push(tensor);
    }
    let all = || shards.iter().flatten();
    let (parameters, bytes) = (all().map(Drawn::count).sum(), all().map(Drawn::bytes).sum::<usize>());
    if shards.len() == 1 {
        save(shards.remove(0), &out.join("model.safetensors"))?;
        return Ok(parameters);
    }
    let (mut places, count) = (BTreeMap::new(), shards.len());
    for (number, shard) in shards.into_iter().enumerate() {
        let file = format!("model-{:05}-of-{count:05}.safetensors", number + 1);
        places.extend(shard.iter().map(|t| (t.name.clone(), file.clone())));
        save(shard, &out.join(&file))?;
        println!("{file}");
    }
    let path = out.join("model.safetensors.index.json");
    let index = json!({"metadata": {"total_size": bytes}, "weight_map": places});
    std::fs::write(&path, format!("{index:#}\n")).map_err(|e| Error::io(&path, e))?;
    Ok(parameters)
}

fn save(tensors: Vec<Drawn>, path: &Path) -> Result<()> {
    let named = tensors.into_iter().map(|t| (t.name.clone(), t));
    let metadata = [("format".to_string(), "pt".to_string())].into();
    safetensors::serialize_to_file(named, Some(metadata), path)
        .map_err(|e| Error::bad_format(path, format!("cannot be written: {e}")))
}
