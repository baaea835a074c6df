//! Draws what `tools/embedded_model/evaluator.py` scores: pictures and a `manifest.json` saying what each should show.
//!
//! `benchmark prompts PROMPTS.json OUT [MODEL]` draws a list of {prompt, ...} as it is.
//!
//! `benchmark subjects FOLDER RECIPES.json OUT [MODEL]` teaches every subject of FOLDER (as `subjects.py` writes it; the
//! first four pictures are learned, the rest only scored) by every recipe {name: {method, ...options}}, once for each
//! of three seeds, and draws it in eight scenes, with and without its layers, besides the plain class word.

use serde_json::{json, Map, Value};
use sitter::model::personalized::Personalized;
use sitter::model::subject::Subject;
use sitter::model::{Model, OpenOptions, EMBEDDED};
use sitter::personalize::{Dataset, Method, Options};
use sitter::picture::Picture;
use sitter::run::Run;
use sitter::sample::{self, draw_pictures};
use sitter::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::Instant;

const LEARNED: usize = 4;
const SEEDS: u64 = 3;

/// Prompt for `{}`, and the scene, colour and accessory that it asks for.
const PROMPTS: [(&str, &str, &str, &str); 8] = [
    ("a photo of a {}", "", "none", "none"),
    ("a photo of a {} in the snow", "snow", "none", "none"),
    ("a photo of a {} at night", "night", "none", "none"),
    ("a photo of a {} in the forest", "forest", "none", "none"),
    ("a photo of a blue {}", "", "blue", "none"),
    ("a photo of a red {} in the city", "city", "red", "none"),
    ("a photo of a {} wearing a hat", "", "none", "hat"),
    ("a photo of a {} wearing a crown underwater", "water", "none", "crown"),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["prompts", prompts, out, ref model @ ..] => draw_prompts(prompts, out, open(model)?),
        ["subjects", folder, recipes, out, ref model @ ..] => teach(folder, recipes, out, open(model)?),
        _ => Err(Error::invalid(
            "command line",
            "expected: prompts PROMPTS.json OUT [MODEL], or subjects FOLDER RECIPES.json OUT [MODEL]",
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

    fn draw(&mut self, view: &Personalized, prompt: &str, seed: u64, mut entry: Value) -> Result<()> {
        let options = sample::Options { seed, ..sample::Options::for_model(self.model)? };
        for sample in draw_pictures(view, prompt, &options, &mut Run::new())? {
            let file = format!("{:05}.png", self.entries.len());
            let (key, text) = sample.provenance(view, prompt, &options);
            self.model.decode(&sample.tokens, &Run::new())?.save_png(self.out.join(&file), &[(key, &text)])?;
            entry["file"] = file.into();
            self.entries.push(entry.clone());
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
    for (i, entry) in list.iter().enumerate() {
        let prompt = entry["prompt"].as_str().ok_or_else(|| Error::bad_format(prompts, "an entry has no prompt"))?;
        album.draw(&view, prompt, i as u64, entry.clone())?;
    }
    println!("{} pictures, {:.2} s each", list.len(), started.elapsed().as_secs_f64() / list.len().max(1) as f64);
    album.save("manifest.json", &album.entries)
}

fn teach(folder: &str, recipes: &str, out: &str, model: Model) -> Result<()> {
    let folder = Path::new(folder);
    let mut pictures: Map<String, Value> = Map::new();
    for entry in read_json(folder.join("manifest.json"))?.as_array().into_iter().flatten() {
        let class = entry["class"].as_str().unwrap_or_default().to_string();
        let files = pictures.entry(class).or_insert(json!([]));
        files.as_array_mut().into_iter().for_each(|f| f.push(entry["file"].clone()));
    }
    let recipes = read_json(recipes)?;
    let mut album = Album::new(&model, out)?;
    let mut results = Vec::new();
    for (class, files) in &pictures {
        let paths = files.as_array().into_iter().flatten().filter_map(Value::as_str).map(|f| folder.join(f));
        let all = paths.map(Picture::load).collect::<Result<Vec<_>>>()?;
        let (learned, held_out) = all.split_at(LEARNED.min(all.len()));
        let held_out = held_out.iter().map(|p| model.encode(p, &Run::new())).collect::<Result<Vec<_>>>()?;
        for seed in 0..SEEDS {
            let untouched = Personalized::new(&model, &[])?;
            draw_subject(&mut album, &untouched, class, class, "untouched", seed)?;
            results.push(json!({"class": class, "seed": seed, "recipe": "untouched",
                "held_out": mean(&untouched.score(&plain_prompt(class), &held_out, &mut Run::new())?)}));
            for (name, recipe) in recipes.as_object().into_iter().flatten() {
                let mut options = options_of(&model, recipe)?;
                options.class_word = class.clone();
                options.seed = seed;
                let started = Instant::now();
                let subject = sitter::train(&model, &Dataset::new(learned.to_vec())?, &options, &mut Run::new())?;
                let seconds = started.elapsed().as_secs_f64();
                let named = format!("{} {class}", subject.identifier);
                let prompt = format!("a photo of a {named}");
                let mut score = |subject: &Subject, name: &str| -> Result<f64> {
                    let view = Personalized::new(&model, &[subject])?;
                    draw_subject(&mut album, &view, class, &named, name, seed)?;
                    let plain = json!({"class": class, "group": format!("{name}: plain class word"), "seed": seed});
                    (0..2)
                        .try_for_each(|i| album.draw(&view, &plain_prompt(class), 900 + 2 * seed + i, plain.clone()))?;
                    Ok(mean(&view.score(&prompt, &held_out, &mut Run::new())?))
                };
                let full = score(&subject, name)?;
                let vectors_only = match subject.changes.is_empty() {
                    true => full,
                    false => score(&subject.without_layers(), &format!("{name}, layers put back"))?,
                };
                let losses: Vec<f32> = subject.losses.iter().map(|l| l.loss).collect();
                results
                    .push(json!({"class": class, "seed": seed, "recipe": name, "seconds": seconds, "held_out": full,
                    "held_out_layers_put_back": vectors_only, "losses": losses}));
                println!("{class}, {name}, seed {seed}: {seconds:.1} s, held out {full:.3} / {vectors_only:.3}");
            }
        }
        album.save("manifest.json", &album.entries)?;
        album.save("results.json", &results)?;
    }
    Ok(())
}

fn plain_prompt(class: &str) -> String {
    format!("a photo of a {class}")
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&v| v as f64).sum::<f64>() / values.len().max(1) as f64
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

fn draw_subject(album: &mut Album, view: &Personalized, class: &str, noun: &str, group: &str, seed: u64) -> Result<()> {
    for (i, (prompt, scene, colour, accessory)) in PROMPTS.iter().enumerate() {
        let mut entry = json!({"class": class, "colour": colour, "accessory": accessory, "group": group, "seed": seed});
        if !scene.is_empty() {
            entry["scene"] = (*scene).into();
        }
        album.draw(view, &prompt.replace("{}", noun), 100 * seed + i as u64, entry)?;
    }
    Ok(())
}
