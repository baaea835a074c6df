//! Teaches a model a subject from a few pictures and draws it in new scenes.
//!
//! `cargo run --release --example personalize` does it with the small model inside the library and a bundled subject;
//! `-- --help` lists what can be changed.

mod arguments;
mod progress;
mod sheet;

use arguments::Arguments;
use progress::Progress;
use sheet::Sheet;
use sitter::model::personalized::Personalized;
use sitter::model::subject::Subject;
use sitter::model::{Model, OpenOptions};
use sitter::personalize::Dataset;
use sitter::picture::Picture;
use sitter::run::Run;
use sitter::sample::{self, draw_pictures};
use sitter::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Pictures in a row of the contact sheet.
const COLUMNS: u32 = 4;

fn main() -> ExitCode {
    match Arguments::from_command_line().and_then(|a| a.map_or(Ok(()), |a| personalize(&a))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn personalize(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let out = &arguments.out;
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;

    let mut progress = Progress::new();
    let model = Model::open(&arguments.model, &OpenOptions::default(), &mut progress.run())?;
    progress.end();
    let info = model.info();
    println!("model {}: {} parameters, {}, {}", info.name, info.parameters, info.dtype, info.device);

    let pictures = arguments.pictures.iter().map(Picture::load).collect::<Result<Vec<_>>>()?;
    let subject = match &arguments.subject {
        Some(file) => Subject::load(file)?,
        None => {
            let subject = train(&model, &pictures, arguments)?;
            let file = out.join("subject.safetensors");
            subject.save(&file)?;
            println!("subject saved to {}", file.display());
            subject
        }
    };

    let mut sheet = Sheet::new(COLUMNS);
    if arguments.subject.is_none() {
        let tiles = pictures.iter().enumerate().map(|(i, p)| (p.clone(), format!("reference {}", i + 1)));
        sheet.row("References", tiles.collect());
    }
    let mut artist = Artist { model: &model, arguments, drawn: 0 };
    let class = &subject.class_word;
    let plain = [format!("a photo of a {class}")];
    let named = [format!("a photo of a {} {class}", subject.identifier)];
    sheet.row("Before training: the class word alone", artist.draw(&[], &plain, COLUMNS)?);
    if !subject.changes.is_empty() {
        let vectors_only = subject.without_layers();
        sheet.row("The learned word alone, layers untouched", artist.draw(&[&vectors_only], &named, COLUMNS)?);
    }
    sheet.row(format!("The subject ({})", subject.method), artist.draw(&[&subject], &named, COLUMNS)?);
    let prompts: Vec<String> = match arguments.prompts.is_empty() {
        false => arguments.prompts.clone(),
        true => NEW_SCENES.iter().map(|p| p.replace("{}", &format!("{} {class}", subject.identifier))).collect(),
    };
    sheet.row("In new scenes, colours and accessories", artist.draw(&[&subject], &prompts, arguments.count)?);
    let file = out.join("contact_sheet.png");
    sheet.draw()?.save_png(&file, &[])?;
    println!("{} pictures in {}", artist.drawn, out.display());
    println!("contact sheet: {} ({:.0} s in all)", file.display(), started.elapsed().as_secs_f32());
    Ok(())
}

/// Scenes, colours and accessories that the references do not show.
const NEW_SCENES: [&str; 8] = [
    "a photo of a {} in the snow",
    "a photo of a {} on the beach",
    "a photo of a {} at night",
    "a photo of a {} in front of a brick wall",
    "a photo of a blue {}",
    "a photo of a red {} in the forest",
    "a photo of a {} wearing a hat",
    "a photo of a {} wearing a crown underwater",
];

fn train(model: &Model, pictures: &[Picture], arguments: &Arguments) -> Result<Subject> {
    if pictures.is_empty() {
        return Err(Error::invalid("--pictures", "no PNG, JPEG or WebP picture found"));
    }
    let options = arguments.options(model)?;
    println!(
        "teaching {} {} from {} pictures: {} embedding steps, {} layer steps",
        options.identifier,
        options.class_word,
        pictures.len(),
        options.embedding_steps,
        options.layer_steps
    );
    let dataset = Dataset::new(pictures.to_vec())?;
    let mut progress = Progress::new();
    let subject = sitter::train(model, &dataset, &options, &mut progress.run())?;
    progress.end();
    Ok(subject)
}

/// Draws prompts, saves every picture, and hands back tiles for the sheet.
struct Artist<'a> {
    model: &'a Model,
    arguments: &'a Arguments,
    drawn: usize,
}

impl Artist<'_> {
    fn draw(&mut self, subjects: &[&Subject], prompts: &[String], count: u32) -> Result<Vec<(Picture, String)>> {
        let view = Personalized::new(self.model, subjects)?;
        let mut options = sample::Options::for_model(self.model)?;
        options.count = count;
        options.seed = self.arguments.seed;
        let mut tiles = Vec::new();
        let mut progress = Progress::new();
        // In one call as many as one call may draw.
        for prompts in prompts.chunks((sample::MAX_PICTURES / count.max(1) as usize).max(1)) {
            for sample in draw_pictures(&view, prompts, &options, &mut progress.run())? {
                let picture = self.model.decode(&sample.tokens, &Run::new())?;
                self.drawn += 1;
                let file = self.file_name(&sample.prompt);
                let (key, text) = sample.provenance(&view, &options);
                picture.save_png(&file, &[(key, &text)])?;
                tiles.push((picture, sample.prompt));
            }
        }
        progress.end();
        Ok(tiles)
    }

    fn file_name(&self, prompt: &str) -> PathBuf {
        let words: String = prompt.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let words: Vec<&str> = words.split('_').filter(|w| !w.is_empty()).collect();
        let short: String = words.join("_").chars().take(60).collect();
        Path::new(&self.arguments.out).join(format!("{:03}_{short}.png", self.drawn))
    }
}
