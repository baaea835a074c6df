//! Draws what `tools/embedded_model/evaluator.py` scores: pictures and a `manifest.json` saying what each should show.
//!
//! `benchmark prompts PROMPTS.json OUT [MODEL]` draws a list of {prompt, ...} as it is.
//!
//! `benchmark subjects FOLDER RECIPES.json SEEDS OUT [MODEL]` teaches every subject of FOLDER (as `subjects.py` writes it) by
//! every recipe {name: {method, ...options}}, once for each of SEEDS seeds, and draws and scores it, with and without its
//! layers, and the plain class word beside it.

use serde::Deserialize;
use serde_json::{json, Value};
use sitter::model::personalized::Personalized;
use sitter::model::{Model, OpenOptions, EMBEDDED};
use sitter::personalize::{Dataset, Method, Options};
use sitter::picture::Picture;
use sitter::run::Run;
use sitter::sample::{self, draw_pictures};
use sitter::tokens::Tokens;
use sitter::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Prompts drawn together.
const BATCH: usize = 16;
/// Pictures drawn of each prompt for a subject.
const DRAWINGS: u32 = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["prompts", prompts, out, ref model @ ..] => draw_prompts(prompts, out, open(model)?),
        ["subjects", folder, recipes, seeds, out, ref model @ ..] => teach(folder, recipes, seeds, out, open(model)?),
        _ => Err(Error::invalid(
            "command line",
            "expected: prompts PROMPTS.json OUT [MODEL], or subjects FOLDER RECIPES.json SEEDS OUT [MODEL]",
        )),
    }
}

fn open(model: &[&str]) -> Result<Model> {
    Model::open(model.first().unwrap_or(&EMBEDDED), &OpenOptions::default(), &mut Run::new())
}

fn read_json(path: impl AsRef<Path>) -> Result<Value> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::bad_format(path, e.to_string()))
}

/// Pictures and what they should show.
struct Album<'m> {
    model: &'m Model,
    out: PathBuf,
    entries: Vec<Value>,
}

impl<'m> Album<'m> {
    fn new(model: &'m Model, out: &str) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
        Ok(Album { model, out: out.into(), entries: vec![] })
    }

    /// Draws a picture for each entry, by the prompt in it.
    fn draw(&mut self, view: &Personalized, count: u32, seed: u64, entries: Vec<Value>) -> Result<()> {
        let options = sample::Options { seed, count, ..sample::Options::for_model(self.model)? };
        let prompts: Vec<&str> = entries.iter().filter_map(|e| e["prompt"].as_str()).collect();
        let drawn = draw_pictures(view, &prompts, &options, &mut Run::new())?;
        for (i, sample) in drawn.iter().enumerate() {
            let mut entry = entries[i / count as usize].clone();
            let file = format!("{:05}.png", self.entries.len());
            let (key, text) = sample.provenance(view, &options);
            self.model.decode(&sample.tokens, &Run::new())?.save_png(self.out.join(&file), &[(key, &text)])?;
            entry["file"] = file.into();
            entry["seed"] = sample.seed.into();
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Written anew after each subject, so that an interrupted benchmark can be scored as far as it came.
    fn save(&self, name: &str, entries: &[Value]) -> Result<()> {
        let path = self.out.join(name);
        std::fs::write(&path, json!(entries).to_string()).map_err(|e| Error::io(path, e))
    }
}

fn draw_prompts(prompts: &str, out: &str, model: Model) -> Result<()> {
    let mut album = Album::new(&model, out)?;
    let view = Personalized::new(&model, &[])?;
    let started = Instant::now();
    let list = read_json(prompts)?;
    let list = list.as_array().ok_or_else(|| Error::bad_format(prompts, "expected a list"))?;
    if !list.iter().all(|e| e["prompt"].is_string()) {
        return Err(Error::bad_format(prompts, "an entry has no prompt"));
    }
    for (i, entries) in list.chunks(BATCH).enumerate() {
        album.draw(&view, 1, i as u64, entries.to_vec())?;
    }
    println!("{} pictures, {:.2} s each", list.len(), started.elapsed().as_secs_f64() / list.len().max(1) as f64);
    album.save("manifest.json", &album.entries)
}

/// What subjects.json says of one subject; in prompts `{}` stands for it.
#[derive(Deserialize)]
struct Case {
    learned: Vec<PathBuf>,
    held_out: Vec<Scored>,
    known: Vec<Scored>,
    /// Entries of the manifest, without class, group and seed.
    draw: Vec<Value>,
}

#[derive(Deserialize)]
struct Scored {
    file: PathBuf,
    prompt: String,
}

fn teach(folder: &str, recipes: &str, seeds: &str, out: &str, model: Model) -> Result<()> {
    let folder = Path::new(folder);
    let seeds: u64 = seeds.parse().map_err(|_| Error::invalid("SEEDS", format!("{seeds} is not a number")))?;
    let file = folder.join("subjects.json");
    let cases: BTreeMap<String, Case> =
        serde_json::from_value(read_json(&file)?).map_err(|e| Error::bad_format(&file, e.to_string()))?;
    let recipes = read_json(recipes)?;
    let mut bench = Bench { album: Album::new(&model, out)?, results: vec![] };
    for (class, case) in &cases {
        let load = |file: &PathBuf| Picture::load(folder.join(file));
        let learned = Dataset::new(case.learned.iter().map(load).collect::<Result<_>>()?)?;
        let encode = |s: &Scored| Ok((s.prompt.clone(), model.encode(&load(&s.file)?, &Run::new())?));
        let scored = [&case.held_out, &case.known].map(|list| list.iter().map(encode).collect::<Result<Vec<_>>>());
        let [held_out, known] = scored;
        let case = Prepared { class, draw: &case.draw, held_out: held_out?, known: known? };
        for seed in 0..seeds {
            bench.measure(&case, &Personalized::new(&model, &[])?, "untouched", class, seed, None)?;
            for (name, recipe) in recipes.as_object().into_iter().flatten() {
                let mut options = options_of(&model, recipe)?;
                options.class_word = class.clone();
                options.seed = seed;
                let started = Instant::now();
                let subject = sitter::train(&model, &learned, &options, &mut Run::new())?;
                let seconds = Some(started.elapsed().as_secs_f64());
                let noun = format!("{} {class}", subject.identifier);
                bench.measure(&case, &Personalized::new(&model, &[&subject])?, name, &noun, seed, seconds)?;
                if !subject.changes.is_empty() {
                    let view = Personalized::new(&model, &[&subject.without_layers()])?;
                    bench.measure(&case, &view, &format!("{name}, layers put back"), &noun, seed, None)?;
                }
            }
        }
        bench.album.save("manifest.json", &bench.album.entries)?;
        bench.album.save("results.json", &bench.results)?;
    }
    Ok(())
}

/// A subject's pictures, read and encoded.
struct Prepared<'a> {
    class: &'a str,
    draw: &'a [Value],
    held_out: Vec<(String, Tokens)>,
    known: Vec<(String, Tokens)>,
}

struct Bench<'m> {
    album: Album<'m>,
    results: Vec<Value>,
}

