//! The whole story in Rust: open a model, teach it a fox from four pictures, draw the fox in the snow.
//!
//! In the repository root (two or three minutes; with 4 steps a few seconds and a poor picture):
//!
//!     cargo run --release --example story -- [MODEL [STEPS [FOLDER_FOR_RESULTS]]]
//!
//! `examples/personalize` is the program for people: all options, a contact sheet, Ctrl-C.

use sitter::model::subject::Subject;
use sitter::model::{Model, OpenOptions};
use sitter::personalize::{self, Dataset, Method};
use sitter::run::{Flow, Run};
use sitter::{sample, Result};
use std::io::Write;
use std::path::Path;

/// A run serves one call, and is told of each of its steps.
fn watch(what: &'static str) -> Run<'static> {
    Run::with_events(move |event| {
        print!("\r{what}: {}, {} of {} ", event.stage.name(), event.done, event.total);
        if let Some(loss) = event.loss {
            print!("(loss {loss:.3}) ");
        }
        let _ = std::io::stdout().flush();
        Flow::Continue // `Cancel` stops the call, `Finish` keeps what was learned so far
    })
}

pub fn tell(name: &str, steps: u32, folder: &Path) -> Result<()> {
    let model = Model::open(name, &OpenOptions::default(), &mut Run::new())?;

    let pictures = Dataset::load(&[1, 2, 3, 4].map(|n| format!("assets/subjects/fox/{n}.png")))?;
    let mut how = personalize::Options::for_model(&model, Method::TwoStage)?;
    how.class_word = "fox".into();
    if steps > 0 {
        // Otherwise what the model recommends.
        (how.embedding_steps, how.layer_steps) = (steps / 2, steps - steps / 2);
    }
    let subject = folder.join("fox.safetensors");
    sitter::train(&model, &pictures, &how, &mut watch("train"))?.save(&subject)?;

    let fox = Subject::load(&subject)?; // as another program would
    let drawing = sample::Options { seed: 7, ..sample::Options::for_model(&model)? };
    let drawn = sample::sample(&model, "a photo of a [V] fox in the snow", &[&fox], &drawing, &mut watch("draw"))?;
    let picture = folder.join("fox.png");
    model.decode(&drawn[0].tokens, &Run::new())?.save_png(&picture, &[])?;
    println!("\nwrote {} and {}", subject.display(), picture.display());
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |n: usize, default: &str| arguments.get(n).cloned().unwrap_or(default.into());
    tell(&argument(0, "embedded:"), argument(1, "0").parse().unwrap_or(0), Path::new(&argument(2, ".")))
}
