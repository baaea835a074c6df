//! Teaches a model a subject from a few pictures and draws it in new scenes.
//!
//! `cargo run --release --example personalize` does it with the small model inside the library and a bundled subject;
//! `-- --help` lists what can be changed.

mod arguments;
mod interrupt;
mod output;
mod plan;
mod progress;
mod sheet;

use arguments::Arguments;
use output::{picture_name, Output, SHEET, SUBJECT};
use plan::Plan;
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
use std::process::ExitCode;
use std::time::Instant;

/// Pictures in a row of the contact sheet.
const COLUMNS: u32 = 4;

/// What a shell has for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let arguments = match Arguments::from_command_line() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(e) => return failed(&e),
    };
    interrupt::listen();
    match personalize(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Cancelled) => ExitCode::from(INTERRUPTED),
        Err(e) => failed(&e),
    }
}

fn failed(error: &Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// `Error::Cancelled` after Ctrl-C, when all that there is to keep is saved.
fn personalize(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let known = arguments.subject.as_ref().map(Subject::load).transpose()?;
    let plan = Plan::new(arguments, known.as_ref())?;
    let pictures = arguments.pictures.iter().map(Picture::load).collect::<Result<Vec<_>>>()?;
    let out = Output::claim(arguments.out.as_deref(), known.is_some())?;

    let mut progress = Progress::new();
    let model = Model::open(&arguments.model, &OpenOptions::default(), &mut progress.run())?;
    progress.end();
    let info = model.info();
    println!("model {}: {} parameters, {}, {}", info.name, info.parameters, info.dtype, info.device);
    plan.check(&model, arguments.count)?;

    let (references, subject) = match known {
        Some(subject) => (vec![], subject),
        None => {
            let subject = train(&model, &pictures, arguments, &out)?;
            (pictures, subject)
        }
    };
    let mut artist = Artist { model: &model, arguments, out: &out, drawn: 0 };
    let drawn = draw(&plan, &references, &subject, &mut artist);
    println!("{} pictures in {}", artist.drawn, out.folder().display());
    if matches!(drawn, Err(Error::Cancelled)) {
        println!("stopped before the contact sheet");
    }
    let sheet = drawn?;
    let file = out.file(SHEET);
    sheet.draw()?.save_png(&file, &[])?;
    println!("contact sheet: {} ({:.0} s in all)", file.display(), started.elapsed().as_secs_f32());
    Ok(())
}

/// Teaches the subject and saves it; what there is of it, if the program was asked to stop.
fn train(model: &Model, pictures: &[Picture], arguments: &Arguments, out: &Output) -> Result<Subject> {
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
    let subject = sitter::train(model, &dataset, &options, &mut progress.finishing_run())?;
    progress.end();
    let file = out.file(SUBJECT);
    subject.save(&file)?;
    if interrupt::asked() {
        let (learned, all) = (subject.losses.len(), options.embedding_steps + options.layer_steps);
        println!("stopped after {learned} of {all} steps; the subject as it is by then is saved to {}", file.display());
        println!("draw it with: --subject {}", file.display());
        return Err(Error::Cancelled);
    }
    println!("subject saved to {}", file.display());
    Ok(subject)
}

/// Draws the rows of the contact sheet.
fn draw(plan: &Plan, references: &[Picture], subject: &Subject, artist: &mut Artist) -> Result<Sheet> {
    let mut sheet = Sheet::new(COLUMNS);
    if !references.is_empty() {
        let tiles = references.iter().enumerate().map(|(i, p)| (p.clone(), format!("reference {}", i + 1)));
        sheet.row("References", tiles.collect());
    }
    let (plain, named) = ([plan.plain.clone()], [plan.named.clone()]);
    sheet.row("Before training: the class word alone", artist.draw(&[], &plain, COLUMNS)?);
    if !subject.changes.is_empty() {
        let vectors_only = subject.without_layers();
        sheet.row("The learned word alone, layers untouched", artist.draw(&[&vectors_only], &named, COLUMNS)?);
    }
    sheet.row(format!("The subject ({})", subject.method), artist.draw(&[subject], &named, COLUMNS)?);
    let count = artist.arguments.count;
    sheet.row("In new scenes, colours and accessories", artist.draw(&[subject], &plan.scenes, count)?);
    Ok(sheet)
}

/// Draws prompts, saves every picture, and hands back tiles for the sheet.
struct Artist<'a> {
    model: &'a Model,
    arguments: &'a Arguments,
    out: &'a Output,
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
                let file = self.out.file(&picture_name(self.drawn, &sample.prompt));
                let (key, text) = sample.provenance(&view, &options);
                picture.save_png(&file, &[(key, &text)])?;
                tiles.push((picture, sample.prompt));
            }
        }
        progress.end();
        Ok(tiles)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// One test, since a process has one Ctrl-C.
    #[test]
    fn ctrl_c_keeps_the_subject_so_far_and_stops_what_there_is_nothing_to_keep_of() {
        let place = tempfile::tempdir().unwrap();
        let named = |name: &str| place.path().join(name);
        let arguments = |line: &[&str]| Arguments::from(line).unwrap();
        // SAFETY: a signal to this process, which listens to it.
        let press = || unsafe { libc::kill(libc::getpid(), libc::SIGINT) };

        let long = arguments(&["--embedding-steps", "1000000"]);
        let model = Model::open("embedded:", &OpenOptions::default(), &mut Run::new()).unwrap();
        let pictures: Vec<Picture> = long.pictures.iter().map(|p| Picture::load(p).unwrap()).collect();
        let out = Output::claim(Some(&named("long")), false).unwrap();
        // Tests that were started in the background ignore Ctrl-C, and so would this one.
        // SAFETY: nobody else handles signals in this process.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
        interrupt::listen();
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(500));
                press();
            });
            train(&model, &pictures, &long, &out)
        });
        assert!(matches!(result, Err(Error::Cancelled)));
        let file = out.file(SUBJECT);
        let subject = Subject::load(&file).unwrap();
        assert!((1..1_000_000).contains(&subject.losses.len()), "{} steps", subject.losses.len());
        drop(out);

        // What it says to do next works, into the same folder if that is wished.
        let (file, folder) = (file.to_str().unwrap(), named("long"));
        let again = arguments(&["--subject", file, "--out", folder.to_str().unwrap()]);
        interrupt::forget();
        interrupt::listen();
        press();
        assert!(matches!(personalize(&again), Err(Error::Cancelled)));
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [SUBJECT]);

        let fresh = named("fresh");
        interrupt::listen();
        press();
        assert!(matches!(personalize(&arguments(&["--out", fresh.to_str().unwrap()])), Err(Error::Cancelled)));
        assert!(!fresh.exists(), "a run that came to nothing leaves nothing");
        interrupt::forget();
    }
}
