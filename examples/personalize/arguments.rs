//! The command line.

use lexopt::prelude::*;
use sitter::model::{Model, EMBEDDED};
use sitter::personalize::{Method, Options};
use sitter::sample::MAX_PICTURES;
use sitter::{Error, Result};
use std::path::{Path, PathBuf};

const HELP: &str = "\
Teaches a model a subject from a few pictures and draws it in new scenes.

Usage: cargo run --release --example personalize -- [OPTIONS]

Without options: the small model inside the library, a bundled subject, both training stages, a contact sheet.

  --pictures PATH...     your own pictures (files or a folder; 3 to 5 are best), PNG, JPEG or WebP
  --class WORD           what the pictures show, in a word the model knows         [default: fox]
  --identifier WORD      the new word for the subject                              [default: [V]]
  --prompt TEXT          a prompt with the identifier in it, e.g. \"a photo of a [V] fox in the snow\"; repeatable
  --count N              pictures for each such prompt                             [default: 1]
  --model FOLDER         a model folder                                            [default: embedded:]
  --method NAME          two_stage, textual_inversion, dreambooth, lora or arbooth [default: the model's]
  --embedding-steps N    steps of the first stage                                  [default: the model's]
  --layer-steps N        steps of the second stage                                 [default: the model's]
  --seed N               another seed, other pictures                              [default: 0]
  --subject FILE         draw with a saved subject instead of training
  --out FOLDER           where everything goes                     [default: sitter-out, or sitter-out-2 and so on]
  --help                 this text

Ctrl-C ends a training with what it has learned so far, and saves that.
";

/// What says nothing about a subject that is there already.
const TRAINING: [&str; 6] = ["--pictures", "--class", "--identifier", "--method", "--embedding-steps", "--layer-steps"];

/// The bundled subject, found from wherever the example is run.
const BUNDLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/subjects/fox");

#[derive(Debug)]
pub struct Arguments {
    pub pictures: Vec<PathBuf>,
    pub class: String,
    pub identifier: String,
    pub prompts: Vec<String>,
    pub count: u32,
    pub model: String,
    /// The model's own if none.
    pub method: Option<Method>,
    pub embedding_steps: Option<u32>,
    pub layer_steps: Option<u32>,
    pub seed: u64,
    pub subject: Option<PathBuf>,
    pub out: Option<PathBuf>,
    /// What was said about the training.
    training: Vec<&'static str>,
}

impl Arguments {
    /// None if only the help was wanted.
    pub fn from_command_line() -> Result<Option<Self>> {
        Self::parse(lexopt::Parser::from_env())
    }

    #[cfg(test)]
    pub fn from(line: &[&str]) -> Result<Self> {
        Self::parse(lexopt::Parser::from_args(line)).map(|found| found.expect("not the help alone"))
    }

    fn parse(parser: lexopt::Parser) -> Result<Option<Self>> {
        let mut found = Arguments {
            pictures: vec![],
            class: "fox".into(),
            identifier: "[V]".into(),
            prompts: vec![],
            count: 1,
            model: EMBEDDED.into(),
            method: None,
            embedding_steps: None,
            layer_steps: None,
            seed: 0,
            subject: None,
            out: None,
            training: vec![],
        };
        match found.read(parser) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(e) => return Err(Error::invalid("command line", format!("{e} (see --help)"))),
        }
        found.check()?;
        if found.pictures.is_empty() {
            found.pictures.push(BUNDLED.into());
        }
        found.pictures = expand_folders(&found.pictures)?;
        Ok(Some(found))
    }

    /// Errors if something is wrong whatever the model is.
    fn check(&self) -> Result<()> {
        if !(1..=MAX_PICTURES).contains(&(self.count as usize)) {
            return Err(Error::invalid("--count", format!("is {}; allowed are 1 to {MAX_PICTURES}", self.count)));
        }
        if self.prompts.iter().any(|prompt| prompt.trim().is_empty()) {
            return Err(Error::invalid("--prompt", "is empty"));
        }
        if let (Some(subject), [first, ..]) = (&self.subject, &self.training[..]) {
            let message = format!("is about a training, but {} is taught already; leave it out", subject.display());
            return Err(Error::invalid(*first, message));
        }
        if self.class.trim().is_empty() {
            return Err(Error::invalid("--class", "is empty; say what the pictures show, such as dog"));
        }
        self.over(Options::new(self.method.unwrap_or_default())).check_ranges()
    }

    fn read(&mut self, mut parser: lexopt::Parser) -> std::result::Result<bool, lexopt::Error> {
        while let Some(argument) = parser.next()? {
            if let Long(name) = argument {
                self.training.extend(TRAINING.into_iter().filter(|known| known[2..] == *name));
            }
            match argument {
                Long("pictures") => self.pictures.extend(parser.values()?.map(PathBuf::from)),
                Long("class") => self.class = parser.value()?.string()?,
                Long("identifier") => self.identifier = parser.value()?.string()?,
                Long("prompt") => self.prompts.push(parser.value()?.string()?),
                Long("count") => self.count = parser.value()?.parse()?,
                Long("model") => self.model = parser.value()?.string()?,
                Long("method") => self.method = Some(parser.value()?.parse_with(Method::parse)?),
                Long("embedding-steps") => self.embedding_steps = Some(parser.value()?.parse()?),
                Long("layer-steps") => self.layer_steps = Some(parser.value()?.parse()?),
                Long("seed") => self.seed = parser.value()?.parse()?,
                Long("subject") => self.subject = Some(parser.value()?.into()),
                Long("out") => self.out = Some(parser.value()?.into()),
                Long("help") | Short('h') => {
                    print!("{HELP}");
                    return Ok(false);
                }
                other => return Err(other.unexpected()),
            }
        }
        Ok(true)
    }

    /// The method's options, as the model recommends them, with what the command line says.
    pub fn options(&self, model: &Model) -> Result<Options> {
        Ok(self.over(Options::for_model(model, self.method)?))
    }

    fn over(&self, options: Options) -> Options {
        Options {
            class_word: self.class.clone(),
            identifier: self.identifier.clone(),
            seed: self.seed,
            embedding_steps: self.embedding_steps.unwrap_or(options.embedding_steps),
            layer_steps: self.layer_steps.unwrap_or(options.layer_steps),
            ..options
        }
    }
}

/// Folders stand for the pictures in them, by name.
fn expand_folders(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, e))?;
        let mut inside: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| is_picture(p)).collect();
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    ["png", "jpg", "jpeg", "webp"].contains(&extension.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_by_its_name() {
        for (line, wanted) in [
            (
                &["--subject", "x", "--layer-steps", "3"][..],
                "--layer-steps: is about a training, but x is taught already",
            ),
            (&["--class", "fox", "--subject", "x"], "--class"),
            (&["--embedding-steps", "1000001"], "embedding_steps"),
            (&["--pictures", "/no/such/folder/1.png", "--cuont", "1"], "--cuont"),
            (&["--count", "-1"], "--help"),
        ] {
            let said = Arguments::from(line).unwrap_err().to_string();
            assert!(said.contains(wanted), "{line:?}: {said}");
        }
        let fine = Arguments::from(&["--subject", "x", "--count", "3", "--seed", "2", "--prompt", "y", "--out", "z"]);
        assert_eq!(fine.unwrap().count, 3);
    }
}