impl Bench<'_> {
    /// Draws and scores a class or subject called `noun`, and the plain class word beside it.
    fn measure(
        &mut self,
        case: &Prepared,
        view: &Personalized,
        group: &str,
        noun: &str,
        seed: u64,
        seconds: Option<f64>,
    ) -> Result<()> {
        let entry = |asked: &Value, group: &str, noun: &str| {
            let mut entry = asked.clone();
            let prompt = asked["prompt"].as_str().unwrap_or_default().replace("{}", noun);
            entry["prompt"] = prompt.into();
            entry["class"] = case.class.into();
            entry["group"] = group.into();
            entry
        };
        let asked: Vec<Value> = case.draw.iter().map(|asked| entry(asked, group, noun)).collect();
        self.album.draw(view, DRAWINGS, seed, asked)?;
        let plain = entry(&case.draw[0], &format!("{group}: plain class word"), case.class);
        self.album.draw(view, DRAWINGS, seed + 1000, vec![plain])?;
        let score = |pictures: &[(String, Tokens)], noun: &str| -> Result<f64> {
            let one = |(prompt, tokens): &(String, Tokens)| {
                let prompt = prompt.replace("{}", noun);
                Ok(view.score(&prompt, std::slice::from_ref(tokens), &mut Run::new())?[0] as f64)
            };
            let nats = pictures.iter().map(one).collect::<Result<Vec<_>>>()?;
            Ok(nats.iter().sum::<f64>() / nats.len() as f64)
        };
        let held_out = score(&case.held_out, noun)?;
        println!("{}, {group}, seed {seed}: held out {held_out:.3}", case.class);
        self.results.push(json!({
            "class": case.class, "group": group, "seed": seed, "seconds": seconds, "held_out": held_out,
            "held_out_class_word": score(&case.held_out, case.class)?,
            "known_class_word": score(&case.known, case.class)?,
        }));
        Ok(())
    }
}

/// The method's recommended options with what the recipe says.
fn options_of(model: &Model, recipe: &Value) -> Result<Options> {
    let wrong = |e: String| Error::invalid("recipe", e);
    let method = Method::parse(recipe["method"].as_str().unwrap_or("two_stage"))?;
    let mut all = serde_json::to_value(Options::for_model(model, method)?).map_err(|e| wrong(e.to_string()))?;
    if let (Some(all), Some(given)) = (all.as_object_mut(), recipe.as_object()) {
        all.extend(given.clone());
    }
    serde_json::from_value(all).map_err(|e| wrong(e.to_string()))
}
